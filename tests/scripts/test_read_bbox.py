"""scripts/read_bbox.py, from the command line to its files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.box_index import BoxFolder, open_boxes

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "read_bbox.py"
COLUMNS = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf,IsDepiction"


def call(*flags: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, SCRIPT, *map(str, flags)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def root(tmp_path) -> Path:
    """One split with three usable boxes of three classes in two pictures, one that is too small, and a small second."""
    for folder, name in (("train_0", "aa"), ("train_1", "bb"), ("test", "cc")):
        (tmp_path / "images" / folder).mkdir(parents=True)
        Image.fromarray(np.zeros((50, 100, 3), np.uint8)).save(tmp_path / "images" / folder / f"{name}.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "class-descriptions-boxable.csv").write_text("/m/0,Dog\n/m/1,Cat\n/m/2,Coffee cup\n")
    rows = [
        "bb,/m/0,0,.5,0,.5,0,0,0",
        "aa,/m/1,0,.5,.2,1,1,1,0",
        "bb,/m/2,.1,.6,.1,.9,0,0,1",
        "aa,/m/1,0,.1,0,.1,0,0,0",
    ]
    (tmp_path / "annotations" / "oidv6-train-annotations-bbox.csv").write_text("\n".join([COLUMNS, *rows]))
    (tmp_path / "annotations" / "test-annotations-bbox.csv").write_text(f"{COLUMNS}\ncc,/m/0,0,1,0,.5,0,0,0\n")
    return tmp_path


def pictures(root: Path, split: str) -> dict[str, list]:
    boxes = open_boxes(root, split)
    return {boxes.image(i): boxes.boxes(i, 100, 50) for i in range(len(boxes))}


def test_all_splits_and_the_summary(root):
    done = call("--root", root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "test: 1 of 1 boxes, 1 of 1 pictures",
        f"  {root}/bbox/test.arrow; the rows left out: {root}/bbox/test-dropped.csv",
        "train: 3 of 4 boxes, 2 of 2 pictures",
        "  left out: 1 area below 0.02 or above 0.8",
        f"  {root}/bbox/train.arrow; the rows left out: {root}/bbox/train-dropped.csv",
        f"Look at what training will see: python scripts/preview.py --root {root} --split train",
    ]
    assert pictures(root, "test") == {"test/cc.jpg": [(0, 0, 100, 25)]}
    both = {"train_0/aa.jpg": [(0, 10, 50, 50)], "train_1/bb.jpg": [(0, 0, 50, 25), (10, 5, 60, 45)]}
    assert pictures(root, "train") == both
    assert (root / "bbox" / "train-dropped.csv").read_text().splitlines()[1:] == ["5,aa,area below 0.02 or above 0.8"]


@pytest.mark.parametrize(
    "flags, kept",
    [
        (["--classes", "dog", "/m/1"], {"train_0/aa.jpg": 1, "train_1/bb.jpg": 1}),
        (["--classes", "coffee cup"], {"train_1/bb.jpg": 1}),
        (["--exclude", "group"], {"train_1/bb.jpg": 2}),
        (["--exclude", "occluded", "depiction"], {"train_1/bb.jpg": 1}),
    ],
)
def test_choosing_boxes(root, flags, kept):
    done = call("--root", root, "--split", "train", *flags)
    assert done.returncode == 0, done.stderr
    assert {image: len(boxes) for image, boxes in pictures(root, "train").items()} == kept


def test_text_files_as_the_original_wrote_them(root):
    done = call("--root", root, "--split", "train", "--format", "txt")
    assert done.returncode == 0 and f"  2 text files in {root / 'bbox'}" in done.stdout.splitlines(), done.stderr
    assert (root / "bbox" / "train_1" / "bb.txt").read_text() == "0 0 50 25\n10 5 60 45\n"
    before = pictures(root, "train")
    (root / "bbox" / "train.arrow").unlink()
    assert isinstance(open_boxes(root, "train"), BoxFolder) and pictures(root, "train") == before
    picture = root / "images" / "train_0" / "aa.jpg"
    picture.write_bytes(picture.read_bytes()[:20])
    done = call("--root", root, "--split", "train", "--format", "txt")
    assert done.returncode == 0 and f"  {picture}: cannot be read as an image" in done.stdout
    assert f"  1 text files in {root / 'bbox'}" in done.stdout and not (root / "bbox" / "train_0" / "aa.txt").exists()


def test_bad_input_is_one_line_and_nothing_is_written(root):
    for flags, message in (
        (["--root", root / "no"], f"{root}/no/annotations: expected files *-annotations-bbox.csv, found none"),
        (["--root", root, "--split", "train", "dev"], "expected one file *dev-annotations-bbox.csv, found none"),
        (["--root", root, "--classes", "Dgo"], "class 'Dgo' is not in .*; the nearest there is 'Dog'"),
        (["--root", root, "--exclude", "inside"], "argument --exclude: invalid choice: 'inside'"),
    ):
        done = call(*flags)
        head, _, tail = message.partition(".*")
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and head in done.stderr and tail in done.stderr
    (root / "annotations" / "test-annotations-bbox.csv").write_text("ImageID,XMin,XMax,YMin\n")
    done = call("--root", root)  # train comes after test, but nothing is begun before everything was looked at
    assert done.returncode == 2 and "test-annotations-bbox.csv: no column YMax, LabelName" in done.stderr
    assert not (root / "bbox").exists()
