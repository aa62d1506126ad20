"""The checkpoints of a training: the last state to resume from, and the best weights."""

import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint

from ldm.checkpoints.io import read_metadata, save_tensors
from ldm.training.loop.average import Averages
from ldm.training.loop.checkpoint_folder import WEIGHTS
from ldm.training.loop.guard import Guard
from ldm.training.loop.signals import Signals, Stopped
from ldm.utils.errors import UserError
from ldm.utils.nearest import nearest
from ldm.utils.random import key_seed


class Seeded(pl.Callback):
    """A callback that reseeds PyTorch's global generators (dropout) for each batch from (seed, step, batch, rank).

    So their state need not be saved. Our own draws do not use them.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, training: pl.LightningModule, batch: Any, index: int) -> None:
        torch.manual_seed(key_seed(training.seed, "global", trainer.global_step, index, trainer.global_rank))
        # Lightning logs under its own count of steps, which is off by one after a resume
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


class Checkpoints(Checkpoint):
    """A callback that saves `last`, from which a run resumes bitwise, and `best`, the weights of the best validation.

    `last` is written every `every` minutes, after the last step, and when a signal asks to stop; always between two
    optimizer steps. (Lightning's ModelCheckpoint saves the end, if at all, with an unfinished epoch marked as finished:
    a longer training would not resume from there as if never interrupted.) Several processes agree on saving and
    stopping every `log_every_n_steps` steps, so that they need not synchronise in the other steps.

    Args:
        folder: parent of `last/` and `best/`.
        guard: called before anything is saved; raises if the training has gone wrong.
        every: minutes; None writes `last` only when a signal asks to stop.
        without: prefixes of names that are in files of their own and left out.
        monitor: {"metric": "val/loss", "mode": "min" or "max"}, the criterion of `best`; None keeps no best weights.
    """

    def __init__(
        self,
        folder: Path,
        averages: Averages,
        guard: Guard,
        every: float | None,
        without: tuple[str, ...] = (),
        monitor: dict[str, str] | None = None,
    ):
        self.last, self.best = folder / "last", folder / "best" / WEIGHTS
        self.averages, self.guard, self.signals = averages, guard, Signals()
        self.every, self.without, self.monitor = every, without, monitor

    def on_sanity_check_start(self, *_: Any) -> None:
        self.signals.listen()  # not earlier: Lightning would wrap these in handlers of its own

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.signals.listen()
        # Lightning synchronises in each batch to ask whether the first process got SIGTERM; see `_agree`
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        self.step, self.time = trainer.global_step, time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:  # in the middle of gradient accumulation, which a checkpoint cannot hold
            return
        self.step = trainer.global_step
        end = trainer.should_stop or self.step >= trainer.max_steps
        signum, due = (0, self.every is not None) if end else self._agree(trainer, training)
        if signum or due:
            self.save(trainer)
        if signum:
            raise Stopped(signum, self.step)

    def _agree(self, trainer: pl.Trainer, training: pl.LightningModule) -> tuple[int, bool]:
        """Return the signal that asks to stop, or 0, and whether it is time to save: the same in all processes."""
        own = self.signals.received, self.every is not None and time.monotonic() - self.time >= 60 * self.every
        if trainer.world_size == 1:
            return own
        if self.step % trainer.log_every_n_steps:
            return 0, False
        signum, due = trainer.strategy.reduce(torch.tensor(own, device=training.device), reduce_op="max").tolist()
        return signum, bool(due)

    def save(self, trainer: pl.Trainer) -> None:
        """Write `last`, unless the training has gone wrong.

        Raises:
            UserError: it has, or the disk is full; the previous checkpoint remains.
        """
        self.guard.check(trainer)
        trainer.save_checkpoint(self.last)
        self.time = time.monotonic()

    def on_save_checkpoint(self, trainer: pl.Trainer, training: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["weights"] = self.averages.weights(training, self.without)
        checkpoint["state_dict"] = self.averages.remainder(training)

    def on_validation_end(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        if self.monitor is None:
            return
        metric, mode = self.monitor["metric"], self.monitor["mode"]
        if metric not in trainer.callback_metrics:
            known = [name for name in trainer.callback_metrics if name.startswith("val/")]
            raise UserError(
                f"monitor.metric {metric}: not a metric of this training's validation; {nearest(metric, known)}"
            )
        if trainer.sanity_checking:
            return
        self.guard.check(trainer)
        value = float(trainer.callback_metrics[metric])
        if trainer.is_global_zero and math.isfinite(value) and self._is_better(metric, mode, value):
            metadata = {"step": str(trainer.global_step), metric: repr(value)}
            self.best.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(self.best, self.averages.weights(training, self.without), metadata, torch.float32)

    def _is_better(self, metric: str, mode: str, value: float) -> bool:
        """Compare a value with the one recorded in the current best weights, which a resumed run finds too."""
        record = read_metadata(self.best).get(metric) if self.best.exists() else None
        return record is None or (value < float(record) if mode == "min" else value > float(record))
