"""Open Images box CSVs, read block by block: which rows are boxes to train on, and why the others are dropped."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from tqdm import tqdm

from ldm.data.crops import AREA
from ldm.utils.errors import UserError

EDGES = ["XMin", "YMin", "XMax", "YMax"]
FLAGS = {"group": "IsGroupOf", "depiction": "IsDepiction", "occluded": "IsOccluded"}  # 1 yes, 0 no, -1 unknown
CLASSES = "class-descriptions-boxable.csv"  # lists every label and its name
REASONS = {  # a row is dropped under the first rule that it breaks
    "fields": "too few or too many fields",
    "number": "lacks a number",
    "inside": "reaches beyond the picture",
    "order": "empty or inverted",
    "area": f"area below {AREA[0]} or above {AREA[1]}",
    "picture": "no picture on disk",
    **{flag: f"{column} is 1" for flag, column in FLAGS.items()},
    "asked": "class not requested",
    "known": f"label not in {CLASSES}",
}
RULES = list(REASONS)
KEPT = -1
BLOCK = 1 << 24  # bytes of the CSV that are read at a time


@dataclass(frozen=True)
class Choice:
    """The rows to keep, among those that hold a box of the right area in a picture on disk.

    Args:
        labels: MIDs to keep, or None for every row.
        asked: whether the user chose `labels`; otherwise they are all that the class file lists.
        exclude: keys of `FLAGS`; rows where one of them is 1 are dropped.
    """

    labels: frozenset[str] | None = None
    asked: bool = False
    exclude: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of the CSV that are read."""
        label = [] if self.labels is None else ["LabelName"]
        return ["ImageID", *EDGES, *label, *(FLAGS[flag] for flag in self.exclude)]


class Report:
    """The file of dropped rows, a line `line,ImageID,reason` each, with a count for each reason."""

    def __init__(self, file: BinaryIO):
        self.file, self._next = file, 2  # line number of the next row of the CSV; line 1 is the header
        self._cut: list[tuple[int, bytes, int]] = []
        self._counts = np.zeros(len(RULES), int)
        file.write(b"line,ImageID,reason\n")

    @property
    def rows(self) -> int:
        """Number of rows, kept or dropped."""
        return self._next - 2

    @property
    def dropped(self) -> dict[str, int]:
        """Number of rows dropped for each reason."""
        return {REASONS[rule]: int(n) for rule, n in zip(RULES, self._counts, strict=True) if n}

    def cut(self, row: pacsv.InvalidRow) -> str:
        """Record a row whose length differs from the header's: the parser's handler; such rows reach no block."""
        self._cut.append((row.number, row.text.partition(",")[0].encode(), RULES.index("fields")))
        return "skip"

    def add(self, ids: pa.Array, reason: np.ndarray) -> None:
        """Report on the next block: the ids of its N rows, and for each the index of the rule it breaks, or `KEPT`."""
        line = np.arange(self._next, self._next + len(ids) + len(self._cut))
        line = line[~np.isin(line, [row[0] for row in self._cut])][: len(ids)]
        rows = np.flatnonzero(reason != KEPT)
        dropped = zip(line[rows].tolist(), ids.take(pa.array(rows)).to_pylist(), reason[rows].tolist(), strict=True)
        self._write(list(dropped), int(line[-1]) + 1)

    def close(self) -> None:
        """Write the remaining rows of a wrong length."""
        self._write([], max([self._next, *(row[0] + 1 for row in self._cut)]))

    def _write(self, rows: list[tuple[int, bytes, int]], end: int) -> None:
        rows = sorted(rows + [row for row in self._cut if row[0] < end])
        self._cut = [row for row in self._cut if row[0] >= end]
        reasons = [REASONS[rule].encode() for rule in RULES]
        self.file.writelines(b"%d,%s,%s\n" % (line, image_id, reasons[rule]) for line, image_id, rule in rows)
        self._counts += np.bincount([row[2] for row in rows], minlength=len(RULES)).astype(int)
        self._next = end


def read_blocks(path: Path, columns: list[str], report: Report) -> Iterator[pa.RecordBatch]:
    """Yield the columns of a CSV, as bytes, some megabytes at a time; rows of a wrong length go to `report.cut`.

    Quotes are plain characters, so that an unclosed one spoils a single row, not all that follow. The parser numbers
    rows only when it runs in one thread.

    Raises:
        UserError: the file is not a CSV.
    """
    try:
        with open(path, "rb") as file:
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
            size = path.stat().st_size
            with tqdm(total=size, desc=path.name, unit="B", unit_scale=True) as bar:
                for block in reader:
                    if len(block):
                        yield block
                    bar.update(file.tell() - bar.n)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as a CSV ({str(error).splitlines()[0]})") from error


def judge(block: pa.RecordBatch, choice: Choice, number: dict[bytes, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decide which rows of a block to keep.

    Args:
        number: {image id: index} of the pictures on disk.

    Returns:
        for each of the N rows: the index in `RULES` of the first rule that it breaks, or `KEPT`, (N,) int8; the index
        of its picture, (N,) int32; its box x0, y0, x1, y1 in 0..1, (N, 4) float64.
    """
    boxes = np.stack([_numbers(block[edge]) for edge in EDGES], 1)
    ids = block["ImageID"].dictionary_encode()
    image = np.array([number.get(image_id, -1) for image_id in ids.dictionary.to_pylist()], np.int32)[ids.indices]

    x0, y0, x1, y1 = boxes.T
    with np.errstate(invalid="ignore"):  # infinities, which "inside" rejects
        area = (x1 - x0) * (y1 - y0)
    broken = {
        "number": np.isnan(boxes).any(1),
        "inside": ~((boxes >= 0) & (boxes <= 1)).all(1),
        "order": ~((x0 < x1) & (y0 < y1)),
        "area": ~((area >= AREA[0]) & (area <= AREA[1])),
        "picture": image < 0,
    }
    for flag in choice.exclude:
        broken[flag] = pc.equal(block[FLAGS[flag]], b"1").to_numpy(zero_copy_only=False)
    if choice.labels is not None:
        wanted = pc.is_in(block["LabelName"], pa.array([label.encode() for label in choice.labels]))
        broken["asked" if choice.asked else "known"] = ~wanted.to_numpy(zero_copy_only=False)
    reason = np.full(len(block), KEPT, np.int8)
    for rule in sorted(broken, key=RULES.index, reverse=True):  # the first broken rule is written last
        reason[broken[rule]] = RULES.index(rule)
    return reason, image, boxes


def _numbers(column: pa.Array) -> np.ndarray:
    """Parse text to (N,) float64; anything that is not a number becomes NaN."""
    try:
        return column.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:  # rare, so slow is good enough
        return np.array([_number(text) for text in column.to_pylist()])


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan
