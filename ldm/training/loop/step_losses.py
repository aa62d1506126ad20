"""The losses of a training's steps, collected without waiting for the device in each step."""

import math

import pytorch_lightning as pl
import torch
from torch import Tensor

DECAY = 0.98  # of the smoothed loss per step: a mean over about 50 steps


class StepLosses:
    """The losses since the last `take`. They stay on the device until then: reading one would wait for its step."""

    def __init__(self, step: int):
        self.step = step  # optimizer steps done
        self.parts: list[Tensor] = []  # one per micro-batch
        self.count = 0  # whole steps among them

    def add(self, step: int, loss: Tensor) -> bool:
        """Add a micro-batch's loss and the number of steps done; return whether it completed an optimizer step."""
        self.parts.append(loss.detach())
        ended = step > self.step
        self.step, self.count = step, self.count + ended
        return ended

    def take(self) -> Tensor:
        """Return and forget the mean losses (n,) float32 of the last n steps, up to number `step`.

        Call it only after a complete step.
        """
        if not self.count:
            return torch.empty(0)
        means = torch.stack(self.parts).float().view(self.count, -1).mean(1)
        self.parts, self.count = [], 0
        return means


def loss_of(outputs: dict, trainer: pl.Trainer) -> Tensor:
    """Return the loss of a `training_step`, which Lightning has divided by the number of accumulated micro-batches."""
    return outputs["loss"] * trainer.accumulate_grad_batches


class Smoothed:
    """Exponential mean, unbiased from the first value on (divided by the sum of its weights), of finite values."""

    def __init__(self):
        self.sum = self.weight = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        if math.isfinite(value):
            self.sum = DECAY * self.sum + (1 - DECAY) * value
            self.weight = DECAY * self.weight + (1 - DECAY)
            self.count += 1

    @property
    def value(self) -> float:
        """The mean, NaN before the first value."""
        return self.sum / self.weight if self.count else math.nan
