"""The base of every training: AdamW, the learning rate schedule, random draws, and which weights are written."""

from dataclasses import dataclass

import pytorch_lightning as pl
import torch
from torch import Tensor

from ldm.utils.random import NoiseSource, key_seed


@dataclass(frozen=True)
class Optimisation:
    """Settings of the optimizer and of the learning rate schedule.

    Args:
        learning_rate: rate of the plateau, never scaled by batch or world size.
        weight_decay: weight decay of AdamW on tensors of two or more dimensions (not on biases, norms and vectors).
        warmup_steps: optimizer steps of the linear rise from 0.
        cooldown: fraction of `max_steps` at the end over which the rate falls linearly to 0.
        seed: every random draw is a function of (seed, optimizer step, index in the global batch).
        betas: betas of AdamW.
    """

    learning_rate: float
    weight_decay: float
    warmup_steps: int
    cooldown: float
    seed: int
    betas: tuple[float, float] = (0.9, 0.999)


class Training(pl.LightningModule):
    """A network being trained. Subclasses hold networks and define `training_step`.

    There is one optimizer, so that Lightning's `global_step` counts its steps: the position in the data, the learning
    rate and every random draw follow from it, and a resumed run needs nothing else.
    """

    def __init__(self, optimisation: Optimisation):
        super().__init__()
        self.optimisation = optimisation
        self.seed = optimisation.seed
        self._parts: list[dict[str, Tensor]] = []  # values reported for the micro-batches of the current step

    def weights(self) -> dict[str, Tensor]:
        """Return the content of `weights.safetensors`, under the names that `ldm.load` reads."""
        raise NotImplementedError

    def pictures(self, batch: dict) -> dict[str, Tensor]:
        """Return the columns of the panel by name, (B, 3, H, W) in [-1, 1]; no columns by default."""
        return {}

    def places(self, batch_index: int, n: int, of: str = "step") -> Tensor:
        """Return the indices of this process's n items among those of all processes, (n,) int64.

        In training (`of="step"`) they are indices in the global batch of the optimizer step, otherwise in the
        validation set; those beyond its end belong to items that only fill up a batch.
        """
        trainer = self.trainer
        if of == "step":
            batch_index %= trainer.accumulate_grad_batches
        first = batch_index * trainer.datamodule.loaded_at_once
        return (first + torch.arange(n)) * trainer.world_size + trainer.global_rank

    def draws(self, batch_index: int, n: int, of: str = "step") -> NoiseSource:
        """Return random numbers for n items, each a function of (seed, optimizer step, index in the global batch).

        They do not depend on the number of devices. With `of` other than "step", such as "validation", they do not
        depend on the step either: a validation item always gets the same numbers.
        """
        key = (self.seed, of, self.global_step) if of == "step" else (self.seed, of)
        return NoiseSource(key_seed(*key, place) for place in self.places(batch_index, n, of).tolist())

    def rate(self, step: int) -> float:
        """Return the learning rate at a step as a fraction of the plateau: a trapezoid."""
        total, chosen = self.trainer.max_steps, self.optimisation
        rise = (step + 1) / max(chosen.warmup_steps, 1)
        fall = max(total - step, 1) / max(
            chosen.cooldown * total, 1
        )  # also called with `total`: the next step of a longer run
        return min(rise, 1.0, fall)

    def configure_optimizers(self):
        chosen, trained = self.optimisation, [p for p in self.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if not is_vector(p)], "weight_decay": chosen.weight_decay},
            {"params": [p for p in trained if is_vector(p)], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=chosen.learning_rate, betas=tuple(chosen.betas))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Set the rate for the current `max_steps`: a prolonged run does not keep the one in its checkpoint."""
        for group in self.optimizers().param_groups:
            group["lr"] = self.optimisation.learning_rate * self.rate(self.global_step)

    def report(self, **values: Tensor) -> None:
        """Log scalars of this step: means over its global batch."""
        self._parts.append({name: value.detach() for name, value in values.items()})
        if len(self._parts) < self.trainer.accumulate_grad_batches:
            return
        parts, self._parts = self._parts, []
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # otherwise save the communication
            means = torch.stack([torch.stack([part[name] for part in parts]).float().mean() for name in values])
            means = self.trainer.strategy.reduce(means, reduce_op="mean")
            self.log_dict({f"train/{name}": mean for name, mean in zip(values, means, strict=True)})


def is_vector(parameter: Tensor) -> bool:
    """Return whether at most one axis is longer than 1, as in biases and scales of norms."""
    return parameter.squeeze().ndim < 2
