"""From the box annotations of Open Images to an index of the boxes that Paint by Example trains on.

One pass over the CSV, block by block; no picture is opened. The layout is that of the official downloads:

    root/images/{train_0, train_1, ..., validation, test}/<image id>.jpg
    root/annotations/*{train, validation, test}-annotations-bbox.csv
    root/annotations/class-descriptions-boxable.csv
"""

import csv
import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from tqdm import tqdm

from ldm.data.box_index import BoxIndex, index_file, split_folders, write_index
from ldm.utils.errors import UserError
from ldm.utils.files import replacing

AREA = (0.02, 0.8)  # of the picture, both ends included (section 3): smaller shows too little, larger leaves no context
EDGES = ["XMin", "YMin", "XMax", "YMax"]
FLAGS = {"group": "IsGroupOf", "depiction": "IsDepiction", "occluded": "IsOccluded"}  # 1 yes, 0 no, -1 unknown
CLASSES = "class-descriptions-boxable.csv"
REASONS = {  # a row is dropped under the first rule that it breaks
    "fields": "too few or too many fields",
    "number": "lacks a number",
    "inside": "reaches beyond the picture",
    "order": "empty or turned round",
    "area": f"area below {AREA[0]} or above {AREA[1]}",
    "picture": "no picture on disk",
    **{flag: f"{column} is 1" for flag, column in FLAGS.items()},
    "asked": "class not asked for",
    "known": f"label not in {CLASSES}",
}
RULES = list(REASONS)
KEPT = -1
BLOCK = 1 << 24  # bytes of the CSV that are read at a time


@dataclass(frozen=True)
class Source:
    """What `build_index` reads and which rows it keeps; `open_source` makes it and has checked it.

    Attributes:
        labels: the MIDs to keep, or None for every row.
        asked: whether `labels` are a choice of the user; otherwise they are all that the class file lists.
        exclude: keys of `FLAGS`; rows where one of them is 1 are dropped.
    """

    root: Path
    split: str
    file: Path
    labels: frozenset[str] | None
    asked: bool
    exclude: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        """What is read of the CSV."""
        label = [] if self.labels is None else ["LabelName"]
        return ["ImageID", *EDGES, *label, *(FLAGS[flag] for flag in self.exclude)]

    @property
    def report(self) -> Path:
        """Lists the dropped rows."""
        return self.root / "bbox" / f"{self.split}-dropped.csv"


def find_splits(root: Path) -> list[str]:
    """The splits that have a box CSV, by name.

    Raises:
        UserError: there is none.
    """
    files = (root / "annotations").glob("*-annotations-bbox.csv")
    splits = sorted({file.name.removesuffix("-annotations-bbox.csv").rpartition("-")[2] for file in files})
    if not splits:
        raise UserError(f"{root / 'annotations'}: expected files *-annotations-bbox.csv, found none")
    return splits


