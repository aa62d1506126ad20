"""A training that has gone wrong stops, and says what to go back to."""

import math
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from ldm.training.loop.step_losses import Smoothed, StepLosses, loss_of
from ldm.utils.errors import UserError

WARM_UP = 100  # steps until the smoothed loss is believed: it weighs about 50, and single losses differ by factors
EARLY = 10  # losses that a run begins with
FACTOR = 10  # of the lowest smoothed loss; a diffusion loss falls from 1 to about a tenth, and diverging takes it back
SKIPS = 20  # fp16: so many steps in a row may be skipped; the scale begins at 2**16 and is halved by each
LOOK_EVERY = 50  # steps, for a trainer that logs nothing


class Guard(Callback):
    """Stops when the loss is not finite or diverges: its smoothed value is above `FACTOR` times its lowest so far and
    above where it was after `WARM_UP` steps (a loss near 0 may multiply without harm); or, after `WARM_UP` steps, above
    `FACTOR` times the largest of the first `EARLY` losses.

    The losses are looked at every `log_every_n_steps` steps and by `check`, of all processes together: all stop at
    once. A step that the scaler of fp16 skips changes no weight, so that a few of them are let pass. `training_step`
    may return a `watched` loss beside `loss`, where the latter changes its meaning on the way (a term that joins late).

    Args:
        last: the folder of the last checkpoint, named in the message if it exists, and so is `best` beside it.

    Raises:
        UserError: from `on_train_batch_end`, `on_train_end` and `check`.
    """

    def __init__(self, last: Path):
        self.last = last
        self.first = self.lowest = math.inf  # smoothed
        self.early = 0.0  # the largest
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
        """To be called by every process before anything is saved: the losses up to now and the weights are sound."""
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
                        trainer, f"the loss diverges: {value:.4g} at step {step}, it began with {self.early:.4g}"
                    )
                self.first = value
            if value > max(FACTOR * self.lowest, self.first) and self.lowest > 0:  # no factor of a negative loss
                raise self._error(trainer, f"the loss diverges: {value:.4g} at step {step}, it was {self.lowest:.4g}")
            self.lowest = min(self.lowest, value)

    def _error(self, trainer: pl.Trainer, why: str) -> UserError:
        best = self.last.with_name("best")
        found = [f"{name} {path}" for name, path in (("the last", self.last), ("the best", best)) if path.exists()]
        where = f"good checkpoints: {', '.join(found)}" if found else "there is no checkpoint yet"
        return UserError(f"training stopped at step {trainer.global_step}: {why}; {where}")
