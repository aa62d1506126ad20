"""The losses of a training's steps, without a step that waits for the device to know them."""

import math

import pytorch_lightning as pl
import torch
from torch import Tensor

DECAY = 0.98  # of the smoothed loss, a step: a mean over about 50 steps


class StepLosses:
    """The losses since somebody looked. They stay where they are until then: reading one would wait for its step."""

    def __init__(self, step: int):
        self.step = step  # optimizer steps done
        self.parts: list[Tensor] = []  # one a micro-batch
        self.count = 0  # whole steps among them

    def add(self, step: int, loss: Tensor) -> bool:
        """Take a micro-batch's loss, with the steps done after it; returns whether an optimizer step ended with it."""
        self.parts.append(loss.detach())
        ended = step > self.step
        self.step, self.count = step, self.count + ended
        return ended

    def take(self) -> Tensor:
        """(n,) float32: the mean loss of each of the n last steps, the last of them number `step`; empties the list.

        To be called when a step has ended.
        """
        if not self.count:
            return torch.empty(0)
        means = torch.stack(self.parts).float().view(self.count, -1).mean(1)
        self.parts, self.count = [], 0
        return means


def loss_of(outputs: dict, trainer: pl.Trainer) -> Tensor:
    """The loss that a `training_step` returned; Lightning divides it by the number of parts of an accumulated batch."""
    return outputs["loss"] * trainer.accumulate_grad_batches


class Smoothed:
    """Exponential mean, true to the first values too (divided by the sum of its weights); skips what is not finite."""

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
        """NaN before the first value."""
        return self.sum / self.weight if self.count else math.nan
