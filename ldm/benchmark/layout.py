"""Paint by Example's benchmark COCOEE on disk: its items, and a folder of results."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ldm.data.images import picture_files
from ldm.utils.errors import UserError

FILES = {
    "image": ("GT_3500", "GT"),
    "mask": ("Mask_bbox_3500", "mask"),
    "exemplar": ("Ref_3500", "ref"),
}  # folder and ending of the names


@dataclass(frozen=True)
class Item:
    """An edit of the benchmark.

    Attributes:
        id: twelve digits, a picture of COCO's val2017.
        mask: white = the box to repaint.
    """

    id: str
    image: Path
    mask: Path
    exemplar: Path


def item_file(root: Path, kind: str, id: str) -> Path:
    """Where a file of an item is; `kind` is a key of `FILES`."""
    folder, ending = FILES[kind]
    return root / folder / f"{id}_{ending}.png"


def read_ids(file: str | Path) -> list[str]:
    """The ids of an `id_list.npy`, twelve digits each, in its order. No pickle is read.

    Raises:
        UserError: no such file, or it holds something else.
    """
    try:
        ids = np.load(file, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{file}: {(error.strerror or 'cannot be read').lower()}") from error
    except (ValueError, EOFError) as error:
        raise UserError(f"{file}: no list of ids, expected an array of numbers in NumPy's format") from error
    try:
        found = [f"{int(id):012d}" for id in ids.ravel()]
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: holds {ids.dtype}, expected ids, whole numbers") from error
    if not found:
        raise UserError(f"{file}: holds no ids")
    if len(set(found)) < len(found):
        raise UserError(f"{file}: {len(found) - len(set(found))} ids are in it twice")
    return found


def read_test_bench(root: str | Path) -> list[Item]:
    """All items of a test bench: `GT_3500`, `Mask_bbox_3500`, `Ref_3500` and `id_list.npy`, in the order of the last.

    Raises:
        UserError: it is not there, or files are missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f'test bench {root}: no such folder; README.md, "Reproduce", says from where it comes')
    ids = read_ids(root / "id_list.npy")
    held = {kind: set(_names(root / folder)) for kind, (folder, _) in FILES.items()}
    items = [Item(id, **{kind: item_file(root, kind, id) for kind in FILES}) for id in ids]
    missing = [path for item in items for kind in FILES if (path := getattr(item, kind)).name not in held[kind]]
    if missing:
        raise UserError(f"test bench {root}: {len(missing)} files of its {len(ids)} ids are missing, "
                        f"the first {missing[0].relative_to(root)}")  # fmt: skip
    return items


def result_files(folder: str | Path, ids: Sequence[str], size: tuple[int, int] | None = None) -> list[Path]:
    """The results `<id>.png` of all ids, in their order.

    Args:
        size: width and height that each has; by default those of the first.

    Raises:
        UserError: the folder is not there or holds other files too, an id has no result, or one is of another size.
    """
    folder = Path(folder)
    names = {f"{id}.png" for id in ids}
    held = set(_names(folder))
    if strangers := sorted(held - names):
        raise UserError(f"results {folder}: {len(strangers)} files are no results of these ids, "
                        f"the first {strangers[0]}; expected <id>.png alone")  # fmt: skip
    if missing := sorted(names - held):
        raise UserError(f"results {folder}: {len(missing)} of {len(ids)} are missing, the first {missing[0]}")
    return of_one_size([folder / f"{id}.png" for id in ids], size)


def listed_results(folder: str | Path, id_list: Path | None = None) -> list[Path]:
    """The results of the ids in a file; without one, all pictures in the folder, which have one size.

    Raises:
        UserError: as `result_files` and `read_ids`.
    """
    return of_one_size(picture_files(folder)) if id_list is None else result_files(folder, read_ids(id_list))


def of_one_size(files: list[Path], size: tuple[int, int] | None = None) -> list[Path]:
    """The same files, all of which have that width and height, by default those of the first.

    Raises:
        UserError: one has not, or is no picture.
    """
    for file in files:
        found = picture_size(file)
        size = size or found
        if found != size:
            raise UserError(f"{file}: is {found[0]}x{found[1]}, expected {size[0]}x{size[1]}")
    return files


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height of a picture, from its header.

    Raises:
        UserError: it is none.
    """
    try:
        with Image.open(file) as picture:
            return picture.size
    except OSError as error:
        raise UserError(f"{file}: cannot be read as a picture") from error


def _names(folder: Path) -> list[str]:
    """Names of the files in a folder, but those that begin with a dot."""
    try:
        return [entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror.lower()}") from error
