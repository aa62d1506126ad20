"""The data set reads the Open Images layout, and item i is a function of (seed, epoch, i)."""

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ldm.data.open_images import OpenImagesDataset
from ldm.data.recipe import Recipe
from tests.refusals import assert_line, refused

BOXES = {  # pixels, in the original's text files
    "train_0/00000000000000aa": [(9, 12, 45, 36)],
    "train_0/00000000000000cc": [(0, 15, 135, 30)],
    "train_f/00000000000000bb": [(12, 45, 24, 81), (30, 9, 54, 45)],
}
SIZES = {"aa": (90, 60), "bb": (60, 90), "cc": (150, 50)}
SMALL = Recipe(size=32, exemplar_size=28)


@pytest.fixture
def root(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for name, boxes in BOXES.items():
        picture, text = (tmp_path / kind / f"{name}{end}" for kind, end in (("images", ".jpg"), ("bbox", ".txt")))
        for file in (picture, text):
            file.parent.mkdir(parents=True, exist_ok=True)
        width, height = SIZES[name[-2:]]
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(picture, quality=95)
        text.write_text("".join("{} {} {} {}\n".format(*box) for box in boxes))
    return tmp_path


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a)


def test_items_are_what_the_docstrings_say(root):
    dataset = OpenImagesDataset(str(root), "train", SMALL)
    assert sorted(dataset[i]["image_id"][-2:] for i in range(len(dataset))) == ["aa", "bb", "cc"]
    for index in range(15):
        item = dataset[index]
        assert set(item) == {"image", "mask", "exemplar", "image_id", "box"}
        assert item["image"].shape == (3, 32, 32) and item["image"].abs().max() <= 1
        assert item["mask"].shape == (1, 32, 32) and 0 <= item["mask"].min() and item["mask"].max() == 1
        assert item["exemplar"].shape == (3, 28, 28) and item["box"].shape == (4,)
        assert {item[k].dtype for k in ("image", "mask", "exemplar", "box")} == {torch.float32}
        assert isinstance(item["image_id"], str) and len(item["image_id"]) == 16


def test_items_are_a_function_of_seed_epoch_and_index(root):
    first, again = (OpenImagesDataset(str(root), "train", SMALL, seed=5) for _ in range(2))
    other = OpenImagesDataset(str(root), "train", SMALL, seed=6)
    before = [first[i] for i in range(6)]
    assert all(same(before[i], again[i]) for i in reversed(range(6)))  # whatever was asked for earlier
    assert not any(same(before[i], other[i]) for i in range(6))
    assert not any(same(before[i], before[i + 3]) for i in range(3))  # another epoch


def test_worker_processes_change_nothing(root):
    """Nor does an unreadable picture, in the place of which another is drawn."""
    broken = root / "images" / "train_0" / f"{'aa':0>16}.jpg"
    broken.write_bytes(broken.read_bytes()[:400])

    def batches(workers: int) -> list[dict]:
        dataset = OpenImagesDataset(str(root), "train", SMALL, max_unreadable=0.9)
        return list(DataLoader(dataset, batch_size=2, sampler=range(24), num_workers=workers))

    alone, two, eight = (batches(workers) for workers in (0, 2, 8))
    assert len(alone) == len(two) == len(eight) == 12
    assert all(same(a, b) and same(a, c) for a, b, c in zip(alone, two, eight, strict=True))
    assert not same(alone[0], alone[3])
    assert {name[-2:] for batch in alone for name in batch["image_id"]} == {"bb", "cc"}


def test_every_box_is_drawn_about_as_often():
    boxes = [(12, 45, 24, 81), (30, 9, 54, 45)]
    drawn = {tuple(box): 0 for box in boxes}
    picture = np.zeros((90, 60, 3), np.uint8)
    for box, level in zip(boxes, (100, 200), strict=True):
        picture[box[1] : box[3], box[0] : box[2]] = level
    recipe = Recipe(size=32, exemplar_size=28, arbitrary_mask_percent=0.0)
    for seed in range(200):
        item = recipe(picture, boxes, Random(seed))
        x0, y0, x1, y1 = item["box"].tolist()
        centre = item["image"][0, round((y0 + y1) / 2), round((x0 + x1) / 2)]
        drawn[boxes[0] if centre < 0.2 else boxes[1]] += 1
    assert all(70 <= n <= 130 for n in drawn.values())


def test_mask_shapes_come_in_the_share_asked_for():
    picture = np.zeros((60, 90, 3), np.uint8)

    def share(percent: float) -> float:
        recipe = Recipe(64, 28, arbitrary_mask_percent=percent, augment=False)
        squares = 0
        for seed in range(300):
            hole = recipe(picture, [(9, 12, 45, 36)], Random(seed))["mask"][0] > 0
            squares += hole.sum() == hole.any(0).sum() * hole.any(1).sum()
        return 1 - squares.item() / 300

    assert share(0.0) == 0 and share(1.0) == 1 and abs(share(0.3) - 0.3) < 0.11


def test_antialiasing_is_for_the_picture_alone():
    picture = np.zeros((160, 160, 3), np.uint8)
    picture[::2] = 255  # mid grey, seen from far away
    plain, smooth = (
        Recipe(32, 28, augment=False, antialias=on)(picture, [(9, 12, 95, 96)], Random(1)) for on in (0, 1)
    )
    assert smooth["image"][:, 1:-1].abs().max() < 0.2
    assert plain["image"].abs().min() > 0.99  # every sample falls on a black or a white row
    assert torch.equal(plain["mask"], smooth["mask"]) and torch.equal(plain["exemplar"], smooth["exemplar"])


def test_unreadable_pictures_are_replaced_and_too_many_are_an_error(root, caplog):
    for file in (root / "images").rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:400])
    with refused(5, "max_unreadable", f"{root}/images/train_"):
        OpenImagesDataset(str(root), "train", SMALL)[0]
    assert_line(caplog.records[0].getMessage(), f"{root}/images/train_")


def test_boxes_that_the_recipe_refuses_are_named_with_their_picture(root, monkeypatch):
    dataset = OpenImagesDataset(str(root), "train", SMALL)
    monkeypatch.setattr(dataset.boxes, "boxes", lambda i, width, height: [(10, 10, 10, 30)])
    with refused("images/train_", ".jpg", "10, 10, 10, 30"):
        dataset.item(0, Random(0))
