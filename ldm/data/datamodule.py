"""Data sets for Lightning: the items of a step are a function of (seed, step), on any number of devices."""

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

    An epoch visits every item once, in an order drawn from (seed, epoch), cut into whole global batches; an incomplete
    last one is dropped. Process `rank` takes every `replicas`-th item of a global batch, starting at the `rank`-th. The
    indices of an `Epochs` data set keep counting through the epochs.
    """

    def __init__(self, data: Dataset, batch_size: int, seed: int, first: int, last: int, rank: int, replicas: int):
        self.size, self.numbered = len(data), isinstance(data, Epochs)
        self.batch_size, self.seed = batch_size, seed
        self.first, self.last = first, last
        self.rank, self.replicas = rank, replicas

    def __len__(self) -> int:
        """Count the items from step 0: Lightning compares the number with the batches already seen by a resumed run."""
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
    """Items `rank`, `rank + replicas`, ...: equally many for every rank, so the last ones wrap around to item 0."""

    def __init__(self, data: Dataset, rank: int, replicas: int):
        self.size, self.rank, self.replicas = len(data), rank, replicas

    def __len__(self) -> int:
        return -(-self.size // self.replicas)

    def __iter__(self) -> Iterator[int]:
        return iter((k * self.replicas + self.rank) % self.size for k in range(len(self)))


class StatelessLoader(DataLoader):
    """A loader without state: a resumed run continues with the right item from its step alone."""

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        pass


def leave_signals_to_training(worker: int) -> None:
    """Keep a loading process alive when the training is asked to stop, so that the last step can finish.

    Ctrl-C and schedulers signal all processes. A second SIGTERM ends the worker: it may come from the training itself.
    """
    for name in ("SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


class DataModule(pl.LightningDataModule):
    """Batches of `train`, in a new order each epoch, and of `validation`, always the same.

    A step's batch is the same set of items on any number of devices, and a resumed run continues with the items of its
    next step: both follow from (seed, step). To Lightning the whole training is one epoch of the Trainer's `max_steps`;
    the Trainer must not install samplers of its own (`use_distributed_sampler=False`).

    Args:
        train, validation: data sets, already built; validation is optional.
        validation_items: validate on only the first that many items.
        batch_size: items per optimizer step, over all devices.
        batch_per_device: most items that one device holds at once; the rest is accumulated. None: no limit.
        num_workers: processes per loader; the items do not depend on it.

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
            raise UserError(f"batch_size {batch_size}: expected 1 to {len(train)}, the number of training items")
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
        """Split the batch among the devices; return how many smaller batches each one accumulates.

        Raises:
            UserError: it cannot be split evenly.
        """
        share, rest = divmod(self.batch_size, devices)
        if rest:
            raise UserError(f"batch_size {self.batch_size}: expected a multiple of the {devices} devices")
        self.loaded_at_once = min(share, self.batch_per_device or share)
        if share % self.loaded_at_once:
            raise UserError(
                f"batch_size {self.batch_size}: each of {devices} devices gets {share} items, expected a multiple of "
                f"batch_per_device {self.batch_per_device}"
            )
        return share // self.loaded_at_once

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        # Lightning derives from its count of batches when gradients are due. A resumed run has that count from its
        # checkpoint, which may come from another number of devices.
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
