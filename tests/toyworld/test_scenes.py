from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm.toyworld.render import CLASSES, COLOURS, PATTERNS, labels, object_caption, render_scene, scene_id
from ldm.toyworld.scenes import (
    CHANGES,
    PADDING,
    CaptionScenes,
    ExemplarScenes,
    HoleScenes,
    collate,
    draw_things,
    possible_edits,
)
from tests.refusals import refused
from tests.tiny import shipped_judge


def pixels(image: torch.Tensor) -> np.ndarray:
    return ((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def test_the_hole_is_the_padded_box_of_a_thing_in_the_scene():
    data = ExemplarScenes(seed=7, length=12)
    for i in range(12):
        item, scene = data[i], render_scene(np.random.default_rng(scene_id(7, "cross", i)))
        assert np.array_equal(pixels(item["image"]), scene.image)
        x0, y0, x1, y1 = box = tuple(item["box"].tolist())
        assert box in [thing.box for thing in scene.objects]
        hole = torch.zeros(1, 64, 64)
        hole[:, max(y0 - PADDING, 0) : y1 + PADDING, max(x0 - PADDING, 0) : x1 + PADDING] = 1
        assert torch.equal(item["mask"], hole)
        visible = next(thing.mask for thing in scene.objects if thing.box == box)
        assert np.array_equal(item["visible"][0].numpy(), visible)


def test_the_exemplar_is_another_thing_cut_out_of_another_scene():
    data = ExemplarScenes(seed=7, length=12)
    for i in range(12):
        item, scene = data[i], render_scene(np.random.default_rng(scene_id(7, "cross", i)))
        old = next(thing for thing in scene.objects if thing.box == tuple(item["box"].tolist()))
        assert CLASSES[item["class"]] != old.cls
        assert list(COLOURS)[item["colour"]] != old.colour
        x0, y0, x1, y1 = item["donor_box"].tolist()
        donor = pixels(item["donor"])
        cut = donor[max(y0 - PADDING, 0) : y1 + PADDING, max(x0 - PADDING, 0) : x1 + PADDING]
        assert np.array_equal(np.asarray(item["exemplar"]), cut)
        assert not np.array_equal(donor, scene.image)


def test_a_longer_set_or_another_seed():
    short, long, other = ExemplarScenes(1, 2), ExemplarScenes(1, 5), ExemplarScenes(2, 2)
    assert torch.equal(short[1]["image"], long[1]["image"])
    assert not torch.equal(short[1]["image"], other[1]["image"])


def test_a_batch_keeps_its_exemplars_apart():
    data = ExemplarScenes(1, 3)
    batch = collate([data[i] for i in range(3)])
    assert batch["image"].shape == (3, 3, 64, 64) and batch["mask"].shape == (3, 1, 64, 64)
    assert batch["box"].shape == (3, 4) and batch["class"].dtype == torch.int64
    assert [np.array_equal(a, data[i]["exemplar"]) for i, a in enumerate(batch["exemplar"])] == [True] * 3


def test_a_blob_is_an_uneven_round_hole_about_the_thing():
    data = ExemplarScenes(seed=7, length=24)
    shares = []
    for item in (data[i] for i in range(24)):
        x0, y0, x1, y1 = item["box"].tolist()
        blob = item["blob"]
        assert blob.unique().tolist() == [0, 1]
        inside = blob[:, y0:y1, x0:x1]
        shares.append(inside.mean().item())
        assert inside[0, (y1 - y0) // 2, (x1 - x0) // 2] == 1
        assert item["visible"][blob > 0].sum() > 0.8 * item["visible"].sum()
        assert not torch.equal(blob, item["mask"])
    assert 0.8 < sum(shares) / len(shares) < 0.99  # corners of the box stick out


def test_the_exemplars_thing_is_known_in_its_scene():
    for item in (ExemplarScenes(seed=7, length=12)[i] for i in range(12)):
        x0, y0, x1, y1 = item["donor_box"].tolist()
        rows, columns = (item["donor_visible"][0].amax(dim).nonzero()[:, 0] for dim in (1, 0))
        assert [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] == [x0, y0, x1, y1]


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
    data = CaptionScenes(seed=7, length=30, change=change)
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
    short, long = CaptionScenes(1, 2, "colour"), CaptionScenes(1, 5, "colour")
    assert torch.equal(short[1]["image"], long[1]["image"]) and short[1]["target"] == long[1]["target"]
    for other in (CaptionScenes(2, 2, "colour")[1], CaptionScenes(1, 2, "class")[1], short[0]):
        assert not torch.equal(short[1]["image"], other["image"])
    with pytest.raises(IndexError):
        short[2]


def test_scenes_come_in_every_size_and_batches_keep_their_captions():
    data = CaptionScenes(1, 3, "class", size=96)
    batch = collate([data[i] for i in range(3)])
    assert batch["image"].shape == (3, 3, 96, 96) and batch["mask"].shape == (3, 1, 96, 96)
    assert batch["box"].shape == (3, 4) and batch["class"].dtype == batch["thing"].dtype == torch.int64
    assert batch["target"] == [data[i]["target"] for i in range(3)]


def test_another_change_is_refused():
    with refused("change", "size", "class", "colour"):
        CaptionScenes(1, 1, "size")


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


def test_scenes_are_the_same_under_every_mask():
    wide, half = HoleScenes(7, 3, "wide", 32), HoleScenes(7, 3, "half", 32)
    for i in range(3):
        assert torch.equal(wide[i]["image"], half[i]["image"])
        assert wide[i]["image"].shape == (3, 32, 32) and wide[i]["mask"].shape == (1, 32, 32)
        assert torch.equal(half[i]["mask"], half[0]["mask"])
    assert not torch.equal(wide[0]["mask"], wide[1]["mask"])
    assert not torch.equal(wide[0]["image"], wide[1]["image"])
    assert len(list(wide)) == len(wide) == 3


def test_an_item_follows_from_seed_and_index():
    for name, same in HoleScenes(7, 9, "wide", 32)[2].items():
        assert torch.equal(same, HoleScenes(7, 3, "wide", 32)[2][name])
        assert not torch.equal(same, HoleScenes(8, 3, "wide", 32)[2][name])


@pytest.mark.parametrize("kind, size, wanted", [("whole", 64, "whole"), ("wide", 4, "4x4")])
def test_what_cannot_be_drawn_is_refused_at_once(kind, size, wanted):
    with refused(wanted):
        HoleScenes(7, 3, kind, size)
