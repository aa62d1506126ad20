"""What a training keeps: the last state to go on from, and the weights that were best."""

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
    """PyTorch's global generators (dropout) restart each batch from (seed, step, batch, rank): nothing to save of them.

    Our own draws do not use them.
    """

    def on_train_batch_start(self, trainer: pl.Trainer, training: pl.LightningModule, batch: Any, index: int) -> None:
        torch.manual_seed(key_seed(training.seed, "global", trainer.global_step, index, trainer.global_rank))
        # Lightning logs under its own count of steps, which is one less after a resume
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


class Checkpoints(Checkpoint):
    """Saves `last`, from which a run goes on bitwise, and `best`, the weights of the best validation.

    `last` is written every `every` minutes, after the last step, and when a signal asks to stop; always between two
    optimizer steps. (Lightning's ModelCheckpoint saves the end, if at all, when an unfinished epoch counts as finished:
    a longer training would not go on from there as if never interrupted.) Several processes agree on saving and
    stopping every `log_every_n_steps` steps, so that the others do not wait for each other.

    Args:
        folder: gets `last/` and `best/`.
        guard: is asked before anything is saved, and raises if the training has gone wrong.
        every: minutes; None writes `last` only when a signal asks to stop.
        without: names that start so are in files of their own and left out.
        monitor: {"metric": "val/loss", "mode": "min" or "max"}, what `best` goes by; None keeps no best weights.
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
        self.signals.listen()  # not before: Lightning would put handlers of its own around these

    def on_train_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        self.signals.listen()
        # Lightning asks in each batch whether the first process got SIGTERM, and waits for the answer; see `_agree`
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
        self.step, self.time = trainer.global_step, time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step:  # amid accumulated gradients, which a checkpoint does not hold
            return
        self.step = trainer.global_step
        end = trainer.should_stop or self.step >= trainer.max_steps
        signum, due = (0, self.every is not None) if end else self._agree(trainer, training)
        if signum or due:
            self.save(trainer)
        if signum:
            raise Stopped(signum, self.step)

    def _agree(self, trainer: pl.Trainer, training: pl.LightningModule) -> tuple[int, bool]:
        """The signal to stop by, 0 for none, and whether it is time to save: the same answer in all processes."""
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
            UserError: it has, or the disk is full; the checkpoint before this one is left as it is.
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
            raise UserError(f"monitor.metric {metric}: this training's validation has it not; {nearest(metric, known)}")
        if trainer.sanity_checking:
            return
        self.guard.check(trainer)
        value = float(trainer.callback_metrics[metric])
        if trainer.is_global_zero and math.isfinite(value) and self._is_better(metric, mode, value):
            metadata = {"step": str(trainer.global_step), metric: repr(value)}
            self.best.parent.mkdir(parents=True, exist_ok=True)
            save_tensors(self.best, self.averages.weights(training, self.without), metadata, torch.float32)

    def _is_better(self, metric: str, mode: str, value: float) -> bool:
        """Than the weights that are there, which say it themselves: a resumed run knows it too."""
        record = read_metadata(self.best).get(metric) if self.best.exists() else None
        return record is None or (value < float(record) if mode == "min" else value > float(record))
