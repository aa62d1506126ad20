"""The boxes of a split, one entry per picture: what training reads and `ldm read-bbox` writes.

There are two forms on disk, beside the folder `images` of the Open Images layout:

    bbox/train.arrow             one Arrow IPC file per split, memory-mapped; boxes relative to the picture, 0..1
    bbox/train_0/<image id>.txt  the original's format: a line `x0 y0 x1 y1` per box, in whole pixels
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from ldm.data.images import header_of
from ldm.utils.errors import UserError, reason
from ldm.utils.files import replacing
from ldm.utils.mask import Box

SCHEMA = pa.schema(
    {
        "image_id": pa.binary(),
        "shard": pa.int32(),  # index into the list of folders in the metadata
        "boxes": pa.list_(pa.list_(pa.float32(), 4)),  # x0, y0, x1, y1 in 0..1
    }
)
FOLDERS, ABOUT = b"folders", b"about"  # keys of the metadata; the values are JSON
ORIENTATION = 0x0112  # Exif tag; 5 to 8 swap width and height


class BoxIndex:
    """A memory-mapped index file. Opening reads only its footer; processes that have it open share its pages.

    Args:
        file: written by `write_index`.

    Attributes:
        about: how the file was made, as given to `write_index`.

    Raises:
        UserError: the file is not an index, or is incomplete.
    """

    def __init__(self, file: Path):
        self.file = Path(file)
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(file)))
            if reader.schema != SCHEMA:
                raise pa.ArrowInvalid(f"its columns are {', '.join(reader.schema.names)}")
            batch, metadata = reader.get_batch(0), reader.schema.metadata
            self.folders, self.about = json.loads(metadata[FOLDERS]), json.loads(metadata[ABOUT])
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            message = " ".join(str(error).split())
            raise UserError(f"{file}: not an index of boxes ({message}); make one with ldm read-bbox") from error
        ids, shard, boxes = batch.columns
        self._ids, self._shard, self._start = ids, shard.to_numpy(), boxes.offsets.to_numpy()
        self._boxes = boxes.values.values.to_numpy().reshape(-1, 4)

    def __reduce__(self):
        return BoxIndex, (self.file,)  # a worker process that is not forked reopens the file

    def __len__(self) -> int:
        return len(self._ids)

    def image(self, i: int) -> str:
        """Return the path of picture i below `images`, such as train_0/0a1b.jpg. Pictures are sorted by id."""
        return f"{self.folders[self._shard[i]]}/{os.fsdecode(self._ids[i].as_py())}.jpg"

    def boxes(self, i: int, width: int, height: int) -> list[Box]:
        """Return the boxes of picture i, at least one, rounded to whole pixels of its `width` x `height`."""
        parts = self._boxes[self._start[i] : self._start[i + 1]]
        return [tuple(box) for box in np.rint(parts * np.array([width, height] * 2)).astype(int).tolist()]


class BoxFolder:
    """The original's text files: listed when opened, each read on demand.

    Args:
        folder: parent of the shards, e.g. `bbox`.
        folders: names of the shards, equal to those of the pictures' folders.

    Raises:
        UserError: there is no .txt in these folders; from `boxes`: a line is not a box inside the picture.
    """

    def __init__(self, folder: Path, folders: Sequence[str]):
        self.folder, self.folders = Path(folder), list(folders)
        ids, shard = [], []
        for number, name in enumerate(self.folders):
            with os.scandir(os.fsencode(self.folder / name)) as entries:
                found = [entry.name[:-4] for entry in entries if entry.name.endswith(b".txt")]
            ids += found
            shard += [number] * len(found)
        if not ids:
            raise UserError(f"{folder}: no .txt with boxes in {', '.join(self.folders)}; run ldm read-bbox")
        ids = np.array(ids)
        order = np.argsort(ids, kind="stable")
        self._ids, self._shard = ids[order], np.array(shard, np.int32)[order]

    def __len__(self) -> int:
        return len(self._ids)

    def _name(self, i: int) -> str:
        return f"{self.folders[self._shard[i]]}/{os.fsdecode(self._ids[i])}"

    def image(self, i: int) -> str:
        """Return the path of picture i, see `BoxIndex.image`."""
        return f"{self._name(i)}.jpg"

    def boxes(self, i: int, width: int, height: int) -> list[Box]:
        """Return the boxes of picture i; width and height only serve to refuse boxes of another picture."""
        file = self.folder / f"{self._name(i)}.txt"
        try:
            boxes = [tuple(int(edge) for edge in line.split()) for line in file.read_text().splitlines() if line]
            good = [0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height for x0, y0, x1, y1 in boxes]
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not readable as lines `x1 y1 x2 y2` of whole numbers ({error})") from error
        if not good or not all(good):
            found = boxes[good.index(False)] if good else "nothing"
            raise UserError(f"{file}: expected boxes inside the picture of {width} x {height} pixels, found {found}")
        return boxes


def index_file(root: Path, split: str) -> Path:
    """Return the path of a split's index."""
    return Path(root) / "bbox" / f"{split}.arrow"


