"""One pass over the CSV keeps the boxes of the paper's rule, and every other row is reported with its reason."""

import csv
import math
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ldm.data.box_csv as box_csv
import ldm.data.open_images_csv as open_images_csv
from ldm.data.box_csv import REASONS
from ldm.data.open_images_csv import build_index, find_splits, open_source
from tests.processes import HANGS
from tests.refusals import refused

COLUMNS = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)
AREA = REASONS["area"]


def make(root: Path, lines: list[str], split: str = "train", pictures: dict[str, list[str]] | None = None) -> Path:
    """A folder in the layout of Open Images: pictures are {folder: ids}, and empty, since nobody may open them."""
    for folder, ids in (pictures or {"train_0": ["aa", "bb"], "validation": ["aa"]}).items():
        (root / "images" / folder).mkdir(parents=True, exist_ok=True)
        for image_id in ids:
            (root / "images" / folder / f"{image_id}.jpg").touch()
    (root / "annotations").mkdir(exist_ok=True)
    file = root / "annotations" / f"{split}-annotations-bbox.csv"
    file.write_bytes("\n".join([COLUMNS, *lines]).encode())
    return root


def row(image_id: str, box: str, label: str = "/m/0", flags: str = "0,0,0,0,0") -> str:
    """`box` in the order of the files: XMin,XMax,YMin,YMax."""
    return f"{image_id},x,{label},1,{box},{flags}"


def build(root: Path, split: str = "train", **options) -> tuple[dict[str, list], list[list[str]], dict]:
    """{path: boxes}, the lines of the report, and what the index says about itself."""
    source = open_source(root, split, **options)
    index = build_index(source)
    million = {index.image(i): index.boxes(i, 10**6, 10**6) for i in range(len(index))}
    with open(source.report, newline="", errors="replace") as file:
        header, *report = csv.reader(file)
    assert header == ["line", "ImageID", "reason"]
    return million, report, index.about


def test_the_area_rule_includes_its_ends(tmp_path):
    good, bad = ("0,1,0,0.02", "0,1,0,0.8"), ("0,0.199999,0,0.1", "0,1,0,0.800001", "0,1,0,1", "0.4,0.41,0.4,0.41")
    boxes, report, about = build(make(tmp_path, [row("aa", box) for box in (*good, *bad)]))
    assert boxes == {"train_0/aa.jpg": [(0, 0, 1000000, 20000), (0, 0, 1000000, 800000)]}
    assert report == [[str(line), "aa", AREA] for line in (4, 5, 6, 7)]
    assert (about["rows"], about["boxes"], about["pictures"], about["dropped"]) == (6, 2, 2, {AREA: 4})


def test_a_file_with_every_fault(tmp_path):
    """Byte order mark, Windows line ends, each kind of bad box, an unknown picture and label, a last line cut short."""
    boxes = ("0.8,0.2,0.2,0.8", "-0.1,1.2,0.2,0.8", "0.5,0.5,0.5,0.5", "nan,0.5,,0.5")
    lines = [row("aa", "0.2,0.8,0.2,0.8"), *(row("aa", box) for box in boxes)]
    lines += [row("ff", "0.1,0.5,0.1,0.5"), row("aa", "0.1,0.5,0.1,0.5", "/m/nosuch"), "aa,xclick"]
    root = make(tmp_path, lines)
    (root / "annotations" / "class-descriptions-boxable.csv").write_text("/m/0,Bus\n")
    file = root / "annotations" / "train-annotations-bbox.csv"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    boxes, report, about = build(root)
    assert boxes == {"train_0/aa.jpg": [(200000, 200000, 800000, 800000)]}
    reasons = ["order", "inside", "order", "number", "picture", "known", "fields"]
    assert [(int(line), reason) for line, _, reason in report] == list(enumerate(map(REASONS.get, reasons), 3))
    assert [image_id for _, image_id, _ in report] == ["aa"] * 4 + ["ff"] + ["aa"] * 2
    assert about["dropped"] == {REASONS[rule]: reasons.count(rule) for rule in REASONS if rule in reasons}


def plain(lines: list[str], pictures: set[str], labels: set[str] | None, flags: list[int]) -> tuple[dict, list]:
    """The rules once more, a line at a time."""
    kept, dropped = {}, []
    for number, line in enumerate(lines, 2):
        fields = line.split(",")
        reason = None
        try:
            x0, x1, y0, y1 = (float(text) for text in fields[4:8])
        except ValueError:
            x0 = x1 = y0 = y1 = math.nan
        if line and len(fields) != 13:
            reason = "fields"
        elif any(map(math.isnan, (x0, x1, y0, y1))):
            reason = "number"
        elif min(x0, x1, y0, y1) < 0 or max(x0, x1, y0, y1) > 1:
            reason = "inside"
        elif x1 <= x0 or y1 <= y0:
            reason = "order"
        elif not 0.02 <= (x1 - x0) * (y1 - y0) <= 0.8:
            reason = "area"
        elif fields[0] not in pictures:
            reason = "picture"
        elif any(fields[place] == "1" for place in flags):
            reason = {8: "occluded", 10: "group", 11: "depiction"}[next(p for p in flags if fields[p] == "1")]
        elif labels is not None and fields[2] not in labels:
            reason = "asked"
        if reason:
            dropped.append([str(number), fields[0], REASONS[reason]])
        else:
            kept.setdefault(fields[0], []).append(tuple(round(edge * 1e6) for edge in (x0, y0, x1, y1)))
    return kept, dropped


