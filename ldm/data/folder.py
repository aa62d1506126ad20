"""Training data from nothing but a folder of pictures."""

import logging
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from ldm.data.datamodule import DataModule
from ldm.data.images import Pictures, header_of, picture_files, read_picture
from ldm.utils.errors import UserError
from ldm.utils.random import key_seed

log = logging.getLogger(__name__)

MAX_UNREADABLE = 0.99  # share of damaged pictures above which training stops
MANY = 10_000  # files; reading the headers of more deserves a progress bar


def folder_data(
    root: str,
    size: int,
    batch_size: int,
    flip: bool = True,
    validation_share: float = 0.02,
    validation_items: int | None = 1000,
    batch_per_device: int | None = None,
    num_workers: int = 0,
    seed: int = 0,
) -> DataModule:
    """Return the pictures below a folder as training data, with a small share of them held out for validation.

    Unreadable files are left out, and the log names and counts them: files with a bad header at once, damaged pictures
    when they are read, where another picture replaces them. Training stops only if nearly all are damaged.

    Args:
        root: searched recursively.
        size: side of the items: the pictures' central squares, scaled down or (logged) up.
        flip: mirror half of the training items, redrawn each epoch.
        validation_share: share held out, 0 <= share < 1, 0 for none, otherwise at least one picture. A picture is
            held out by its path below `root` alone, whatever other files are added or removed.
        validation_items: most pictures to validate on.
        batch_size, batch_per_device, num_workers, seed: see `DataModule`.

    Raises:
        UserError: there is no such folder, no readable picture in it, or too few for a batch.
    """
    if not 0 <= validation_share < 1:
        raise UserError(f"validation_share {validation_share}: expected a share, 0 <= share < 1")
    files, root = usable(picture_files(root), root, size), str(root)
    held = held_out(files, root, validation_share) if validation_share else []
    rest = sorted(set(files).difference(held))
    if len(rest) < batch_size:
        besides = f" and {len(held)} held out (validation_share)" if held else ""
        advice = f"; set data.batch_size={len(rest)} or less" if rest else ""
        raise UserError(
            f"{root}: {len(rest)} pictures to train on{besides}, expected at least batch_size {batch_size}{advice}"
        )
    train = Pictures(rest, size, flip, seed, MAX_UNREADABLE)
    validation = Pictures(held, size, False, seed, MAX_UNREADABLE) if held else None
    return DataModule(train, batch_size, batch_per_device, validation, validation_items, num_workers, seed)


def usable(files: Sequence[Path], root: str, size: int) -> list[Path]:
    """Return the files with the header of a picture; log the names of the others, and count pictures below `size`.

    Raises:
        UserError: no file is readable.
    """
    found, small, error = [], 0, None
    for file in tqdm(files, str(root), unit=" pictures", leave=False, disable=len(files) <= MANY or None):
        try:
            with header_of(file) as picture:
                small += min(picture.size) < size
        except UserError as unreadable:
            error = unreadable
            log.warning("%s; skipped", error)
        else:
            found.append(file)
    if not found:
        raise UserError(f"{root}: all {len(files)} pictures are unreadable, the last one: {error}")
    if len(found) < len(files):
        log.warning("%s: %d of %d pictures cannot be read and are skipped", root, len(files) - len(found), len(files))
    if small:
        log.warning(
            "%s: %d of %d pictures are smaller than %d pixels and will be enlarged", root, small, len(found), size
        )
    return found


def held_out(files: Sequence[Path], root: str, share: float) -> list[Path]:
    """Return about that share of the files, ordered by the hashes of their paths; at least one is readable."""
    hashes = {file: key_seed("validation", file.relative_to(root).as_posix()) for file in files}
    order = sorted(files, key=hashes.__getitem__)
    count = sum(value < share * 2**63 for value in hashes.values())
    return order[: max(count, 1 + first_readable(order, root))]


def first_readable(files: Sequence[Path], root: str) -> int:
    """Return the index of the first readable picture.

    Raises:
        UserError: no picture is readable.
    """
    error = None
    for place, file in enumerate(files):
        try:
            read_picture(file)
            return place
        except UserError as damaged:
            error = damaged
    raise UserError(f"{root}: all {len(files)} pictures are unreadable, the last one: {error}")
