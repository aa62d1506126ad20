"""Unreadable files are replaced, counted, listed and, where there are many, refused."""

import logging
import traceback
from random import Random

import pytest
from torch.utils.data import DataLoader

from ldm.data.images import TolerantDataset
from ldm.utils.errors import UserError
from tests.refusals import assert_line, refused


class Numbers(TolerantDataset):
    """Items {"place", "draw"}; those in `bad` cannot be read."""

    def __init__(self, length: int, bad: set[int], max_unreadable: float = 0.5, seed: int = 0):
        super().__init__(seed, max_unreadable)
        self.length, self.bad = length, bad

    def __len__(self) -> int:
        return self.length

    def item(self, place: int, rng: Random) -> dict:
        if place in self.bad:
            raise UserError(f"{place}.jpg: cannot be read as an image")
        return {"place": place, "draw": rng.getrandbits(60)}


def read(data: Numbers, indices: range, workers: int = 0) -> list[tuple[int, int]]:
    loader = DataLoader(data, batch_size=4, sampler=indices, num_workers=workers)
    return [pair for batch in loader for pair in zip(*(column.tolist() for column in batch.values()), strict=True)]


def test_an_unreadable_item_is_replaced_by_one_that_seed_epoch_and_index_decide():
    whole, part = Numbers(10, set()), Numbers(10, {3, 7})
    items, rest = read(part, range(200)), read(whole, range(200))
    for index, (item, original) in enumerate(zip(items, rest, strict=True)):
        assert (item == original) == (index % 10 not in (3, 7))
    instead = [place for index, (place, _) in enumerate(items) if index % 10 in (3, 7)]
    assert set(instead) == set(range(10)) - {3, 7}  # not always the neighbour
    assert [part[index] for index in reversed(range(200))] == [
        dict(zip(("place", "draw"), i, strict=True)) for i in items[::-1]
    ]
    assert read(Numbers(10, {3, 7}, seed=1), range(200)) != items
    assert read(Numbers(10, {3, 7}), range(200), workers=2) == items


def test_each_file_is_listed_once_and_reads_are_counted_over_all_workers(caplog):
    data = Numbers(10, {3, 7})
    with caplog.at_level(logging.WARNING):
        assert len(read(data, range(40))) == 40
    first, second = sorted(record.getMessage() for record in caplog.records)
    assert_line(first, "3.jpg")
    assert_line(second, "7.jpg")
    bad, reads = data.unreadable
    assert bad >= 8 and reads == 40 + bad  # a replacement may be unreadable too
    for workers in (1, 2):
        spread = Numbers(10, {3, 7})
        read(spread, range(40), workers)
        assert spread.unreadable == (bad, reads)


def test_a_few_failures_are_chance_and_more_than_the_set_rate_stop_the_run():
    few = Numbers(1000, set(range(0, 1000, 250)), max_unreadable=0.01)
    assert len(read(few, range(1000))) == 1000
    many = Numbers(1000, set(range(0, 1000, 10)), max_unreadable=0.01)
    with refused(5, 45, "max_unreadable", 0.01, "40.jpg"):
        read(many, range(1000))
    with refused(5, "max_unreadable", 0.1, "0.jpg"):
        Numbers(1, {0}, max_unreadable=0.1)[0]
    with refused("max_unreadable", 0.99):
        Numbers(3, {0, 1, 2}, max_unreadable=0.99)[0]


@pytest.mark.parametrize("share", [-0.1, 1, 2])
def test_the_limit_is_a_share(share):
    with refused("max_unreadable", share):
        Numbers(3, set(), max_unreadable=share)


def test_a_workers_error_is_still_one_line():
    """Torch packs a worker's traceback into the message of the error that it raises again."""
    with refused(5, "max_unreadable", 0, ".jpg") as stopped:
        read(Numbers(50, set(range(50)), max_unreadable=0.0), range(50), workers=1)
    assert "Traceback" not in str(stopped.value) and "worker" not in str(stopped.value)
    # and so it does when the error had a cause
    try:
        try:
            raise UserError("inner")
        except UserError as error:
            raise UserError("FILE: why") from error
    except UserError as error:
        packed = f"Caught UserError in worker.\nOriginal {''.join(traceback.format_exception(error))}"
    assert str(UserError(packed)) == "FILE: why"
    assert str(UserError("two\nlines")) == "two\nlines"