@pytest.mark.parametrize("block", [1 << 24, 700])  # bytes: all at once, some ten rows at a time
def test_every_row_is_kept_or_reported_as_by_a_plain_reading(tmp_path, monkeypatch, block):
    monkeypatch.setattr(box_csv, "BLOCK", block)
    rng = random.Random(0)
    ids = [f"{rng.getrandbits(32):08x}" for _ in range(60)]
    lines = []
    for _ in range(1500):
        edges = sorted(rng.random() for _ in range(2)) + sorted(rng.random() for _ in range(2))
        texts = [f"{edge:.6f}" for edge in edges]
        if rng.random() < 0.2:
            texts[rng.randrange(4)] = rng.choice(
                ["", "nan", "inf", "-inf", "x", "1.5", "-0.1", "0", '"', "1e-1", " .5"]
            )
        if rng.random() < 0.1:
            texts[0], texts[1] = texts[1], texts[0]
        flags = ",".join(rng.choice(["0", "0", "1", "-1"]) for _ in range(5))
        line = row(rng.choice(ids), ",".join(texts), rng.choice(["/m/a", "/m/b", "/m/c"]), flags)
        lines.append(rng.choice(["", "a,b", line + ",0", line[:20]]) if rng.random() < 0.1 else line)
    root = make(tmp_path, [*lines, ids[0]], pictures={"train_0": ids[:25], "train_b": ids[25:50]})
    (root / "annotations" / "class-descriptions-boxable.csv").write_text("/m/a,Dog\n/m/b,Coffee cup\n/m/c,Cat\n")
    where = {image_id: folder for folder, part in (("train_0", ids[:25]), ("train_b", ids[25:50])) for image_id in part}

    boxes, report, about = build(root, classes=["/m/a", "coffee CUP"], exclude=["group", "occluded"])
    kept, dropped = plain([*lines, ids[0]], set(where), {"/m/a", "/m/b"}, [10, 8])
    assert list(boxes) == [f"{where[image_id]}/{image_id}.jpg" for image_id in sorted(kept)]
    for image_id, expected in kept.items():
        np.testing.assert_allclose(boxes[f"{where[image_id]}/{image_id}.jpg"], expected, atol=1)  # float32
    assert report == dropped
    assert about["boxes"] + len(report) == about["rows"] == 1501
    assert {reason for _, _, reason in report} == set(REASONS.values()) - {REASONS["depiction"], REASONS["known"]}
    assert about["classes"] == ["/m/a", "/m/b"] and about["exclude"] == ["group", "occluded"]


@pytest.mark.filterwarnings("error")
def test_bytes_that_are_no_text_and_infinities_spoil_their_rows_only(tmp_path):
    root = make(tmp_path, [row("aa", "inf,inf,0,0"), row("aa", "0,0.5,0,0.5")])
    with open(root / "annotations" / "train-annotations-bbox.csv", "ab") as file:
        file.write(b"\n" + row("aa", "0,0.5,0,\xff").encode("latin-1"))
        file.write(b"\n" + row("\xff", "0,0.5,0,0.5").encode("latin-1"))
    boxes, _, about = build(root)
    assert boxes == {"train_0/aa.jpg": [(0, 0, 500000, 500000)]}
    report = (root / "bbox" / "train-dropped.csv").read_bytes().splitlines()
    assert [line.split(b",")[0] for line in report[1:]] == [b"2", b"4", b"5"]
    assert list(about["dropped"]) == [REASONS[rule] for rule in ("number", "inside", "picture")]


def test_depictions_can_be_left_out(tmp_path):
    lines = [row("aa", "0,0.5,0,0.5", flags="0,0,0,1,0"), row("aa", "0,0.5,0,0.6", flags="1,1,1,-1,1")]
    boxes, report, _ = build(make(tmp_path, lines), exclude=["depiction"])
    assert boxes == {"train_0/aa.jpg": [(0, 0, 500000, 600000)]} and report == [["2", "aa", "IsDepiction is 1"]]


def test_folders_are_found_on_disk(tmp_path):
    pictures = {"train_0": ["b"], "train_zz": ["a", "b"], "train": ["c"], "trainers": ["d"], "validation": ["e"]}
    root = make(tmp_path, [row(name, "0,0.5,0,0.5") for name in "edcba"], pictures=pictures)
    boxes, report, _ = build(root)
    assert list(boxes) == ["train_zz/a.jpg", "train_0/b.jpg", "train/c.jpg"]  # b, found twice: from the first folder
    assert [line[1] for line in report] == ["e", "d"]


