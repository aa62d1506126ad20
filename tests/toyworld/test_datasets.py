"""What the models of ToyWorld are trained on."""

import numpy as np
import pytest
import torch

from ldm.config import load_config
from ldm.toyworld import datasets
from ldm.toyworld.datasets import ALONE, IN_COMPANY, ToyScenes, ToyWorldJudged, shift_sides, soften
from ldm.toyworld.render import CLASSES, COLOURS, PATTERNS, VOCABULARY, object_caption, render_scene, scene_caption


@pytest.fixture
def drawn(monkeypatch):
    """Every scene that the data set draws, in order."""
    scenes = []

    def recorded(*arguments):
        scenes.append(render_scene(*arguments))
        return scenes[-1]

    monkeypatch.setattr(datasets, "render_scene", recorded)
    return scenes


@pytest.fixture
def scene(monkeypatch):
    """Every item shows this scene of three things of three classes."""
    scene = next(s for s in map(render_scene, range(100)) if len({thing.cls for thing in s.objects}) == 3)
    monkeypatch.setattr(datasets, "render_scene", lambda rng, size: scene)
    return scene


def test_items_follow_from_seed_epoch_and_index():
    def items(data, epoch=0):
        found = [data[epoch * 3 + i] for i in range(3)]
        return torch.stack([item["image"] for item in found]), [item["caption"] for item in found]

    data, again, other = (ToyScenes(3, size=64, seed=seed) for seed in (5, 5, 6))
    pictures, captions = items(data)
    assert torch.equal(pictures, items(again)[0]) and captions == items(again)[1]
    for others in (items(other)[0], items(data, epoch=1)[0], pictures.roll(1, 0)):
        assert not any(torch.equal(a, b) for a, b in zip(pictures, others, strict=True))


@pytest.mark.parametrize("size", [32, 64])
def test_the_picture_is_the_renderers_and_the_caption_is_of_it(drawn, size):
    data = ToyScenes(20, size=size, seed=0)
    for item, scene in ((data[i], drawn[-1]) for i in range(20)):
        assert item["image"].shape == (3, size, size) and item["image"].dtype == torch.float32
        assert torch.equal(item["image"], torch.from_numpy(scene.image).permute(2, 0, 1) / 127.5 - 1)
        phrases = [{object_caption(t, brief) for t in scene.objects} for brief in (False, True)]
        place = scene_caption([], scene.background)
        named = set(item["caption"].removesuffix(place).split(" and "))
        assert named <= phrases[0] or named <= phrases[1]


def test_the_shares_of_captions_that_leave_something_out(scene):
    count = 3000
    captions = [ToyScenes(count, size=64, seed=1)[i]["caption"] for i in range(count)]
    place = scene_caption([], scene.background)
    placeless = [not caption.endswith(place) for caption in captions]
    partial = [caption.count(" and ") < 2 for caption in captions]
    brief = [not any(thing.colour in caption for thing in scene.objects) for caption in captions]
    for found, share in ((placeless, 0.3), (partial, 0.15), (brief, 0.15)):
        assert sum(found) / count == pytest.approx(share, abs=0.02)
    both = sum(a and b and c for a, b, c in zip(placeless, partial, brief, strict=True)) / count
    assert both == pytest.approx(0.3 * 0.15 * 0.15, abs=0.005)  # each by itself
    left = {caption for caption, few in zip(captions, partial, strict=True) if few}
    assert all(any(thing.cls in caption for caption in left) for thing in scene.objects)  # any thing may stay
    order = [thing.cls for thing in scene.objects]
    for caption in captions:
        named = [word for word in caption.removesuffix(place).split() if word in order]
        assert named == [name for name in order if name in named]  # from left to right, as in the scene


def test_nothing_is_left_out_where_no_share_is(drawn):
    data = ToyScenes(10, size=32, seed=2, placeless=0, partial=0, brief=0)
    assert [data[i]["caption"] for i in range(10)] == [scene.caption for scene in drawn]
    data = ToyScenes(10, size=32, seed=2, placeless=1, partial=1, brief=1)
    for item, scene in ((data[i], drawn[-1]) for i in range(10)):
        named = item["caption"].split(" and ")
        assert set(named) <= {f"a {thing.cls}" for thing in scene.objects}
        assert len(named) == 1 if len(scene.objects) == 1 else 0 < len(named) < len(scene.objects)


def test_the_text_model_knows_every_word():
    words = load_config("models/toyworld/text").params.conditioner.params.encoder.params.tokenizer.params
    data = ToyScenes(200, size=16, seed=3)
    captions = [data[i]["caption"].split() for i in range(200)]
    assert {word for caption in captions for word in caption} <= set(VOCABULARY) == set(words.words)
    assert max(map(len, captions)) <= words.context_length - 2


@pytest.fixture
def company(monkeypatch):
    """Every item shows this scene of two things or more."""
    scene = next(s for s in map(render_scene, range(50)) if len({thing.cls for thing in s.objects}) > 1)
    monkeypatch.setattr(datasets, "render_scene", lambda rng, size: scene)
    return scene


def test_an_item_is_a_thing_of_the_scene_with_its_box_and_labels(company):
    items = [ToyWorldJudged(8, augment=False, seed=0)[i] for i in range(8)]
    drawn = torch.from_numpy(company.image).permute(2, 0, 1) / 127.5 - 1
    things = {thing.box: thing for thing in company.objects}
    for item in items:
        thing = things[tuple(item["box"].int().tolist())]
        assert torch.equal(item["image"], drawn)
        named = CLASSES[item["class"]], list(COLOURS)[item["colour"]], PATTERNS[item["pattern"]]
        assert named == (thing.cls, thing.colour, thing.pattern)
    assert len({item["class"] for item in items}) > 1  # not always the same thing


def test_judged_things_follow_from_seed_epoch_and_index():
    def images(data, epoch=0):
        return torch.stack([data[epoch * 3 + i]["image"] for i in range(3)])

    data, again, other = (ToyWorldJudged(3, augment=True, seed=seed) for seed in (5, 5, 6))
    first = images(data)
    assert torch.equal(first, images(again))
    assert not torch.equal(first, images(other))
    assert not torch.equal(first, images(data, epoch=1))


def test_boxes_move_far_only_where_a_thing_is_alone(company):
    data = ToyWorldJudged(40, augment=True, seed=0)
    boxes = np.array([thing.box for thing in company.objects], np.float32)
    extents = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    for item in (data[i] for i in range(40)):
        outwards = (item["box"].numpy() - boxes) * [-1, -1, 1, 1] / extents
        assert any(((share >= -0.061) & (share <= IN_COMPANY + 0.001)).all() for share in outwards)


def test_each_side_moves_on_its_own():
    rng, box = np.random.default_rng(0), np.array([20, 30, 40, 60], np.float32)
    moved = np.stack([shift_sides(box, ALONE, rng) for _ in range(500)])
    outwards = (moved - box) * [-1, -1, 1, 1] / [20, 30, 20, 30]
    assert np.allclose(outwards.min(0), -0.06, atol=0.02)
    assert np.allclose(outwards.max(0), ALONE, atol=0.02)
    assert np.abs(np.corrcoef(outwards.T) - np.eye(4)).max() < 0.2


def test_half_of_the_pictures_are_softened():
    rng, image = np.random.default_rng(0), render_scene(3).image
    soft = [soften(image, rng) for _ in range(200)]
    changed = [picture for picture in soft if not np.array_equal(picture, image)]
    assert 70 < len(changed) < 130
    assert max(np.abs(picture.astype(float) - image).mean() for picture in changed) < 12  # still the same picture
