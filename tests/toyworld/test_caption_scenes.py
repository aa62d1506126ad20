from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm.toyworld.caption_scenes import CHANGES, AttributeEdits, draw_things, possible_edits
from ldm.toyworld.exemplar_scenes import collate
from ldm.toyworld.judged import labels
from ldm.toyworld.render import CLASSES, COLOURS, PATTERNS, object_caption, render_scene, scene_id
from ldm.utils.errors import UserError
from tests.tiny import shipped_judge


def names(item: dict) -> dict[str, str]:
    return {
        "cls": CLASSES[item["class"]],
        "colour": list(COLOURS)[item["colour"]],
        "pattern": PATTERNS[item["pattern"]],
    }


def first_scene(seed: int, change: str, index: int):
    return render_scene(np.random.default_rng(scene_id(seed, f"{change} edit", index)))


@pytest.mark.parametrize("change", CHANGES)
def test_one_word_about_one_thing_changes(change):
    data = AttributeEdits(seed=7, length=30, change=change)
    again = 0
    for i in range(30):
        item, scene = data[i], first_scene(7, change, i)
        if item["source"] != scene.caption:
            again += 1
            continue
        assert torch.equal(((item["image"] + 1) * 127.5).round().byte().permute(1, 2, 0), torch.from_numpy(scene.image))
        thing = scene.objects[item["thing"]]
        assert tuple(item["box"].tolist()) == thing.box
        assert np.array_equal(item["mask"][0].numpy() > 0, thing.mask) and set(item["mask"].unique().tolist()) == {0, 1}

        after = replace(thing, **names(item))
        field = CHANGES[change][0]
        assert getattr(after, field) != getattr(thing, field)
        assert replace(after, **{field: getattr(thing, field)}).caption == thing.caption
        parts = item["source"].split(" and ")
        assert parts[item["thing"]].startswith(object_caption(thing))
        parts[item["thing"]] = parts[item["thing"]].replace(object_caption(thing), object_caption(after), 1)
        assert " and ".join(parts) == item["target"]
    assert again < 10


def test_a_caption_means_one_thing():
    things = render_scene(4).objects
    while len(things) < 3:
        things = [*things, things[0]]
    ball, other = replace(things[0], cls="ball", colour="red"), replace(things[1], cls="mug", colour="blue")
    scene = replace(render_scene(4), objects=[ball, other, replace(ball)])
    colours = tuple(COLOURS)
    assert {place for place, _ in possible_edits(scene, "colour", colours)} == {1}
    assert len(possible_edits(scene, "colour", colours)) == len(COLOURS) - 1
    scene = replace(scene, objects=[ball, replace(ball, colour="blue")])
    edits = [(place, edited.colour) for place, edited in possible_edits(scene, "colour", colours)]
    assert (0, "blue") not in edits and (1, "red") not in edits and (0, "green") in edits
    assert len(edits) == 2 * (len(COLOURS) - 2)
    assert possible_edits(replace(scene, objects=[ball, replace(ball)]), "colour", colours) == []


def test_an_item_depends_on_seed_change_and_index_alone():
    short, long = AttributeEdits(1, 2, "colour"), AttributeEdits(1, 5, "colour")
    assert torch.equal(short[1]["image"], long[1]["image"]) and short[1]["target"] == long[1]["target"]
    for other in (AttributeEdits(2, 2, "colour")[1], AttributeEdits(1, 2, "class")[1], short[0]):
        assert not torch.equal(short[1]["image"], other["image"])
    with pytest.raises(IndexError):
        short[2]


def test_scenes_come_in_every_size_and_batches_keep_their_captions():
    data = AttributeEdits(1, 3, "class", size=96)
    batch = collate([data[i] for i in range(3)])
    assert batch["image"].shape == (3, 3, 96, 96) and batch["mask"].shape == (3, 1, 96, 96)
    assert batch["box"].shape == (3, 4) and batch["class"].dtype == batch["thing"].dtype == torch.int64
    assert batch["target"] == [data[i]["target"] for i in range(3)]


def test_another_change_is_refused():
    with pytest.raises(UserError, match="change 'size': expected one of class, colour"):
        AttributeEdits(1, 1, "size")


def test_wanted_things_are_drawn_as_often_as_they_are_wanted():
    wanted = [tuple(labels(render_scene(i).objects[0]).values()) for i in range(12)] + [(3, 2, 0)] * 2
    found = list(draw_things(wanted, seed=5))
    assert Counter((item["class"], item["colour"], item["pattern"]) for item in found) == Counter(wanted)
    batch = collate(found)
    right = shipped_judge().correct(batch["image"], batch["box"], batch)
    assert right["class"].sum() >= 13 and right["colour"].sum() >= 13  # the box is that of the thing
    assert len({image.numpy().tobytes() for image in batch["image"]}) == len(wanted)
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(found, draw_things(wanted, seed=5), strict=True))
    assert not torch.equal(found[0]["image"], next(draw_things(wanted, seed=6))["image"])
