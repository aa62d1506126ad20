"""Data sets to Lightning: which items a step sees is a function of (seed, step), on any number of devices."""

import signal
from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, Subset

from ldm.data.images import Epochs
from ldm.utils.errors import UserError
from ldm.utils.random import generator


class StepSampler(Sampler[int]):
    """The indices that one of `replicas` processes loads for the optimizer steps from `first` to `last`.

    An epoch is every item once, in an order drawn from (seed, epoch), cut into whole global batches; a rest that fills
    none is left out. Within a global batch process `rank` takes every `replicas`-th item from the `rank`-th. The items
    of an `Epochs` data set are asked for under indices that count on through the epochs.
    """

    def __init__(self, data: Dataset, batch_size: int, seed: int, first: int, last: int, rank: int, replicas: int):
        self.size, self.numbered = len(data), isinstance(data, Epochs)
        self.batch_size, self.seed = batch_size, seed
        self.first, self.last = first, last
        self.rank, self.replicas = rank, replicas

    def __len__(self) -> int:
        """From step 0 on: Lightning compares it with the batches that a resumed run has behind it."""
        return self.last * self.batch_size // self.replicas

    def __iter__(self) -> Iterator[int]:
        epoch, steps, order = None, self.size // self.batch_size, []
        for step in range(self.first, self.last):
            if step // steps != epoch:
                epoch = step // steps
                order = torch.randperm(self.size, generator=generator(self.seed, "order", epoch)).tolist()
            start = step % steps * self.batch_size
            for index in order[start + self.rank : start + self.batch_size : self.replicas]:
                yield index + epoch * self.size * self.numbered


class ShareSampler(Sampler[int]):
    """Items `rank`, `rank + replicas`, ...: as many for every rank, so the last ones begin again at item 0."""

    def __init__(self, data: Dataset, rank: int, replicas: int):
        self.size, self.rank, self.replicas = len(data), rank, replicas

    def __len__(self) -> int:
        return -(-self.size // self.replicas)

    def __iter__(self) -> Iterator[int]:
        return iter((k * self.replicas + self.rank) % self.size for k in range(len(self)))


class StatelessLoader(DataLoader):
    """Tells Lightning that nothing has to be saved for a resumed run to go on with the right item."""

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


def leave_signals_to_training(worker: int) -> None:
    """A loading process outlives what tells the training to stop, for it has a last step to finish.

    Ctrl-C and schedulers signal all processes. A second SIGTERM ends it, as the training may mean it.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


class DataModule(pl.LightningDataModule):
    """Batches of `train`, in a new order each epoch, and of `validation`, always the same.

    A step's batch is the same set of items however many devices share it, and a resumed run goes on with the items of
    its next step: both follow from (seed, step). The whole training is one epoch to Lightning, as long as its Trainer's
    `max_steps`; the Trainer must not put samplers of its own in place (`use_distributed_sampler=False`).

    Args:
        train, validation: data sets, already built; without `validation` there is no validation.
        validation_items: validate on the first so many only.
        batch_size: items of one optimizer step, over all devices.
        batch_per_device: the most that one device holds at once; more than that is accumulated. None: no limit.
        num_workers: loading processes a loader; the items do not depend on it.

    Raises:
        UserError: the data has fewer items than one batch; see also `divide`.
    """

    def __init__(
        self,
        train: Dataset,
        batch_size: int,
        batch_per_device: int | None = None,
        validation: Dataset | None = None,
        validation_items: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        if not 0 < batch_size <= len(train):
            raise UserError(f"batch_size {batch_size}: expected 1 to {len(train)}, the items of the training data")
        if batch_per_device is not None and batch_per_device < 1:
            raise UserError(f"batch_per_device {batch_per_device}: expected a positive number, or null for no limit")
        if validation is not None and validation_items is not None:
            validation = Subset(validation, range(min(validation_items, len(validation))))
        self.train, self.validation = train, validation
        self.batch_size, self.batch_per_device = batch_size, batch_per_device
        self.num_workers, self.seed = num_workers, seed
        self.loaded_at_once = batch_size

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train) // self.batch_size

    def divide(self, devices: int) -> int:
        """Share the batch among so many devices; returns over how many smaller batches each accumulates gradients.

        Raises:
            UserError: it does not go round.
        """
        share, rest = divmod(self.batch_size, devices)
        if rest:
            raise UserError(f"batch_size {self.batch_size}: does not divide by {devices} devices")
        self.loaded_at_once = min(share, self.batch_per_device or share)
        if share % self.loaded_at_once:
            raise UserError(
                f"batch_size {self.batch_size}: the share of each of {devices} devices, {share}, does not divide by "
                f"batch_per_device {self.batch_per_device}"
            )
        return share // self.loaded_at_once

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        # A resumed run has Lightning's count of batches from its checkpoint, which other devices may have shared
        # otherwise: when gradients are due is told from it.
        progress = trainer.fit_loop.epoch_loop.batch_progress
        done = trainer.global_step * trainer.accumulate_grad_batches
        for counts in (progress.current, progress.total):
            counts.ready = counts.started = counts.processed = counts.completed = done
        steps = trainer.global_step, trainer.max_steps
        sampler = StepSampler(self.train, self.batch_size, self.seed, *steps, trainer.global_rank, trainer.world_size)
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader | list:
        if self.validation is None:
            return []
        sampler = ShareSampler(self.validation, self.trainer.global_rank, self.trainer.world_size)
        return self._loader(self.validation, sampler)

    def _loader(self, data: Dataset, sampler: Sampler) -> DataLoader:
        return StatelessLoader(
            data,
            sampler=sampler,
            batch_size=self.loaded_at_once,
            num_workers=self.num_workers,
            worker_init_fn=leave_signals_to_training,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
