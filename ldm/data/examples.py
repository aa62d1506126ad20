"""Training items from files: unreadable ones are replaced, counted and listed, and too many of them are an error."""

import logging
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ldm.data.crops import Box
from ldm.data.images import Epochs, read_picture
from ldm.data.recipe import Recipe
from ldm.utils.errors import UserError
from ldm.utils.mask import open_mask
from ldm.utils.random import key_seed

log = logging.getLogger(__name__)

Item = dict[str, Tensor | str]
MOST_WORKERS = 256
UNLUCKY = 4  # so many failures more than the set rate explains may be chance


class TolerantDataset(Epochs, Dataset):
    """Items made from files, of which a few may be missing or damaged.

    In the place of an unreadable item stands another one, drawn from (seed, epoch, i): what `data[index]` is stays a
    function of these. Each unreadable file is named in the log. Reads and failures are counted in shared memory, over
    all worker processes.

    Args:
        max_unreadable: share of unreadable items, 0..1 (exclusive), above which reading stops.

    Raises:
        UserError: when an item is read, and more are unreadable than that.
    """

    def __init__(self, seed: int, max_unreadable: float):
        super().__init__(seed)
        if not 0 <= max_unreadable < 1:
            raise UserError(f"max_unreadable {max_unreadable}: expected a share, 0 <= share < 1")
        self.max_unreadable = max_unreadable
        # One row a process that reads, which alone writes to it: no count is lost and no lock is needed.
        self._counts = torch.zeros(MOST_WORKERS, 2, dtype=torch.int64).share_memory_()
        self._listed: set[str] = set()

    def item(self, place: int, rng: Random) -> Item:
        """Item number `place` of an epoch with the decisions of `rng`; UserError if a file of it is unreadable."""
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
        """How many reads failed, of how many, in this process and its workers."""
        good, bad = self._counts.sum(0).tolist()
        return bad, good + bad

    def _count(self, failed: int) -> None:
        worker = get_worker_info()
        self._counts[0 if worker is None else 1 + worker.id % (MOST_WORKERS - 1), failed] += 1

    def _judge(self, error: str) -> None:
        if error not in self._listed:
            self._listed.add(error)
            log.warning("%s; another item takes its place", error)
        bad, reads = self.unreadable
        if bad > UNLUCKY + self.max_unreadable * reads:
            limit = f"limit max_unreadable = {self.max_unreadable:g}"
            raise UserError(f"{bad} of {reads} pictures unreadable ({limit}), the last one: {error}")


class ExampleDataset(TolerantDataset):
    """Items of the recipe, see `Recipe.__call__`, with "image_id", a string."""

    def __init__(self, recipe: Recipe, seed: int, max_unreadable: float):
        super().__init__(seed, max_unreadable)
        self.recipe = recipe

    def example(
        self,
        file: Path,
        boxes: Callable[[int, int], list[Box]],
        rng: Random,
        mask: Path | None = None,
        exemplar: Path | None = None,
    ) -> dict[str, Tensor]:
        """The recipe on files; `boxes` is called with the picture's width and height. UserErrors name the file."""
        picture = read_picture(file)
        height, width = picture.shape[:2]
        pixels = boxes(width, height)
        hole = None if mask is None else (open_mask(mask, (width, height))[0, 0] * 255).byte().numpy()
        shown = None if exemplar is None else read_picture(exemplar)
        try:
            return self.recipe(picture, pixels, rng, hole, shown)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
