"""A guard that stops a diverged training and names the checkpoints to return to."""

import math
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from ldm.training.loop.step_losses import Smoothed, StepLosses, loss_of
from ldm.utils.errors import UserError

WARM_UP = 100  # steps until the smoothed loss is reliable: it averages about 50, and single losses vary widely
EARLY = 10  # first losses of a run
FACTOR = 10  # allowed rise of the loss; a diffusion loss falls from 1 to about a tenth, diverging undoes that
SKIPS = 20  # fp16: most steps skipped in a row; the scale starts at 2**16 and is halved by each
LOOK_EVERY = 50  # steps, for a trainer that logs nothing


class Guard(Callback):
    """A callback that stops the training when the loss is not finite or diverges.

    It diverges when its smoothed value exceeds `FACTOR` times its lowest value so far and the value after `WARM_UP`
    steps (a loss near 0 may multiply without harm); or, at `WARM_UP` steps, `FACTOR` times the largest of the first
    `EARLY` losses.

    The losses, averaged over all processes, are examined every `log_every_n_steps` steps and by `check`, so that all
    processes stop together. A step that the scaler of fp16 skips changes no weight, so a few of them are tolerated.
    `training_step` may return a `watched` loss besides `loss` if the latter changes its meaning (a term that joins
    late).

    Args:
        last: folder of the last checkpoint; the message names it and `best` next to it if they exist.

    Raises:
        UserError: from `on_train_batch_end`, `on_train_end` and `check`.
    """

    def __init__(self, last: Path):
        self.last = last
        self.first = self.lowest = math.inf  # smoothed
        self.early = 0.0  # largest
        self.smoothed, self.skipped = Smoothed(), 0

    def state_dict(self) -> dict[str, float]:
        return {"first": self.first, "lowest": self.lowest}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.first, self.lowest = state["first"], state["lowest"]

    def on_train_start(self, trainer: pl.Trainer, *_) -> None:
        self.losses = StepLosses(trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, training: pl.LightningModule, outputs: dict, *_) -> None:
        loss = outputs["watched"] if "watched" in outputs else loss_of(outputs, trainer)
        ended = self.losses.add(trainer.global_step, loss)
        if ended and trainer.global_step % (trainer.log_every_n_steps or LOOK_EVERY) == 0:
            self._look(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_) -> None:
        self.check(trainer)

    def check(self, trainer: pl.Trainer) -> None:
        """Check that all losses and weights are sound; every process must call it before anything is saved."""
        self._look(trainer)
        for name, weight in trainer.lightning_module.named_parameters():
            if weight.requires_grad and not torch.isfinite(weight).all():
                raise self._error(trainer, f"the weights {name} are no longer finite")

    def _look(self, trainer: pl.Trainer) -> None:
        losses = self.losses.take()
        if not len(losses):
            return
        losses = trainer.strategy.reduce(losses, reduce_op="mean").tolist()
        allowed = SKIPS if getattr(trainer.precision_plugin, "scaler", None) is not None else 0
        for step, loss in enumerate(losses, self.losses.step - len(losses) + 1):
            self.skipped = 0 if math.isfinite(loss) else self.skipped + 1
            if self.skipped > allowed:
                raise self._error(trainer, f"the loss of step {step} is {loss}")
            self.smoothed.add(loss)
            if self.smoothed.count <= EARLY and math.isfinite(loss):
                self.early = max(self.early, loss)
            if self.smoothed.count < WARM_UP:
                continue
            value = self.smoothed.value
            if math.isinf(self.first):
                if value > FACTOR * self.early > 0:
                    raise self._error(
                        trainer, f"the loss diverges: {value:.4g} at step {step}, up from {self.early:.4g} at the start"
                    )
                self.first = value
            if (
                value > max(FACTOR * self.lowest, self.first) and self.lowest > 0
            ):  # a factor is meaningless for a negative loss
                raise self._error(trainer, f"the loss diverges: {value:.4g} at step {step}, up from {self.lowest:.4g}")
            self.lowest = min(self.lowest, value)

    def _error(self, trainer: pl.Trainer, why: str) -> UserError:
        best = self.last.with_name("best")
        found = [f"{name} {path}" for name, path in (("the last", self.last), ("the best", best)) if path.exists()]
        where = f"good checkpoints: {', '.join(found)}" if found else "there is no checkpoint yet"
        return UserError(f"training stopped at step {trainer.global_step}: {why}; {where}")
