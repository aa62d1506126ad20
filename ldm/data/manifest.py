"""Your own pictures as training data: a manifest, JSON lines (.jsonl) or Parquet (.parquet), one row per item.

    {"image": "photos/1.jpg", "box": [40, 30, 200, 180]}
    {"image": "photos/2.jpg", "mask": "masks/2.png", "exemplar": "cutouts/2.png"}
    {"image": "photos/3.jpg", "caption": "a red bus in the rain"}

image: a picture file. The hole is either `box`, x0, y0, x1, y1 in pixels of the upright picture (x1 and y1 exclusive),
or `mask`, a picture file in which it is white. exemplar: a picture file to be shown whole; by default what the box (or
the mask's bounding box) shows. A picture with several boxes has several rows. Paths are relative to the manifest's
folder. `ldm make-manifest` writes manifests.
"""

import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from tqdm import tqdm

from ldm.data.examples import ExampleDataset
from ldm.data.images import Item, TolerantDataset, array_to_tensor, centre_square, read_picture
from ldm.data.recipe import Recipe
from ldm.utils.errors import UserError, reason
from ldm.utils.files import replacing
from ldm.utils.nearest import nearest

SCHEMA = pa.schema(
    {
        "image": pa.string(),
        "box": pa.list_(pa.float64()),
        "mask": pa.string(),
        "exemplar": pa.string(),
        "caption": pa.string(),
    }
)
FILES = ("image", "mask", "exemplar")
CHUNK = 1 << 15
LISTED = 10  # rows named in the log for each reason to skip them

log = logging.getLogger(__name__)


class ManifestDataset(ExampleDataset):
    """The rows of a manifest with a box or a mask; "image_id" is the row's `image`.

    Raises:
        UserError: see `read_manifest`.
    """

    def __init__(self, file: str, recipe: Recipe, seed: int = 0, max_unreadable: float = 0.01):
        super().__init__(recipe, seed, max_unreadable)
        self.folder, self.rows = Path(file).parent, read_manifest(Path(file), "hole")

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, place: int, rng: Random) -> Item:
        row = {name: self.rows[name][place].as_py() for name in ("image", "box", "mask", "exemplar")}
        boxes = [] if row["box"] is None else [tuple(np.rint(row["box"]).astype(int).tolist())]
        mask, exemplar = (row[name] and self.folder / row[name] for name in ("mask", "exemplar"))
        item = self.example(self.folder / row["image"], lambda width, height: boxes, rng, mask, exemplar)
        return {**item, "image_id": row["image"]}


class CaptionDataset(TolerantDataset):
    """The rows of a manifest with a caption, for training on text.

    image: (3, size, size) float32 in [-1, 1], the picture's central square. caption: string.

    Args:
        flip: mirror half of the items, redrawn each epoch; off by default, as captions may say left and right.

    Raises:
        UserError: see `read_manifest`.
    """

    def __init__(self, file: str, size: int, flip: bool = False, seed: int = 0, max_unreadable: float = 0.01):
        super().__init__(seed, max_unreadable)
        self.size, self.flip = size, flip
        self.folder, self.rows = Path(file).parent, read_manifest(Path(file), "caption")

    def __len__(self) -> int:
        return len(self.rows)

    def item(self, place: int, rng: Random) -> Item:
        image = array_to_tensor(centre_square(read_picture(self.folder / self.rows["image"][place].as_py()), self.size))
        if self.flip and rng.random() < 0.5:
            image = image.flip(-1)
        return {"image": image, "caption": self.rows["caption"][place].as_py()}