def open_source(root: Path, split: str, classes: Sequence[str] = (), exclude: Sequence[str] = ()) -> Source:
    """Look at what a split has, without any long work.

    Args:
        root: folder with `images` and `annotations`.
        split: train, validation, test.
        classes: names or MIDs of the classes to keep. None named: all that class-descriptions-boxable.csv lists, and
            every row where there is no such file.
        exclude: keys of `FLAGS`.

    Raises:
        UserError: no CSV or several, a column is missing, an unknown class, no folder of pictures.
    """
    files = sorted((root / "annotations").glob(f"*{split}-annotations-bbox.csv"))
    if len(files) != 1:
        found = f"found {', '.join(file.name for file in files)}" if files else "found none"
        raise UserError(f"{root / 'annotations'}: expected one file *{split}-annotations-bbox.csv, {found}")
    source = Source(root, split, files[0], _labels(root, classes), bool(classes), tuple(exclude))
    try:
        with open(source.file, encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(1 << 16).strip().split(",")
    except OSError as error:
        raise UserError(f"{source.file}: {error.strerror}") from error
    missing = [name for name in source.columns if name not in header]
    if missing:
        raise UserError(
            f"{source.file}: no column {', '.join(missing)} in its first line ({', '.join(header)[:200]!r})"
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
            raise ValueError("it is empty")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file}: expected lines `label,name of the class` ({error})") from error
    if not classes:
        return frozenset(label.values())
    known = {text.lower(): text for text in (*label.values(), *label)}
    for name in classes:
        if name.lower() not in known:
            near = known[difflib.get_close_matches(name.lower(), known, 1, cutoff=0)[0]]
            raise UserError(f"class {name!r} is not in {file}; the nearest there is {near!r}")
    found = (known[name.lower()] for name in classes)
    return frozenset(label.get(text, text) for text in found)


def _picture_folders(source: Source) -> list[str]:
    images = source.root / "images"
    try:
        return split_folders(images, source.split)
    except OSError as error:
        wanted = f"{source.split} or {source.split}_*"
        raise UserError(f"{images}: expected the pictures there in a folder {wanted}, found none") from error


def build_index(source: Source) -> BoxIndex:
    """Write the index of a split and the report of the dropped rows; open the index.

    Its `about` holds csv, classes and exclude (what it was made from), pictures (on disk), rows, boxes (kept) and
    dropped ({reason: rows}).

    Raises:
        UserError: no picture, a file that is no CSV, no box left, a file that cannot be written.
    """
    folders, ids, shard = list_pictures(source)
    number = {image_id: i for i, image_id in enumerate(ids)}
    images, boxes = [], []
    try:
        source.report.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{source.report.parent}: cannot be made ({error.strerror})") from error
    with replacing(source.report) as partial, open(partial, "wb") as file:
        report = Report(file)
        for block in _blocks(source, report):
            reason, image, corners = _judge(block, source, number)
            report.add(block["ImageID"], reason)
            images.append(image[reason == KEPT])
            boxes.append(corners[reason == KEPT].astype(np.float32))
        report.close()
    if not sum(map(len, images)):
        counts = ", ".join(f"{count} {reason}" for reason, count in report.dropped.items())
        raise UserError(f"{source.file}: none of its {report.rows} boxes can be used ({counts}); see {source.report}")

    image, corners = np.concatenate(images), np.concatenate(boxes)
    order = np.argsort(image, kind="stable")  # the rows of a picture need not be neighbours
    counts = np.bincount(image, minlength=len(ids))
    shown = np.flatnonzero(counts)
    about = {
        "csv": source.file.name,
        "classes": sorted(source.labels) if source.asked else None,
        "exclude": source.exclude,
        "pictures": len(ids),
        "rows": report.rows,
        "boxes": len(image),
        "dropped": report.dropped,
    }
    ids, start = [ids[i] for i in shown], np.append(0, counts[shown].cumsum()).astype(np.int32)
    write_index(index_file(source.root, source.split), folders, ids, shard[shown], start, corners[order], about)
    return BoxIndex(index_file(source.root, source.split))


def list_pictures(source: Source) -> tuple[list[str], list[bytes], np.ndarray]:
    """The split's folders on disk, the ids of the pictures in them (sorted) and the folder number of each, (N,) int32.

    A picture that lies in several folders is taken from the first.
    """
    shard: dict[bytes, int] = {}
    folders = _picture_folders(source)
    for number, folder in enumerate(folders):
        with os.scandir(os.fsencode(source.root / "images" / folder)) as entries:
            for entry in entries:
                if entry.name.endswith(b".jpg"):
                    shard.setdefault(entry.name[:-4], number)
    if not shard:
        raise UserError(f"{source.root / 'images'}: no .jpg in {', '.join(folders)}")
    ids = sorted(shard)
    return folders, ids, np.array([shard[image_id] for image_id in ids], np.int32)


class Report:
    """Writes a line `line,ImageID,reason` for each dropped row, and counts them."""

    def __init__(self, file: BinaryIO):
        self.file, self._next = file, 2  # the number of the line of the CSV that comes next; the first is the header
        self._cut: list[tuple[int, bytes, int]] = []
        self._counts = np.zeros(len(RULES), int)
        file.write(b"line,ImageID,reason\n")

    @property
    def rows(self) -> int:
        """How many rows there are, kept or dropped."""
        return self._next - 2

    @property
    def dropped(self) -> dict[str, int]:
        """{reason: rows}"""
        return {REASONS[rule]: int(n) for rule, n in zip(RULES, self._counts, strict=True) if n}

    def cut(self, row: pacsv.InvalidRow) -> str:
        """The parser's handler of rows of another length than the header's; they reach no block."""
        self._cut.append((row.number, row.text.partition(",")[0].encode(), RULES.index("fields")))
        return "skip"

    def add(self, ids: pa.Array, reason: np.ndarray) -> None:
        """The next block: the ids of its N rows, and for each the number of the rule that it breaks, or `KEPT`."""
        line = np.arange(self._next, self._next + len(ids) + len(self._cut))
        line = line[~np.isin(line, [row[0] for row in self._cut])][: len(ids)]
        rows = np.flatnonzero(reason != KEPT)
        dropped = zip(line[rows].tolist(), ids.take(pa.array(rows)).to_pylist(), reason[rows].tolist(), strict=True)
        self._write(list(dropped), int(line[-1]) + 1)

    def close(self) -> None:
        """The rest of the rows that were cut."""
        self._write([], max([self._next, *(row[0] + 1 for row in self._cut)]))

    def _write(self, rows: list[tuple[int, bytes, int]], end: int) -> None:
        rows = sorted(rows + [row for row in self._cut if row[0] < end])
        self._cut = [row for row in self._cut if row[0] >= end]
        reasons = [REASONS[rule].encode() for rule in RULES]
        self.file.writelines(b"%d,%s,%s\n" % (line, image_id, reasons[rule]) for line, image_id, rule in rows)
        self._counts += np.bincount([row[2] for row in rows], minlength=len(RULES)).astype(int)
        self._next = end


def _blocks(source: Source, report: Report) -> Iterator[pa.RecordBatch]:
    """The CSV's columns, as bytes, some megabytes at a time.

    Quotes are plain characters, so that one that is never closed spoils one row, not all that follow. One thread:
    only then does the parser number the rows.
    """
    columns = source.columns
    try:
        with open(source.file, "rb") as file:
            reader = pacsv.open_csv(
                file,
                read_options=pacsv.ReadOptions(use_threads=False, block_size=BLOCK),
                parse_options=pacsv.ParseOptions(
                    quote_char=False, ignore_empty_lines=False, invalid_row_handler=report.cut
                ),
                convert_options=pacsv.ConvertOptions(
                    include_columns=columns, column_types=dict.fromkeys(columns, pa.binary())
                ),
            )
            size = source.file.stat().st_size
            with tqdm(total=size, desc=f"{source.split} boxes", unit="B", unit_scale=True) as bar:
                for block in reader:
                    if len(block):
                        yield block
                    bar.update(file.tell() - bar.n)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{source.file}: cannot be read as a CSV ({str(error).splitlines()[0]})") from error


def _judge(
    block: pa.RecordBatch, source: Source, number: dict[bytes, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of N rows: the first rule that each breaks or `KEPT`, the picture's number and the box (N, 4) float64."""
    boxes = np.stack([_numbers(block[edge]) for edge in EDGES], 1)
    ids = block["ImageID"].dictionary_encode()
    image = np.array([number.get(image_id, -1) for image_id in ids.dictionary.to_pylist()], np.int32)[ids.indices]

    x0, y0, x1, y1 = boxes.T
    area = (x1 - x0) * (y1 - y0)
    broken = {
        "number": np.isnan(boxes).any(1),
        "inside": ~((boxes >= 0) & (boxes <= 1)).all(1),
        "order": ~((x0 < x1) & (y0 < y1)),
        "area": ~((area >= AREA[0]) & (area <= AREA[1])),
        "picture": image < 0,
    }
    for flag in source.exclude:
        broken[flag] = pc.equal(block[FLAGS[flag]], b"1").to_numpy(zero_copy_only=False)
    if source.labels is not None:
        wanted = pc.is_in(block["LabelName"], pa.array([label.encode() for label in source.labels]))
        broken["asked" if source.asked else "known"] = ~wanted.to_numpy(zero_copy_only=False)
    reason = np.full(len(block), KEPT, np.int8)
    for rule in sorted(broken, key=RULES.index, reverse=True):  # the first rule has the last word
        reason[broken[rule]] = RULES.index(rule)
    return reason, image, boxes


def _numbers(column: pa.Array) -> np.ndarray:
    """Text -> (N,) float64; what is no number becomes NaN."""
    try:
        return column.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:  # rare, and slow is good enough for a block that has such text
        return np.array([_number(text) for text in column.to_pylist()])


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
