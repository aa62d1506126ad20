"""COCO annotations and folders become manifests; what is left out is counted."""

import json
from pathlib import Path

import pytest

from ldm.data.manifest import ManifestDataset, write_manifest
from ldm.data.manifest_convert import from_coco, from_folders
from ldm.data.recipe import Recipe
from tests.refusals import refused
from tests.utils.pictures import mask, photo


@pytest.fixture
def images(tmp_path) -> Path:
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for name in ("a", "b", "deep/c"):
        photo(100, 80).save(tmp_path / "photos" / f"{name}.jpg")
    return tmp_path / "photos"


def coco(folder: Path, *annotations: dict) -> Path:
    sizes = {"width": 100, "height": 80}
    pictures = [{"id": k, "file_name": f"{name}.jpg", **sizes} for k, name in enumerate(("a", "b", "deep/c", "gone"))]
    file = folder / "instances.json"
    file.write_text(json.dumps({"images": pictures, "annotations": annotations}))
    return file


def test_coco_boxes_are_kept_by_the_papers_rule(images):
    def box(*bbox, **other) -> dict:
        return {"image_id": 0, "bbox": bbox, "iscrowd": 0} | other

    kept = [
        box(10, 10, 20.25, 30),
        box(0, 0, 100, 64, image_id=2),
        box(-0.5, 60, 50, 20.9, image_id=1),
        box(0, 0, 16, 10),
    ]
    dropped = {
        "boxes that mark a crowd": [box(10, 10, 20, 30, iscrowd=1)],
        "boxes that cover less than 0.02 or more than 0.8 of the picture": [box(0, 0, 15, 10), box(0, 0, 100, 65)],
        "boxes that extend beyond the picture": [box(90, 10, 20, 30), box(-1, 0, 50, 50)],
        "boxes that are empty or inverted": [box(30, 30, -20, 10), box(30, 30, 0, 10)],
        "boxes that lack a number or a name": [
            box(1, 2, 3),
            box(1, 2, float("nan"), 4),
            box("x", 2, 3, 4),
            {"image_id": 0},
        ],
        "boxes that belong to a picture that is not listed": [box(10, 10, 20, 30, image_id=9)],
        "boxes that belong to a picture that is not on disk": [box(10, 10, 20, 30, image_id=3)],
    }
    file = coco(images.parent, *kept, *(one for several in dropped.values() for one in several))
    rows, counts = from_coco(file, images, images.parent / "deeper")
    assert rows == [
        {"image": "../photos/a.jpg", "box": [10, 10, 30.25, 40]},
        {"image": "../photos/deep/c.jpg", "box": [0, 0, 100, 64]},
        {"image": "../photos/b.jpg", "box": [0, 60, 49.5, 80]},
        {"image": "../photos/a.jpg", "box": [0, 0, 16, 10]},
    ]
    assert {r: len(names) for r, names in counts.items()} == {r: len(several) for r, several in dropped.items()}


@pytest.mark.parametrize("text", ["", "[]", '{"images": []}', '{"images": {}, "annotations": []}'])
def test_other_files_are_no_coco(images, text):
    (images.parent / "other.json").write_text(text)
    with refused("other.json"):
        from_coco(images.parent / "other.json", images, images.parent)


def test_masks_are_found_by_stem_in_a_folder_of_their_own(images):
    masks = images.parent / "masks"
    (masks / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/c_mask.png", "nobody.png"):
        mask(100, 80).save(masks / name)
    rows, counts = from_folders(images, masks, None, images.parent)
    assert rows == [
        {"image": "photos/a.jpg", "mask": "masks/a.png"},
        {"image": "photos/deep/c.jpg", "mask": "masks/deep/c_mask.png"},
    ]
    assert {reason: len(names) for reason, names in counts.items()} == {
        "pictures without a mask": 1,
        "masks without a picture": 1,
    }
    shown = images.parent / "shown"
    shown.mkdir()
    photo().save(shown / "a.png")
    rows, counts = from_folders(images, masks, shown, images)
    assert rows == [{"image": "a.jpg", "mask": "../masks/a.png", "exemplar": "../shown/a.png"}]
    assert len(counts["pictures without an exemplar"]) == 1


def test_masks_may_lie_beside_their_pictures(images):
    mask(100, 80).save(images / "a_mask.png")
    rows, counts = from_folders(images, images, None, images)
    assert rows == [{"image": "a.jpg", "mask": "a_mask.png"}]
    ((reason, left_out),) = counts.items()
    assert "mask" in reason and len(left_out) == 2
    photo().save(images / "a.png")
    with refused("a.jpg", "a.png"):
        from_folders(images, images, None, images)
    (images / "a.png").unlink()
    with refused(images / "nowhere"):
        from_folders(images, images / "nowhere", None, images)
    (images / "sub").mkdir()
    with refused(images / "sub"):
        from_folders(images, images / "sub", None, images)


def test_a_converted_folder_trains(images):
    mask(100, 80).save(images / "a_mask.png")
    file = images / "mine.parquet"
    write_manifest(file, from_folders(images, images, None, images)[0])
    assert ManifestDataset(str(file), Recipe(size=32, exemplar_size=28))[0]["mask"].max() == 1
