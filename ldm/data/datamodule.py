"""Data sets to Lightning: the order of the items is a function of (seed, epoch)."""

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ldm.utils.errors import UserError
from ldm.utils.random import generator


class EpochSampler(Sampler[int]):
    """All indices of a data set in an order drawn from (seed, epoch), dealt out in turn to `replicas` processes.

    Process `rank` takes every `replicas`-th from the `rank`-th; a rest that does not go round is left out. Lightning
    calls `set_epoch` as each epoch begins, after a resume too; the data set is told of it.
    """

    def __init__(self, dataset: Dataset, seed: int, rank: int = 0, replicas: int = 1):
        self.dataset, self.seed, self.epoch = dataset, seed, 0
        self.rank, self.replicas = rank, replicas
        self.skip = 0  # leave out so many of the next epoch's first items, once: a resumed epoch has seen them

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset) // self.replicas

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self.dataset), generator=generator(self.seed, "order", self.epoch))
        skip, self.skip = self.skip, 0
        return iter(order[self.rank :: self.replicas][skip : len(self)].tolist())


class ResumableLoader(DataLoader):
    """A loader whose place in the epoch is saved with a checkpoint and taken up again by a resumed run."""

    taken = 0  # batches given out in this epoch

    def __iter__(self) -> Iterator:
        self.taken = self.sampler.skip // self.batch_size
        for batch in super().__iter__():
            self.taken += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"taken": self.taken % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.skip = state["taken"] * self.batch_size


class DataModule(pl.LightningDataModule):
    """Batches of `train` in a new order each epoch, without a smaller last one, and of `validation` in their own order.

    Args:
        train, validation: data sets, already built; without `validation` there is no validation. On several devices
            (a Trainer with `use_distributed_sampler=False`) each trains on a part and validates on everything.
        batch_size: per device.
        num_workers: loading processes a loader; the items do not depend on it.
    """

    def __init__(
        self, train: Dataset, batch_size: int, validation: Dataset | None = None, num_workers: int = 0, seed: int = 0
    ):
        super().__init__()
        if len(train) < batch_size:
            raise UserError(f"batch_size {batch_size}: the training data has {len(train)} items only")
        self.train, self.validation = train, validation
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed

    def train_dataloader(self) -> DataLoader:
        rank, replicas = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EpochSampler(self.train, self.seed, rank, replicas)
        if len(sampler) < self.batch_size:
            raise UserError(f"batch_size {self.batch_size}: {len(sampler)} items only for each of {replicas} devices")
        return ResumableLoader(self.train, sampler=sampler, drop_last=True, **self._options())

    def val_dataloader(self) -> DataLoader | list:
        return [] if self.validation is None else DataLoader(self.validation, **self._options())

    def _options(self) -> dict:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }
