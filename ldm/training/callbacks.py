"""What happens beside the steps of a training: moving averages of the weights, and checkpoints to go on from."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint, WeightAveraging


class MovingAverage(WeightAveraging):
    """Exponential moving average of the trained weights, warmed up as min(decay, (1 + n) / (10 + n)) over updates n."""

    def __init__(self, decay: float):
        @torch.no_grad()
        def update(averaged: list[torch.Tensor], current: list[torch.Tensor], n: torch.Tensor) -> None:
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + int(n)) / (10 + int(n))))

        super().__init__(use_buffers=False, multi_avg_fn=update)

    def on_fit_start(self, trainer: pl.Trainer, training: pl.LightningModule) -> None:
        """Follow the weights to their device, where they were not yet in `setup`; share those that are not trained."""
        self._average_model.to(training.device)
        for average, current in zip(self.averaged.parameters(), training.parameters(), strict=True):
            if not current.requires_grad:
                average.data = current.data

    @property
    def averaged(self) -> pl.LightningModule:
        """The training with the averages as its weights, once fitting has begun."""
        return self._average_model.module


class LastCheckpoint(Checkpoint):
    """Writes the state of the training to one file, every so often and after the last step.

    Lightning's ModelCheckpoint saves the end, if at all, when the averages have taken the weights' place and an
    unfinished epoch counts as finished: a longer training would not go on from there as if never interrupted.
    """

    def __init__(self, path: Path, every: timedelta):
        self.path, self.every = path, every

    def on_train_start(self, trainer: pl.Trainer, *_) -> None:
        self.step, self.time = trainer.global_step, time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_) -> None:
        if trainer.global_step == self.step:  # amid accumulated gradients, which a checkpoint does not hold
            return
        self.step = trainer.global_step
        end = trainer.should_stop or trainer.global_step >= trainer.max_steps
        if end or trainer.strategy.broadcast(time.monotonic() - self.time >= self.every.total_seconds()):
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                os.replace(temporary, self.path)
            self.time = time.monotonic()
