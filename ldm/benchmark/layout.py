"""The file layout of Paint by Example's benchmark COCOEE: its items and its results."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy.lib.format import read_array
from tqdm import tqdm

from ldm.data.images import picture_files
from ldm.utils.errors import UserError, reason
from ldm.utils.image import of_one_size, picture_size
from ldm.utils.mask import Box, mask_box, open_mask

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
        number: position in `id_list.npy`, from 0.
        mask: white = the box to repaint.
        box: bounding box of the white pixels, at least two pixels a side, since the original's CLIP score drops one.
    """

    id: str
    number: int
    image: Path
    mask: Path
    exemplar: Path
    box: Box


def item_file(root: Path, kind: str, id: str) -> Path:
    """Return the path of an item's file; `kind` is a key of `FILES`."""
    folder, ending = FILES[kind]
    return root / folder / f"{id}_{ending}.png"


def read_ids(file: str | Path) -> list[str]:
    """Read the ids of an `id_list.npy`, twelve digits each, in its order, without unpickling anything.

    Raises:
        UserError: there is no such file, or it contains something else.
    """
    try:
        with open(file, "rb") as opened:
            ids = read_array(opened, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{file}: {reason(error)}") from error
    except (ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{file}: not a list of ids, expected an array of numbers in NumPy's format") from error
    found = [f"{id!s:0>12}" for id in ids.ravel()]
    if wrong := [id for id in found if not re.fullmatch("[0-9]{12}", id)]:
        raise UserError(f"{file}: found {wrong[0][:40]!r}, expected ids, whole numbers of at most twelve digits")
    if not found:
        raise UserError(f"{file}: contains no ids")
    if len(set(found)) < len(found):
        raise UserError(f"{file}: contains duplicate ids ({len(found) - len(set(found))} of {len(found)})")
    return found


def read_test_bench(root: str | Path) -> tuple[list[Item], list[str]]:
    """Read a test bench, that is `GT_3500`, `Mask_bbox_3500`, `Ref_3500` and `id_list.npy`.

    Returns:
        The items in the order of `id_list.npy`, and one line for each id with a missing file or a wrong mask.

    Raises:
        UserError: the folder does not exist, or something is wrong with every id.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"test bench {root}: no such folder; docs/reproduce.md says where to get it")
    ids = read_ids(root / "id_list.npy")
    items, wrong = [], []
    for number, id in enumerate(tqdm(ids, str(root), unit="item", delay=2, disable=None)):
        files = {kind: item_file(root, kind, id) for kind in FILES}
        try:
            picture_size(files["exemplar"])
            box = mask_box(open_mask(files["mask"], picture_size(files["image"]), resize=False))
            if min(box[2] - box[0], box[3] - box[1]) < 2:
                raise UserError(f"{files['mask']}: the hole is one pixel wide or high, expected two or more")
            items.append(Item(id, number, **files, box=box))
        except UserError as error:
            wrong.append(f"id {id}: {error}")
    if not items:
        raise UserError(f"test bench {root}: all {len(ids)} ids are wrong, the first: {wrong[0]}")
    return items, wrong


def result_files(folder: str | Path, ids: Sequence[str], size: tuple[int, int] | None = None) -> list[Path]:
    """List the results `<id>.png` of all ids, in their order.

    Args:
        size: expected width and height, by default those of the first result.

    Raises:
        UserError: the folder does not exist or contains other files, an id has no result, or a size differs.
    """
    folder = Path(folder)
    names = {f"{id}.png" for id in ids}
    held = set(_names(folder))
    if strangers := sorted(held - names):
        raise UserError(f"results {folder}: contains files that are not results of these ids "
                        f"({len(strangers)}, the first is {strangers[0]}); expected only <id>.png")  # fmt: skip
    if missing := sorted(names - held):
        raise UserError(f"results {folder}: {len(missing)} of {len(ids)} pictures missing, the first is {missing[0]}")
    return of_one_size([folder / f"{id}.png" for id in ids], size)


def listed_results(folder: str | Path, id_list: Path | None = None) -> list[Path]:
    """List the results of the ids in a file or, without one, all pictures in the folder; all have the same size.

    Raises:
        UserError: as `result_files` and `read_ids`.
    """
    return of_one_size(picture_files(folder)) if id_list is None else result_files(folder, read_ids(id_list))


def _names(folder: Path) -> list[str]:
    """List the names of the files in a folder, except those that begin with a dot."""
    try:
        return [entry.name for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder}: {reason(error)}") from error
