"""What every training shares: AdamW, the learning rate's course, and which weights are written out."""

from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor


@dataclass(frozen=True)
class Optimisation:
    """How the weights move.

    Args:
        learning_rate: the plateau's, used as it is: never scaled by batch or world size.
        weight_decay: AdamW's, on tensors of two or more dimensions (not on biases, norms and vectors).
        warmup_steps: linear rise from 0 over so many optimizer steps.
        cooldown: the fraction of `max_steps` at the end over which the rate falls linearly to 0.
        seed: every random draw of a step is a function of (seed, optimizer step, batch, rank).
    """

    learning_rate: float
    weight_decay: float
    warmup_steps: int
    cooldown: float
    seed: int


class Training(pl.LightningModule):
    """A network being trained. Subclasses hold networks and define `training_step`."""

    def __init__(self, optimisation: Optimisation):
        super().__init__()
        self.optimisation = optimisation
        self.seed = optimisation.seed

    def weights(self) -> dict[str, Tensor]:
        """What `weights.safetensors` holds when training ends, under the names that `ldm.load` reads."""
        raise NotImplementedError

    def rate(self, step: int) -> float:
        """The learning rate at a step as a fraction of the plateau: a trapezoid."""
        total, chosen = self.trainer.max_steps, self.optimisation
        rise = (step + 1) / max(chosen.warmup_steps, 1)
        fall = max(total - step, 1) / max(chosen.cooldown * total, 1)  # asked for `total` too: a longer run's next step
        return min(rise, 1.0, fall)

    def configure_optimizers(self):
        trained = [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.optimisation.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.optimisation.learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def report(self, **values: Tensor) -> None:
        """Log scalars of this step to the files and the progress bar."""
        self.log_dict({f"train/{name}": value.detach() for name, value in values.items()}, prog_bar=True)