def open_boxes(root: Path, split: str) -> BoxIndex | BoxFolder:
    """Open the boxes of a split: `bbox/<split>.arrow`, or else the text files in `bbox/<split>` or `bbox/<split>_*`.

    Raises:
        UserError: neither exists, or the one that does cannot be read.
    """
    file = index_file(root, split)
    if file.exists():
        return BoxIndex(file)
    try:
        return BoxFolder(file.parent, split_folders(file.parent, split))
    except OSError as error:
        raise UserError(
            f"{file}: no such file, and no folder {split} or {split}_* of boxes beside it; make the boxes with "
            f"`ldm read-bbox --root {root}`, or draw ToyWorld with `ldm make-toyworld --out {root}`"
        ) from error


def split_folders(parent: Path, split: str) -> list[str]:
    """List the folders <split> and <split>_* in `parent`, sorted by name.

    Raises:
        FileNotFoundError: there are no such folders.
    """
    with os.scandir(parent) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    chosen = sorted(name for name in names if name == split or name.startswith(f"{split}_"))
    if not chosen:
        raise FileNotFoundError(f"{parent}: no folder {split} or {split}_*")
    return chosen


def write_index(
    file: Path,
    folders: list[str],
    ids: list[bytes],
    shard: np.ndarray,
    start: np.ndarray,
    boxes: np.ndarray,
    about: dict,
) -> None:
    """Write the file that `BoxIndex` reads.

    Args:
        folders: names of the picture folders.
        ids: ids of the N pictures, sorted; file names are <id>.jpg.
        shard: (N,) int32, the index of each picture's folder.
        start: (N + 1,) int32; picture i has boxes start[i] .. start[i + 1].
        boxes: (M, 4) float32, x0, y0, x1, y1 in 0..1.
        about: plain values to keep with the file.

    Raises:
        UserError: the file cannot be written.
    """
    corners = pa.FixedSizeListArray.from_arrays(pa.array(boxes.reshape(-1)), 4)
    columns = [pa.array(ids, pa.binary()), pa.array(shard), pa.ListArray.from_arrays(pa.array(start), corners)]
    schema = SCHEMA.with_metadata({FOLDERS: json.dumps(folders), ABOUT: json.dumps(about)})
    with replacing(file) as partial, pa.ipc.new_file(partial, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))


def write_folders(index: BoxIndex, root: Path) -> list[str]:
    """Write the boxes of an index as the original's text files, `root/bbox/<shard>/<id>.txt`.

    Only the header of each picture is read, for its size. The folders replace earlier ones once all are complete.

    Returns:
        a message for each unreadable picture, which gets no file.

    Raises:
        UserError: a file cannot be written.
    """
    folder, unreadable = Path(root) / "bbox", []
    partial = {name: folder / f".{name}.partial" for name in index.folders}
    try:
        for path in partial.values():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        for i in tqdm(range(len(index)), "text files", unit=" pictures"):
            picture = Path(index.image(i))
            try:
                boxes = index.boxes(i, *upright_size(Path(root) / "images" / picture))
            except UserError as error:
                unreadable.append(str(error))
                continue
            lines = "".join("{} {} {} {}\n".format(*box) for box in boxes)
            (partial[picture.parent.name] / f"{picture.stem}.txt").write_text(lines)
        for name, path in partial.items():
            shutil.rmtree(folder / name, ignore_errors=True)
            path.rename(folder / name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({reason(error)})") from error
    return unreadable


def upright_size(file: Path) -> tuple[int, int]:
    """Read the width and height of a picture, turned upright, from its header alone."""
    with header_of(file) as image:
        width, height = image.size
        return (height, width) if image.getexif().get(ORIENTATION, 1) > 4 else (width, height)
