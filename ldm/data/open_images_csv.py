"""An index of the boxes that Paint by Example trains on, built from the box annotations of Open Images.

The CSV is read once, block by block; no picture is opened. The layout is that of the official downloads:

    root/images/{train_0, train_1, ..., validation, test}/<image id>.jpg
    root/annotations/*{train, validation, test}-annotations-bbox.csv
    root/annotations/class-descriptions-boxable.csv
"""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ldm.data.box_csv import CLASSES, KEPT, Choice, Report, judge, read_blocks
from ldm.data.box_index import BoxIndex, index_file, split_folders, write_index
from ldm.utils.errors import UserError, reason
from ldm.utils.files import replacing
from ldm.utils.nearest import nearest


@dataclass(frozen=True)
class Source:
    """The checked input of `build_index`, made by `open_source`."""

    root: Path
    split: str
    file: Path
    choice: Choice

    @property
    def report(self) -> Path:
        """The file that lists the dropped rows."""
        return self.root / "bbox" / f"{self.split}-dropped.csv"


def find_splits(root: Path) -> list[str]:
    """List the splits that have a box CSV, sorted.

    Raises:
        UserError: no split has one.
    """
    files = (root / "annotations").glob("*-annotations-bbox.csv")
    splits = sorted({file.name.removesuffix("-annotations-bbox.csv").rpartition("-")[2] for file in files})
    if not splits:
        raise UserError(f"{root / 'annotations'}: expected files *-annotations-bbox.csv, found none")
    return splits


def open_source(root: Path, split: str, classes: Sequence[str] = (), exclude: Sequence[str] = ()) -> Source:
    """Check the input files of a split, without any long work.

    Args:
        root: folder with `images` and `annotations`.
        split: train, validation, test.
        classes: names or MIDs of the classes to keep; by default all in class-descriptions-boxable.csv, or every row if
            there is no such file.
        exclude: keys of `FLAGS`.

    Raises:
        UserError: there is no CSV or several, no folder of pictures, a missing column, or an unknown class.
    """
    files = sorted((root / "annotations").glob(f"*{split}-annotations-bbox.csv"))
    if len(files) != 1:
        found = f"found {', '.join(file.name for file in files)}" if files else "found none"
        raise UserError(f"{root / 'annotations'}: expected one file *{split}-annotations-bbox.csv, {found}")
    source = Source(root, split, files[0], Choice(_labels(root, classes), bool(classes), tuple(exclude)))
    try:
        with open(source.file, encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(1 << 16).strip().split(",")
    except OSError as error:
        raise UserError(f"{source.file}: {reason(error)}") from error
    missing = [name for name in source.choice.columns if name not in header]
    if missing:
        raise UserError(
            f"{source.file}: expected a CSV with a column {', '.join(missing)}, "
            f"found columns {', '.join(header)[:200]!r}"
        )
    _picture_folders(source)
    return source


def _labels(root: Path, classes: Sequence[str]) -> frozenset[str] | None:
    file = root / "annotations" / CLASSES
    if not file.exists() and not classes:
        return None
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            label = {name.strip(): mid.strip() for mid, name in csv.reader(lines)}
        if not label:
            raise ValueError("the file is empty")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: not readable as lines `label,class name` ({error})") from error
    if not classes:
        return frozenset(label.values())
    known = {text.lower(): text for text in (*label.values(), *label)}
    for name in classes:
        if name.lower() not in known:
            raise UserError(f"class {name!r}: not listed in {file}; {nearest(name, known.values())}")
    found = (known[name.lower()] for name in classes)
    return frozenset(label.get(text, text) for text in found)


def _picture_folders(source: Source) -> list[str]:
    images = source.root / "images"
    try:
        return split_folders(images, source.split)
    except OSError as error:
        wanted = f"{source.split} or {source.split}_*"
        raise UserError(f"{images}: expected pictures in a folder {wanted}, found no such folder") from error


def build_index(source: Source) -> BoxIndex:
    """Write the index of a split and the report of the dropped rows, and open the index.

    Its `about` holds csv, classes and exclude (its input), pictures (on disk), rows, boxes (kept) and dropped
    ({cause: rows}).

    Raises:
        UserError: there is no picture, the CSV cannot be read, no box is left, or a file cannot be written.
    """
    folders, ids, shard = list_pictures(source)
    number = {image_id: i for i, image_id in enumerate(ids)}
    images, boxes = [], []
    try:
        source.report.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{source.report.parent}: cannot be created ({reason(error)})") from error
    with replacing(source.report) as partial, open(partial, "wb") as file:
        report = Report(file)
        for block in read_blocks(source.file, source.choice.columns, report):
            cause, image, corners = judge(block, source.choice, number)
            report.add(block["ImageID"], cause)
            images.append(image[cause == KEPT])
            boxes.append(corners[cause == KEPT].astype(np.float32))
        report.close()
    if not sum(map(len, images)):
        counts = ", ".join(f"{count} {cause}" for cause, count in report.dropped.items())
        raise UserError(f"{source.file}: all {report.rows} boxes were dropped ({counts}); see {source.report}")

    image, corners = np.concatenate(images), np.concatenate(boxes)
    order = np.argsort(image, kind="stable")  # the rows of a picture may be scattered
    counts = np.bincount(image, minlength=len(ids))
    shown = np.flatnonzero(counts)
    about = {
        "csv": source.file.name,
        "classes": sorted(source.choice.labels) if source.choice.asked else None,
        "exclude": source.choice.exclude,
        "pictures": len(ids),
        "rows": report.rows,
        "boxes": len(image),
        "dropped": report.dropped,
    }
    ids, start = [ids[i] for i in shown], np.append(0, counts[shown].cumsum()).astype(np.int32)
    write_index(index_file(source.root, source.split), folders, ids, shard[shown], start, corners[order], about)
    return BoxIndex(index_file(source.root, source.split))


def list_pictures(source: Source) -> tuple[list[str], list[bytes], np.ndarray]:
    """List the split's folders on disk, the ids of their pictures (sorted) and the folder index of each, (N,) int32.

    A picture that is in several folders is taken from the first.
    """
    shard: dict[bytes, int] = {}
    folders = _picture_folders(source)
    for number, folder in enumerate(folders):
        with os.scandir(os.fsencode(source.root / "images" / folder)) as entries:
            for entry in entries:
                if entry.name.endswith(b".jpg"):
                    shard.setdefault(entry.name[:-4], number)
    if not shard:
        raise UserError(f"{source.root / 'images'}: expected .jpg files in {', '.join(folders)}, found none")
    ids = sorted(shard)
    return folders, ids, np.array([shard[image_id] for image_id in ids], np.int32)
