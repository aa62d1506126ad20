"""A folder of pictures as all that a training needs."""

import logging
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ldm.data.datamodule import DataModule
from ldm.data.images import Pictures, header_of, picture_files, read_picture
from ldm.utils.errors import UserError
from ldm.utils.random import key_seed

log = logging.getLogger(__name__)

MANY = 10_000  # files; looking into more of them takes long enough for a progress bar


def folder_data(
    root: str,
    size: int,
    batch_size: int,
    flip: bool = True,
    validation_share: float = 0.02,
    validation_items: int | None = 1000,
    max_unreadable: float = 0.99,
    batch_per_device: int | None = None,
    num_workers: int = 0,
    seed: int = 0,
) -> DataModule:
    """Train on the pictures below a folder, but for a small share of them that is held out for validation.

    Files that cannot be read are left out, the log names and counts them: by their headers at once, damaged ones when
    their turn comes, in whose place another picture then stands.

    Args:
        root: searched recursively.
        size: the side of the items: the pictures' central squares, scaled down or, which the log says, up.
        flip: mirror half of the items to train on, anew each epoch.
        validation_share: 0..1 (exclusive). Whether a picture is held out follows from its path below `root` alone, so
            it stays where it is when others come or go. Of a folder so small that none would be, one is; 0: none is.
        validation_items: validate on so many of them at most.
        max_unreadable: share of damaged pictures, 0..1 (exclusive), above which training stops.
        batch_size, batch_per_device, num_workers, seed: see `DataModule`.

    Raises:
        UserError: no such folder, no pictures or none that can be read, too few for a batch.
    """
    if not 0 <= validation_share < 1:
        raise UserError(f"validation_share {validation_share}: expected a share, 0 <= share < 1")
    files, root = usable(picture_files(root), root, size), str(root)
    held = held_out(files, root, validation_share) if validation_share else []
    rest = sorted(set(files).difference(held))
    if len(rest) < batch_size:
        besides = f" and {len(held)} to validate on (validation_share)" if held else ""
        advice = f"; set data.batch_size={len(rest)} or less" if rest else ""
        raise UserError(f"{root}: {len(rest)} pictures to train on{besides}, expected batch_size {batch_size}{advice}")
    train = Pictures(rest, size, flip, seed, max_unreadable)
    validation = Pictures(held, size, False, seed, max_unreadable) if held else None
    return DataModule(train, batch_size, batch_per_device, validation, validation_items, num_workers, seed)


def usable(files: Sequence[Path], root: str, size: int) -> list[Path]:
    """The files whose header is that of a picture; the log names the others, and counts pictures below `size`.

    Raises:
        UserError: there are none.
    """
    found, small, error = [], 0, None
    for file in tqdm(files, str(root), unit=" pictures", leave=False, disable=len(files) <= MANY or None):
        try:
            with header_of(file) as picture:
                small += min(picture.size) < size
        except UserError as unreadable:
            error = unreadable
            log.warning("%s; left out", error)
        else:
            found.append(file)
    if not found:
        raise UserError(f"{root}: none of its {len(files)} pictures can be read, the last one: {error}")
    if len(found) < len(files):
        log.warning("%s: %d of %d pictures cannot be read and are left out", root, len(files) - len(found), len(files))
    if small:
        log.warning("%s: %d of %d pictures are smaller than %d pixels and enlarged", root, small, len(found), size)
    return found


def held_out(files: Sequence[Path], root: str, share: float) -> list[Path]:
    """About that share of the files, at least one of which can be read; in an order that their paths' hashes give."""
    hashes = {file: key_seed("validation", file.relative_to(root).as_posix()) for file in files}
    order = sorted(files, key=hashes.__getitem__)
    count = sum(value < share * 2**63 for value in hashes.values())
    return order[: max(count, 1 + first_readable(order, root))]


def first_readable(files: Sequence[Path], root: str) -> int:
    """The place of the first picture that is whole.

    Raises:
        UserError: there is none.
    """
    error = None
    for place, file in enumerate(files):
        try:
            read_picture(file)
            return place
        except UserError as damaged:
            error = damaged
    raise UserError(f"{root}: none of its {len(files)} pictures can be read, the last one: {error}")
