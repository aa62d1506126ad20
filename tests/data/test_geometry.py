"""Boxes, masks and windows: equal to the original's for the same random decisions, and sound for any decisions."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.crops import cut, extended_box, padded_box, square_window
from ldm.data.masks import bezier_mask, bezier_outline, bounds, filled_box
from ldm.data.recipe import Recipe, exemplar_tensor
from ldm.utils.clip import clip_normalise
from tests.refusals import refused

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "dataset_open_images.npz")
CONFIG = json.loads(str(GOLDEN["config"]))


def recipe(**options) -> Recipe:
    return Recipe(**{"size": CONFIG["image_size"], "augment": False, "squash": True} | options)


@pytest.mark.parametrize("shape, percent", [("bbox", 0.0), ("bezier", 1.0)])
@pytest.mark.parametrize("image", range(4))
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_same_decisions_give_the_original_masks_and_pictures(shape, percent, image, seed):
    item = recipe(arbitrary_mask_percent=percent)(GOLDEN[f"img{image}_u8"], CONFIG["boxes"][image], Random(seed))
    key = f"{shape}_im{image}_s{seed}"
    np.testing.assert_array_equal(1 - item["mask"].numpy(), GOLDEN[f"{key}/mask"])  # the original: 1 = keep
    if f"{key}/GT" in GOLDEN:
        np.testing.assert_array_equal(item["image"].numpy(), GOLDEN[f"{key}/GT"])


def test_the_golden_file_holds_pictures_to_compare():
    assert sum(key.endswith("/GT") for key in GOLDEN) == 2 and sum(key.endswith("/mask") for key in GOLDEN) == 24


def random_box(rng: Random, width: int, height: int) -> tuple[int, int, int, int]:
    x0, y0 = rng.randrange(width - 1), rng.randrange(height - 1)
    return x0, y0, rng.randint(x0 + 1, width), rng.randint(y0 + 1, height)


@pytest.mark.parametrize("width, height", [(160, 120), (120, 160), (128, 128), (300, 40), (40, 300)])
def test_windows_are_square_and_hold_the_box(width, height):
    rng, beyond = Random(0), 0
    for _ in range(500):
        box = extended_box(random_box(rng, width, height), width, height, rng)
        x0, y0, x1, y1 = square_window(box, width, height, rng)
        assert x1 - x0 == y1 - y0
        assert x0 <= box[0] and y0 <= box[1] and x1 >= box[2] and y1 >= box[3]
        if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
            beyond += 1
            # only where the box is longer than the shorter side, and only across that side
            assert max(box[2] - box[0], box[3] - box[1]) > min(width, height)
            assert (x0 >= 0 and x1 <= width) if width > height else (y0 >= 0 and y1 <= height)
    assert (beyond > 0) == (width != height)


def test_squash_is_the_original_answer_to_boxes_without_a_window():
    rng = Random(0)
    assert square_window((10, 5, 150, 80), 200, 90, rng, squash=True) == (0, 0, 200, 90)
    assert square_window((5, 10, 80, 150), 90, 200, rng, squash=True) == (0, 0, 90, 200)
    # a window that fits in one place only counts as none there
    assert square_window((10, 0, 100, 80), 200, 90, rng, squash=True) == (0, 0, 200, 90)
    assert square_window((10, 0, 100, 80), 200, 90, rng) == (10, 0, 100, 90)
    left, top, right, bottom = square_window((10, 5, 150, 80), 200, 90, rng)
    assert right - left == bottom - top >= 140


def test_extension_stays_in_the_picture_and_takes_at_most_four_tenths_of_the_space():
    rng, width, height = Random(1), 100, 80
    largest = np.zeros(4)
    for _ in range(2000):
        box = (30, 20, 60, 50)
        grown = np.array(extended_box(box, width, height, rng)) - box
        assert (grown * [-1, -1, 1, 1] >= 0).all()
        largest = np.maximum(largest, np.abs(grown))
    assert largest.tolist() == [12, 8, 16, 12]


def test_padding_is_clipped():
    assert padded_box((3, 20, 60, 75), 10, 64, 80) == (0, 10, 64, 80)


def test_cut_inside_and_beyond():
    picture = np.arange(24).reshape(4, 6)
    np.testing.assert_array_equal(cut(picture, (1, 1, 3, 4)), picture[1:4, 1:3])
    reaching = cut(picture, (1, -1, 7, 5), fill=-5)
    assert reaching.shape == (6, 6)
    np.testing.assert_array_equal(reaching[1:5, :5], picture[:, 1:])
    assert (reaching[0] == -5).all() and (reaching[5] == -5).all() and (reaching[:, 5] == -5).all()


def test_box_mask_is_the_box():
    mask = filled_box((2, 1, 5, 3), 8, 6)
    assert mask.dtype == np.uint8 and mask.sum() == 255 * 6 and (mask[1:3, 2:5] == 255).all()


def test_bounds_are_the_smallest_box():
    assert bounds(filled_box((2, 1, 5, 3), 8, 6)) == (2, 1, 5, 3)
    assert bounds(np.eye(4, 7) * 255) == (0, 0, 4, 4) and bounds(np.zeros((3, 3))) == (0, 0, 0, 0)


def test_bezier_masks_follow_the_box_and_bulge_towards_the_extended_one():
    rng = Random(2)
    box, extended = (30, 40, 90, 100), (10, 20, 120, 140)
    for _ in range(50):
        mask = bezier_mask(box, extended, 160, 160, rng, jitter=3) > 0
        inner = mask[46:94, 36:84]  # the box less jitter and the chord over a corner
        assert inner.mean() > 0.99
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        # a quadratic curve reaches half-way to its control point: 10, 10, 15, 20 pixels outwards
        assert 20 - 3 <= columns[0] <= 20 + 4 and 30 - 3 <= rows[0] <= 30 + 4
        assert 105 - 4 <= columns[-1] <= 105 + 3 and 120 - 4 <= rows[-1] <= 120 + 3


def test_bezier_outline_keeps_the_box_without_jitter():
    outline = np.array(bezier_outline((10, 20, 50, 60), (10, 20, 50, 60), Random(0), jitter=0))
    np.testing.assert_allclose(np.abs(outline - [30, 40]).max(1), 20)
    # A straight side repeats its constant coordinate: some of its points are left out, as in the original.
    assert 4 <= len(outline) < 72


def test_the_hole_covers_the_box_in_the_resized_item_and_box_points_at_it():
    """A picture that is white in the box: where the item is white, the box and the mask are."""
    rng = Random(4)
    made = recipe(arbitrary_mask_percent=0.0, squash=False, size=96)
    for width, height in ((200, 150), (150, 200), (128, 128), (200, 60)):
        for _ in range(10):
            x0, y0 = rng.randint(0, width - 50), rng.randint(0, height - 40)
            box = (x0, y0, x0 + rng.randint(20, 50), y0 + rng.randint(20, 40))
            picture = np.zeros((height, width, 3), np.uint8)
            picture[box[1] : box[3], box[0] : box[2]] = 255
            item = made(picture, [box], rng)
            white = item["image"][0] > 0.5
            assert (item["mask"][0][white] > 0.49).all()
            rows, columns = white.any(1).nonzero().flatten(), white.any(0).nonzero().flatten()
            bounds = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            assert (bounds - item["box"]).abs().max() <= 1.01


def test_the_exemplar_is_the_padded_crop():
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    item = recipe(exemplar_size=48)(picture, [(5, 20, 45, 60)], Random(0))
    crop = Image.fromarray(picture[10:70, 0:55]).resize((48, 48), Image.Resampling.BICUBIC)
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    expected = ((np.asarray(crop) / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(item["exemplar"].numpy(), expected, atol=1e-5)


def test_a_given_mask_is_the_hole_as_it_is():
    """A picture that is white under a mask of two blots: so is the item, wherever the window lies."""
    mask = np.zeros((90, 160), np.uint8)
    mask[20:40, 50:60] = mask[30:70, 80:100] = 255
    picture = np.repeat(mask[..., None], 3, 2)
    lefts = set()
    for seed in range(8):
        item = recipe(size=64)(picture, [], Random(seed), mask=mask)
        torch.testing.assert_close(item["image"], item["mask"].expand(3, -1, -1) * 2 - 1)
        rows, columns = np.flatnonzero(item["mask"][0].any(1)), np.flatnonzero(item["mask"][0].any(0))
        bounds = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (bounds - item["box"]).abs().max() <= 1
        lefts.add(item["box"][0].item())
    assert len(lefts) > 4
    assert torch.equal(item["exemplar"], clip_normalise(exemplar_tensor(picture[10:80, 40:110], 224)))
    with refused("box", "0, 0, 0, 0"):
        recipe()(picture, [], Random(0), mask=np.zeros_like(mask))


def test_a_separate_exemplar_is_shown_whole_and_augmented_alike():
    noise = np.random.default_rng(0)
    picture, other = (noise.integers(0, 256, (h, w, 3), np.uint8) for h, w in ((60, 80), (50, 30)))
    whole = clip_normalise(exemplar_tensor(other, 32))
    plain, own = (
        recipe(size=48, exemplar_size=32)(picture, [(5, 5, 40, 40)], Random(3), exemplar=shown)
        for shown in (other, None)
    )
    assert torch.equal(plain["exemplar"], whole) and not torch.equal(own["exemplar"], whole)
    assert torch.equal(plain["image"], own["image"]) and torch.equal(plain["mask"], own["mask"])
    augmented = [
        recipe(size=48, exemplar_size=32, augment=True)(picture, [(5, 5, 40, 40)], Random(seed), exemplar=other)
        for seed in range(40)
    ]
    changed = sum(not torch.equal(item["exemplar"], whole) for item in augmented)
    assert 25 < changed < 40  # 1 - .5 * .5 * .7 * .7 = .88


@pytest.mark.parametrize("box", [(10, 10, 10, 20), (10, 10, 90, 20), (-1, 10, 20, 20), (30, 10, 20, 20)])
def test_boxes_that_are_none_are_refused(box):
    with refused(", ".join(map(str, box)), "80x60"):
        recipe()(np.zeros((60, 80, 3), np.uint8), [box], Random(0))


def test_a_share_is_a_share():
    with refused("arbitrary_mask_percent", 50):
        Recipe(arbitrary_mask_percent=50)
