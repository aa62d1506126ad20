"""Pictures from disk, and data sets of files, where unreadable files are replaced, counted, logged and limited."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ldm.utils.errors import UserError
from ldm.utils.image import FORMATS, decode
from ldm.utils.random import key_seed

log = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
MOST_WORKERS = 256
UNLUCKY = 4  # failures in excess of the allowed rate that may be chance

Item = dict[str, Tensor | str]


def read_picture(file: Path | str) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB, upright; a missing, damaged or foreign file is a UserError."""
    return np.asarray(decode(file).convert("RGB"))


@contextmanager
def header_of(file: Path | str) -> Iterator[Image.Image]:
    """Open a picture and read only its header; a foreign file, or too many pixels, is a UserError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                yield image
    except Exception as error:  # decoders of damaged files raise almost anything
        foreign = isinstance(error, Image.UnidentifiedImageError)
        why = f"neither {' nor '.join(FORMATS)}" if foreign else " ".join(str(error).split())
        raise UserError(f"{file}: not a readable image ({why})") from error


def array_to_tensor(picture: np.ndarray) -> Tensor:
    """Convert (H, W, 3) uint8 to (3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float().div_(127.5).sub_(1)


class Epochs:
    """A data set whose random decisions are a function of (seed, epoch, item), in any worker process.

    The index carries the epoch: item i of epoch e is `data[e * len(data) + i]`, so that nothing has to be notified
    when an epoch begins, and workers may load ahead across its end.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def random(self, index: int) -> Random:
        """Return the source of every random decision about the item at `index`, which counts through the epochs."""
        epoch, item = divmod(index, len(self))
        return Random(key_seed(self.seed, epoch, item))


class TolerantDataset(Epochs, Dataset):
    """Items made from files, of which a few may be missing or damaged.

    An unreadable item is replaced by another one, drawn from (seed, epoch, i), so that `data[index]` remains a function
    of these. The log names each unreadable file. Reads and failures are counted in shared memory, over all workers.

    Args:
        max_unreadable: share of unreadable items, 0..1 (exclusive), above which reading stops.

    Raises:
        UserError: from reading an item, if the share of unreadable ones exceeds that.
    """

    def __init__(self, seed: int, max_unreadable: float):
        super().__init__(seed)
        if not 0 <= max_unreadable < 1:
            raise UserError(f"max_unreadable {max_unreadable}: expected a share, 0 <= share < 1")
        self.max_unreadable = max_unreadable
        # One row per reading process, the only one that writes to it: no count is lost and no lock is needed.
        self._counts = torch.zeros(MOST_WORKERS, 2, dtype=torch.int64).share_memory_()
        self._listed: set[str] = set()

    def item(self, place: int, rng: Random) -> Item:
        """Return item number `place` of an epoch, randomised by `rng`; UserError if one of its files is unreadable."""
        raise NotImplementedError

    def __getitem__(self, index: int) -> Item:
        place, rng = index % len(self), self.random(index)
        for attempt in count():
            try:
                item = self.item(place, rng)
            except UserError as error:
                self._count(1)
                self._judge(str(error))
                rng = Random(key_seed(self.seed, "instead", index, attempt))
                place = rng.randrange(len(self))
            else:
                self._count(0)
                return item

    @property
    def unreadable(self) -> tuple[int, int]:
        """The number of failed reads and of all reads, in this process and its workers."""
        good, bad = self._counts.sum(0).tolist()
        return bad, good + bad

    def _count(self, failed: int) -> None:
        worker = get_worker_info()
        self._counts[0 if worker is None else 1 + worker.id % (MOST_WORKERS - 1), failed] += 1

    def _judge(self, error: str) -> None:
        if error not in self._listed:
            self._listed.add(error)
            log.warning("%s; replaced by another item", error)
        bad, reads = self.unreadable
        if bad > UNLUCKY + self.max_unreadable * reads:
            limit = f"expected a share of at most max_unreadable {self.max_unreadable:g}"
            raise UserError(f"{bad} of {reads} pictures unreadable, {limit}; the last one: {error}")


class Pictures(TolerantDataset):
    """Pictures from files, as {"image": (3, size, size) float32 in [-1, 1]}.

    Args:
        files: picture files.
        size: the shorter side is resized to it (bicubic), then the centre is cropped.
        flip: mirror half of the items, redrawn each epoch.
    """

    def __init__(
        self, files: Sequence[Path], size: int, flip: bool = True, seed: int = 0, max_unreadable: float = 0.01
    ):
        super().__init__(seed, max_unreadable)
        self.files, self.size, self.flip = files, size, flip

    def __len__(self) -> int:
        return len(self.files)

    def item(self, place: int, rng: Random) -> Item:
        image = array_to_tensor(centre_square(read_picture(self.files[place]), self.size))
        if self.flip and rng.random() < 0.5:
            image = image.flip(-1)
        return {"image": image}


class ImageFolder(Pictures):
    """Every picture below a folder, in the order of the sorted paths.

    Raises:
        UserError: see `picture_files`.
    """

    def __init__(self, root: str, size: int, flip: bool = True, seed: int = 0, max_unreadable: float = 0.01):
        super().__init__(picture_files(root), size, flip, seed, max_unreadable)


def picture_files(root: Path | str) -> list[Path]:
    """List the pictures below a folder, found by their suffixes, sorted.

    Raises:
        UserError: there is no such folder, or no picture in it.
    """
    root = str(root)  # 2024 on a command line is a number
    if not Path(root).is_dir():
        raise UserError(f"{root}: no such folder")
    files = sorted(Path(folder, name) for folder, _, names in os.walk(root) for name in names if is_picture(name))
    if not files:
        kinds = ", ".join(sorted(SUFFIXES))
        raise UserError(f"{root}: expected pictures ({kinds}) in this folder or below, found none")
    return files


def is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def centre_square(picture: np.ndarray, size: int) -> np.ndarray:
    """Resize the shorter side of a picture (H, W, 3) uint8 to `size` and crop the centre, (size, size, 3)."""
    height, width = picture.shape[:2]
    side = min(height, width)
    x0, y0 = (width - side) // 2, (height - side) // 2
    if side == size:
        return picture[y0 : y0 + side, x0 : x0 + side]
    box = (x0, y0, x0 + side, y0 + side)
    return np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box))
