"""Data sets to Lightning: the order of the items is a function of (seed, epoch)."""

from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ldm.utils.errors import UserError
from ldm.utils.random import generator


class EpochSampler(Sampler[int]):
    """All indices of a data set in an order drawn from (seed, epoch).

    Lightning calls `set_epoch` as each epoch begins, after a resume too; the data set is told of it.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed, self.epoch = dataset, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(len(self.dataset), generator=generator(self.seed, "order", self.epoch))
        return iter(order.tolist())


class DataModule(pl.LightningDataModule):
    """Batches of `train` in a new order each epoch, without a smaller last one, and of `validation` in their own order.

    Args:
        train, validation: data sets, already built; without `validation` there is no validation.
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
        return self._loader(self.train, sampler=EpochSampler(self.train, self.seed), drop_last=True)

    def val_dataloader(self) -> DataLoader | list:
        return [] if self.validation is None else self._loader(self.validation)

    def _loader(self, dataset: Dataset, sampler: Sampler | None = None, drop_last: bool = False) -> DataLoader:
        return DataLoader(
            dataset,
            self.batch_size,
            sampler=sampler,
            drop_last=drop_last,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