def test_a_second_run_writes_the_same_bytes(tmp_path):
    root = make(tmp_path, [row("bb", "0,0.5,0,0.5"), row("aa", "0,0.5,0,0.5"), row("aa", "0,0,0,0")])
    build(root)
    files = sorted((root / "bbox").iterdir())
    assert [file.name for file in files] == ["train-dropped.csv", "train.arrow"]
    before = [file.read_bytes() for file in files]
    build(root)
    assert sorted((root / "bbox").iterdir()) == files and [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("moment", ["judge", "write_index"])
def test_a_killed_run_leaves_the_old_index(tmp_path, moment):
    root = make(tmp_path, [row("aa", "0,0.5,0,0.5")])
    build(root)
    file = root / "bbox" / "train.arrow"
    before = file.read_bytes()
    make(root, [row("bb", "0,0.5,0,0.5")])
    program = f"""
import os, signal
from pathlib import Path
import ldm.data.open_images_csv as code
import ldm.utils.files as files
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
if "{moment}" == "judge":
    code.judge = die
else:
    replace = os.replace
    files.os.replace = lambda a, b: die() if str(b).endswith(".arrow") else replace(a, b)
code.build_index(code.open_source(Path({str(root)!r}), "train"))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=HANGS)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert file.read_bytes() == before
    assert list(build(root)[0]) == ["train_0/bb.jpg"] and file.read_bytes() != before


def test_an_interrupted_run_leaves_nothing_behind(tmp_path, monkeypatch):
    root = make(tmp_path, [row("aa", "0,0.5,0,0.5")])

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(open_images_csv, "judge", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(root)
    assert not list((root / "bbox").iterdir())


def test_what_is_missing_is_named_before_any_work(tmp_path):
    with refused(tmp_path / "annotations", "*-annotations-bbox.csv"):
        find_splits(tmp_path)
    with refused("*train-annotations-bbox.csv"):
        open_source(tmp_path, "train")
    root = make(tmp_path, [], pictures={"test": []})
    with refused(root / "images", "train", "train_*"):
        open_source(root, "train")
    file = root / "annotations" / "train-annotations-bbox.csv"
    (root / "images" / "train_0").mkdir()
    file.write_text(COLUMNS.replace("XMax,", "") + "\n")
    with refused(file, "XMax"):
        open_source(root, "train")
    file.write_text(COLUMNS.replace("IsGroupOf", "Group") + "\n")
    open_source(root, "train")
    with refused(file, "IsGroupOf"):
        open_source(root, "train", exclude=["group"])
    with refused("class-descriptions-boxable.csv"):
        open_source(root, "train", classes=["Dog"])
    for content in ("", "/m/1\n", "/m/1,a\0,b\n"):
        (root / "annotations" / "class-descriptions-boxable.csv").write_text(content)
        with refused("class-descriptions-boxable.csv"):
            open_source(root, "train")
    (root / "annotations" / "class-descriptions-boxable.csv").write_text("/m/1,Coffee cup\n/m/2,Dog\n")
    with refused("coffe cup", "class-descriptions-boxable.csv", "Coffee cup"):
        open_source(root, "train", classes=["Dog", "coffe cup"])
    file.rename(file.with_name("a-train-annotations-bbox.csv"))
    (root / "annotations" / "b-train-annotations-bbox.csv").write_text(COLUMNS)
    with refused("a-train-annotations-bbox.csv", "b-train-annotations-bbox.csv"):
        open_source(root, "train")
    assert find_splits(root) == ["train"]
    assert not (root / "bbox").exists()


def test_files_without_a_usable_box(tmp_path):
    root = make(tmp_path, [row("aa", "0,0.1,0,0.1"), row("ff", "0,0.5,0,0.5"), ""])
    file = root / "annotations" / "train-annotations-bbox.csv"
    with refused(file, 2, 1):
        build(root)
    assert (root / "bbox" / "train-dropped.csv").read_text().count("\n") == 3
    assert not (root / "bbox" / "train.arrow").exists()
    file.write_text(COLUMNS + "\n")
    with refused(file, 0):
        build(root)
    file.write_text(COLUMNS)  # and nothing else, not even the end of the line
    with refused(file):
        build(root)
    file.write_bytes(random.Random(0).randbytes(5000))
    with refused(file, "ImageID", "XMin"):
        build(root)
    for picture in (root / "images" / "train_0").iterdir():
        picture.unlink()
    make(root, [row("aa", "0,0.5,0,0.5")], pictures={"train_0": []})
    with refused(root / "images", ".jpg", "train_0"):
        build(root)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    root = make(tmp_path, [row("aa", "0,0.5,0,0.5")])
    (root / "bbox").write_text("a file")
    with refused(root / "bbox"):
        build(root)
