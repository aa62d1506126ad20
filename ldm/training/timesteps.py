"""Importance sampling of timesteps with large losses (Nichol and Dhariwal, 2102.09672, section 3.3)."""

import math

import torch
from torch import Tensor

from ldm.utils.errors import UserError
from ldm.utils.random import NoiseSource

TIMESTEPS = ("uniform", "loss_aware")
FINE = 2**53  # draws need float64's resolution: rare timesteps have probabilities near float32's


def check_timesteps(timesteps: str) -> str:
    """Return a valid name of a distribution of timesteps.

    Raises:
        UserError: the name is unknown.
    """
    if timesteps not in TIMESTEPS:
        raise UserError(f"timesteps {timesteps!r}: expected one of {', '.join(TIMESTEPS)}")
    return timesteps


class LossAwareSampler:
    """Importance sampling: p(t) follows sqrt(E[loss(t)^2]), the optimum, over the last losses of each timestep.

    Draws are uniform until every timestep has a full history. All tensors are on the CPU, where timesteps are drawn.

    Args:
        num_timesteps: T.
        history: number of losses kept per timestep.
        uniform: share of uniform draws, so that every timestep keeps being visited.
    """

    def __init__(self, num_timesteps: int, history: int = 10, uniform: float = 0.001):
        self.uniform = uniform
        self.losses = torch.zeros(num_timesteps, history)  # the last ones of each timestep, oldest first
        self.counts = torch.zeros(num_timesteps, dtype=torch.int64)

    def probabilities(self) -> Tensor:
        """Return the probabilities of the timesteps, (T,) float64."""
        T, history = self.losses.shape
        even = torch.full((T,), 1 / T, dtype=torch.float64)
        size = self.losses.double().square().mean(1).sqrt()
        if bool((self.counts < history).any()) or not size.sum() > 0:
            return even
        return self.uniform * even + (1 - self.uniform) * size / size.sum()

    def draw(self, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Draw timesteps (B,) int64 and their weights 1 / (T p(t)), (B,) float32, which keep the loss unbiased.

        Each timestep depends on its own row's random number alone, not on the rest of the batch.
        """
        p = self.probabilities()
        places = noise.randint(FINE).double() / FINE
        t = torch.searchsorted(p.cumsum(0), places, right=True).clamp(max=len(p) - 1)
        return t, (1 / (len(p) * p[t])).float()

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Record the losses (B,) at the timesteps t (B,), in this order; values that are not finite are skipped."""
        history = self.losses.shape[1]
        for step, loss in zip(t.tolist(), losses.tolist(), strict=True):
            if not math.isfinite(loss):
                continue
            count = int(self.counts[step])
            if count == history:
                self.losses[step] = self.losses[step].roll(-1)
            self.losses[step, min(count, history - 1)] = loss
            self.counts[step] = min(count + 1, history)

    def state_dict(self) -> dict[str, Tensor]:
        return {"losses": self.losses, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.losses, self.counts = state["losses"], state["counts"]
