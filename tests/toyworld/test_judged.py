import numpy as np
import pytest
import torch

from ldm.toyworld import judged as toyworld_judge
from ldm.toyworld.judged import ALONE, IN_COMPANY, ToyWorldJudged, shift_sides, soften
from ldm.toyworld.render import CLASSES, COLOURS, PATTERNS, render_scene


@pytest.fixture
def scene(monkeypatch):
    """Every item shows this scene of two things or more."""
    scene = next(s for s in map(render_scene, range(50)) if len({thing.cls for thing in s.objects}) > 1)
    monkeypatch.setattr(toyworld_judge, "render_scene", lambda rng, size: scene)
    return scene


def test_an_item_is_a_thing_of_the_scene_with_its_box_and_labels(scene):
    items = [ToyWorldJudged(8, augment=False, seed=0)[i] for i in range(8)]
    drawn = torch.from_numpy(scene.image).permute(2, 0, 1) / 127.5 - 1
    things = {thing.box: thing for thing in scene.objects}
    for item in items:
        thing = things[tuple(item["box"].int().tolist())]
        assert torch.equal(item["image"], drawn)
        named = CLASSES[item["class"]], list(COLOURS)[item["colour"]], PATTERNS[item["pattern"]]
        assert named == (thing.cls, thing.colour, thing.pattern)
    assert len({item["class"] for item in items}) > 1  # not always the same thing


def test_items_follow_from_seed_epoch_and_index():
    def images(data, epoch=0):
        return torch.stack([data[epoch * 3 + i]["image"] for i in range(3)])

    data, again, other = (ToyWorldJudged(3, augment=True, seed=seed) for seed in (5, 5, 6))
    first = images(data)
    assert torch.equal(first, images(again))
    assert not torch.equal(first, images(other))
    assert not torch.equal(first, images(data, epoch=1))


def test_boxes_move_far_only_where_a_thing_is_alone(scene):
    data = ToyWorldJudged(40, augment=True, seed=0)
    boxes = np.array([thing.box for thing in scene.objects], np.float32)
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
