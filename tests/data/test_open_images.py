"""The data set reads the Open Images layout, and item i is a function of (seed, epoch, i)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ldm.data.open_images import OpenImagesDataset, read_boxes
from ldm.utils.errors import UserError

HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
)
BOXES = {  # in the order x0, x1, y0, y1 of the files
    "00000000000000aa": [(0.1, 0.5, 0.2, 0.6), (0.0, 0.1, 0.0, 0.1), (0.0, 1.0, 0.0, 0.9)],  # one of allowed area
    "00000000000000bb": [(0.2, 0.4, 0.5, 0.9), (0.5, 0.9, 0.1, 0.5)],
    "00000000000000cc": [(0.0, 0.9, 0.3, 0.6)],
    "00000000000000dd": [(0.4, 0.41, 0.4, 0.41)],  # none of allowed area
    "00000000000000ee": [(0.2, 0.8, 0.2, 0.8)],  # its picture was not downloaded
}
SIZES = {"aa": (90, 60), "bb": (60, 90), "cc": (150, 50), "dd": (40, 40)}


@pytest.fixture
def root(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for folder, names in (("train_0", ["aa", "cc"]), ("train_f", ["bb", "dd"]), ("validation", ["aa"])):
        (tmp_path / "images" / folder).mkdir(parents=True)
        for name in names:
            width, height = SIZES[name]
            picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
            picture.save(tmp_path / "images" / folder / f"{name:0>16}.jpg", quality=95)
    (tmp_path / "annotations").mkdir()
    rows = [f"{i},x,/m/0,1,{a},{b},{c},{d},0,0,0,0,0\n" for i, boxes in BOXES.items() for a, b, c, d in boxes]
    rows = [rows[k] for k in rng.permutation(len(rows))]  # an image's rows need not be neighbours
    (tmp_path / "annotations" / "oidv6-train-annotations-bbox.csv").write_text(HEADER + "".join(rows))
    return tmp_path


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a)


def test_items_are_what_the_docstring_says(root):
    dataset = OpenImagesDataset(str(root), "train", size=32, exemplar_size=28)
    assert [i.decode()[-2:] for i in dataset.ids] == ["aa", "bb", "cc"]
    for epoch in range(5):
        dataset.set_epoch(epoch)
        for index in range(3):
            item = dataset[index]
            assert set(item) == {"image", "mask", "exemplar", "image_id", "box"}
            assert item["image"].shape == (3, 32, 32) and item["image"].abs().max() <= 1
            assert item["mask"].shape == (1, 32, 32) and 0 <= item["mask"].min() and item["mask"].max() == 1
            assert item["exemplar"].shape == (3, 28, 28) and item["box"].shape == (4,)
            assert {item[k].dtype for k in ("image", "mask", "exemplar", "box")} == {torch.float32}
            assert isinstance(item["image_id"], str) and len(item["image_id"]) == 16


def test_the_area_rule_includes_its_ends(tmp_path):
    rows = [("in", 0, 0.2, 0, 0.1), ("in", 0, 1, 0, 0.8), ("out", 0, 0.199, 0, 0.1), ("out", 0, 1, 0, 0.801)]
    rows += [
        ("out", 0.9, 0.1, 0.9, 0.1),
        ("out", -0.1, 0.5, 0, 0.5),
        ("out", 0, 0.5, 0.6, 1.2),
        ("out", "nan", 1, 0, 0.5),
    ]
    file = tmp_path / "boxes.csv"
    file.write_text(HEADER + "".join(f"{i},x,/m/0,1,{a},{b},{c},{d},0,0,0,0,0\n" for i, a, b, c, d in rows))
    ids, boxes = read_boxes(file)
    assert ids.tolist() == [b"in", b"in"]
    np.testing.assert_allclose(boxes, [[0, 0, 0.2, 0.1], [0, 0, 1, 0.8]], rtol=1e-6)


def test_malformed_rows_are_left_out_and_counted(tmp_path, caplog):
    """The first row is fine, and so is the one of a picture that nobody has; the last one is cut short."""
    rows = ["aa,x,/m/0,1,0.2,0.8,0.2,0.8,0,0,0,0,0"]
    rows += [f"aa,x,/m/0,1,{box},0,0,0,0,0" for box in ("0.8,0.2,0.2,0.8", "-0.1,1.2,0.2,0.8", "0.5,0.5,0.5,0.5")]
    rows += [f"aa,x,/m/0,1,{box},0,0,0,0,0" for box in ("nan,0.5,,0.5", "0,inf,-inf,0.5", "0,0.1,0,0.1", "0,1,0,1")]
    rows += ["ff,x,/m/0,1,0.1,0.5,0.1,0.5,0,0,0,0,0", "aa,x,/m/0,1,0.2,0.8,0.2,0.8,0,0,0,0,0,0,0", "aa,xcli"]
    file = tmp_path / "boxes.csv"
    file.write_bytes("\r\n".join(["\ufeff" + HEADER.strip(), *rows]).encode())
    ids, boxes = read_boxes(file)
    assert ids.tolist() == [b"aa", b"ff"]
    np.testing.assert_allclose(boxes, [[0.2, 0.2, 0.8, 0.8], [0.1, 0.1, 0.5, 0.5]], rtol=1e-6)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.getMessage() == (
        f"{file}: 2 boxes kept; left out: 2 have too few or too many fields; 1 lack a number; 2 reach beyond the "
        "picture; 2 are empty or turned round; 2 cover less than 0.02 or more than 0.8 of the picture"
    )


def test_items_are_a_function_of_seed_epoch_and_index(root):
    first, again = (OpenImagesDataset(str(root), "train", size=32, exemplar_size=28, seed=5) for _ in range(2))
    other = OpenImagesDataset(str(root), "train", size=32, exemplar_size=28, seed=6)
    before = [first[i] for i in range(3)]
    assert all(same(before[i], again[i]) for i in reversed(range(3)))  # whatever was asked for earlier
    assert not any(same(before[i], other[i]) for i in range(3))
    first.set_epoch(1)
    assert not any(same(before[i], first[i]) for i in range(3))
    first.set_epoch(0)
    assert all(same(before[i], first[i]) for i in range(3))


def test_worker_processes_change_nothing_even_when_they_outlive_an_epoch(root):
    def batches(workers: int) -> list[dict]:
        dataset = OpenImagesDataset(str(root), "train", size=32, exemplar_size=28)
        loader = DataLoader(dataset, batch_size=2, num_workers=workers, persistent_workers=workers > 0)
        result = []
        for epoch in (3, 4):
            dataset.set_epoch(epoch)
            result += list(loader)
        return result

    alone, two = batches(0), batches(2)
    assert len(alone) == 4 and all(same(a, b) for a, b in zip(alone, two, strict=True))
    assert not same(alone[0], alone[2])


def test_every_box_is_drawn_about_as_often(root):
    dataset = OpenImagesDataset(str(root), "train", size=32, exemplar_size=28, arbitrary_mask_percent=0.0)
    boxes = [(12, 45, 24, 81), (30, 9, 54, 45)]  # of the second picture, 60 x 90
    drawn = {tuple(box): 0 for box in boxes}
    picture = np.zeros((90, 60, 3), np.uint8)
    for box, level in zip(boxes, (100, 200), strict=True):
        picture[box[1] : box[3], box[0] : box[2]] = level
    for epoch in range(200):
        dataset.set_epoch(epoch)
        item = dataset.example(picture, boxes, dataset.random(1))
        x0, y0, x1, y1 = item["box"].tolist()
        centre = item["image"][0, round((y0 + y1) / 2), round((x0 + x1) / 2)]
        drawn[boxes[0] if centre < 0.2 else boxes[1]] += 1
    assert all(70 <= n <= 130 for n in drawn.values())


def test_mask_shapes_come_in_the_share_asked_for(root):
    def share(percent: float) -> float:
        dataset = OpenImagesDataset(str(root), "train", 64, 28, arbitrary_mask_percent=percent, augment=False)
        squares = 0
        for epoch in range(300):
            dataset.set_epoch(epoch)
            hole = dataset[0]["mask"][0] > 0
            squares += hole.sum() == hole.any(0).sum() * hole.any(1).sum()
        return 1 - squares.item() / 300

    assert share(0.0) == 0 and share(1.0) == 1 and abs(share(0.3) - 0.3) < 0.11


def test_bad_folders_and_files_are_named_in_one_line(root, tmp_path):
    with pytest.raises(UserError, match=r"validation-annotations-bbox.csv, found none"):
        OpenImagesDataset(str(root), "validation")
    with pytest.raises(UserError, match="expected a folder `images`"):
        (tmp_path / "bare" / "annotations").mkdir(parents=True)
        (tmp_path / "bare" / "annotations" / "test-annotations-bbox.csv").write_text(HEADER)
        OpenImagesDataset(str(tmp_path / "bare"), "test")
    (root / "annotations" / "validation-annotations-bbox.csv").write_text("ImageID,XMin\naa,0\n")
    with pytest.raises(UserError, match="expected a CSV with the columns ImageID, XMin"):
        OpenImagesDataset(str(root), "validation")
    (root / "annotations" / "validation-annotations-bbox.csv").write_text(HEADER)
    with pytest.raises(UserError, match="no picture of split validation has a box"):
        OpenImagesDataset(str(root), "validation")
    dataset = OpenImagesDataset(str(root), "train", size=32, exemplar_size=28)
    broken = root / "images" / "train_0" / f"{'aa':0>16}.jpg"
    broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(UserError, match=f"{broken}: cannot be read as an image"):
        dataset[0]
