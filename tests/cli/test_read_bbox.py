"""scripts/read_bbox.py, from the command line to its files."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ldm.data.box_index import BoxFolder, open_boxes
from tests.processes import HANGS
from tests.refusals import assert_mentions, assert_refused

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "read_bbox.py"
COLUMNS = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf,IsDepiction"


@pytest.fixture
def call(monkeypatch, capfd):
    """Run the script in this process; returns its exit code, stdout and stderr."""

    def run(*flags: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["read_bbox.py", *map(str, flags)])
        capfd.readouterr()
        code = 0
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as exit:
            code = exit.code
        return code, *capfd.readouterr()

    return run


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


def test_all_splits_and_the_summary(root, call):
    code, out, err = call("--root", root)
    assert code == 0, err
    assert out.splitlines() == [
        "test: 1 of 1 boxes, 1 of 1 pictures",
        f"  {root}/bbox/test.arrow; the rows left out: {root}/bbox/test-dropped.csv",
        "train: 3 of 4 boxes, 2 of 2 pictures",
        "  left out: 1 area below 0.02 or above 0.8",
        f"  {root}/bbox/train.arrow; the rows left out: {root}/bbox/train-dropped.csv",
        f"Look at what training will see: ldm preview --base configs/v1.yaml dataset={root}",
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
def test_choosing_boxes(root, flags, kept, call):
    code, out, err = call("--root", root, "--split", "train", *flags)
    assert code == 0, err
    assert {image: len(boxes) for image, boxes in pictures(root, "train").items()} == kept


def test_text_files_as_the_original_wrote_them(root, call):
    code, out, err = call("--root", root, "--split", "train", "--format", "txt")
    assert code == 0 and f"  2 text files in {root / 'bbox'}" in out.splitlines(), err
    assert (root / "bbox" / "train_1" / "bb.txt").read_text() == "0 0 50 25\n10 5 60 45\n"
    before = pictures(root, "train")
    (root / "bbox" / "train.arrow").unlink()
    assert isinstance(open_boxes(root, "train"), BoxFolder) and pictures(root, "train") == before
    picture = root / "images" / "train_0" / "aa.jpg"
    picture.write_bytes(picture.read_bytes()[:20])
    code, out, err = call("--root", root, "--split", "train", "--format", "txt")
    assert code == 0, err
    assert_mentions(out, picture)
    assert f"  1 text files in {root / 'bbox'}" in out and not (root / "bbox" / "train_0" / "aa.txt").exists()


def test_bad_input_is_one_line_and_nothing_is_written(root, call):
    for flags, wanted in (
        (["--root", root / "no"], (f"{root}/no/annotations", "*-annotations-bbox.csv")),
        (["--root", root, "--split", "train", "dev"], "*dev-annotations-bbox.csv"),
        (["--root", root, "--classes", "Dgo"], ("Dgo", "Dog")),
        (["--root", root, "--exclude", "inside"], ("--exclude", "inside")),
    ):
        assert_refused(call(*flags), wanted)
    (root / "annotations" / "test-annotations-bbox.csv").write_text("ImageID,XMin,XMax,YMin\n")
    done = call("--root", root)  # nothing is begun before every split was looked at
    assert_refused(done, "test-annotations-bbox.csv", "YMax", "LabelName")
    assert not (root / "bbox").exists()


def test_preview_writes_a_sheet_of_the_items(root, call):
    code, out, err = call("--root", root, "--preview", root / "sheet.png")
    assert code == 0, err
    assert out.splitlines()[-1] == f"{root}/sheet.png: what training would see at 512 pixels"
    with Image.open(root / "sheet.png") as sheet:
        assert sheet.width > 4 * 256 and 2 * 256 < sheet.height < 3 * 256  # two pictures


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_the_measuring_script_measures_the_same_script(tmp_path):
    flags = ["--root", tmp_path / "new", "--images", 40, "--rows", 300, "--reads", 50]
    command = [sys.executable, SCRIPT.parent / "studies" / "measure_index.py", *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["rows"] == 300 and report["pictures"] == 40 and 50 < report["boxes"] < 300
    assert report["read_bbox peak bytes"] > 2**24 and 0 < report["open seconds"] < report["read_bbox seconds"]
    assert not (tmp_path / "new").exists()