def read_manifest(file: Path, purpose: str) -> pa.Table:
    """Read the usable rows of a manifest, columns as in `SCHEMA`; no picture is opened.

    Rows that lack a value, whose box is invalid or whose files are missing are skipped; the log says how many, which
    and why.

    Args:
        purpose: "hole", for rows with a box or a mask, or "caption".

    Raises:
        UserError: the file cannot be read, has an unknown column, or holds no usable row.
    """
    fault = {"hole": _hole_fault, "caption": _caption_fault}[purpose]
    kept: list[dict] = []
    chunks: list[pa.Table] = []
    dropped: dict[str, list[int]] = {}
    there = _Listing(file.parent)
    for number, row in tqdm(_rows(file), f"{file.name}", unit=" rows", delay=2, leave=False):
        if reason := _type_fault(row) or fault(row) or there.fault(row):
            dropped.setdefault(reason, []).append(number)
        else:
            kept.append(row)
        if len(kept) == CHUNK:  # a million rows as Python objects take a gigabyte
            chunks.append(pa.Table.from_pylist(kept, SCHEMA))
            kept.clear()
    chunks.append(pa.Table.from_pylist(kept, SCHEMA))
    rows = pa.concat_tables(chunks).combine_chunks()
    if not len(rows):
        counts = "; ".join(f"rows that {reason}: {len(numbers)}" for reason, numbers in dropped.items())
        raise UserError(f"{file}: no usable row ({counts or 'the file is empty'})")
    for reason, numbers in dropped.items():
        listed = ", ".join(map(str, numbers[:LISTED])) + (", ..." if len(numbers) > LISTED else "")
        log.warning("%s: skipped %d rows that %s (row %s)", file, len(numbers), reason, listed)
    return rows


def write_manifest(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines, or as Parquet if the suffix is .parquet; atomically.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(file) as partial:
        if file.suffix == ".parquet":
            parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), partial)
        else:
            with open(partial, "w", encoding="utf-8") as lines:
                lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield row numbers from 1 (line numbers in JSON lines) and rows without null values; a valid row is a dict."""
    try:
        if file.suffix == ".parquet":
            table = parquet.ParquetFile(file)
            _check_columns(table.schema_arrow.names, str(file))
            batches = (row for batch in table.iter_batches() for row in batch.to_pylist())
            for number, row in enumerate(batches, 1):
                yield number, {name: value for name, value in row.items() if value is not None}
            return
        with open(file, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError:
                    row = None
                if isinstance(row, dict):
                    _check_columns(row, f"{file} line {number}")
                    row = {name: value for name, value in row.items() if value is not None}
                yield number, row
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        message = reason(error)
        raise UserError(f"{file}: not readable as a manifest, JSON lines or .parquet ({message})") from error


def _check_columns(names: Any, where: str) -> None:
    for name in names:
        if name not in SCHEMA.names:
            raise UserError(f"{where}: unknown column {name!r}; {nearest(name, SCHEMA.names)}")


def _type_fault(row: Any) -> str | None:
    if not isinstance(row, dict):
        return "are not JSON objects"
    for name, value in row.items():
        if name != "box" and not isinstance(value, str):
            return f"have a value for {name} that is not a string"
    return None if row.get("image") else "have no image"


def _hole_fault(row: dict) -> str | None:
    if ("box" in row) == ("mask" in row):
        return "have both a box and a mask" if "box" in row else "have neither box nor mask"
    if "mask" in row:
        return None
    box = row["box"]
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(edge) for edge in box):
        return "have a box that is not four numbers x0, y0, x1, y1"
    x0, y0, x1, y1 = np.rint(box)
    if x0 >= x1 or y0 >= y1:
        return "have a box that is empty or inverted"
    return "have a box that starts outside the picture" if min(x0, y0) < 0 else None


def _caption_fault(row: dict) -> str | None:
    return None if row.get("caption") else "have no caption"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _Listing:
    """A check for missing files by listing each folder once: on a network disk far faster than a check per file."""

    def __init__(self, root: Path):
        self.root, self.folders = root, {}

    def fault(self, row: dict) -> str | None:
        for name in FILES:
            if name in row and not self._has(row[name]):
                return f"name a missing file for {name}"
        return None

    def _has(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self.folders:
            try:
                self.folders[folder] = set(os.listdir(self.root / folder))
            except (OSError, ValueError):
                self.folders[folder] = set()
        return name in self.folders[folder]
