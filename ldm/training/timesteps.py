"""Which timesteps a training visits: more often those whose losses are large (Nichol and Dhariwal, 2102.09672, 3.3)."""

import math

import torch
from torch import Tensor

from ldm.utils.errors import UserError
from ldm.utils.random import NoiseSource

TIMESTEPS = ("uniform", "loss_aware")
FINE = 2**53  # draws have the resolution of float64: rare timesteps have probabilities near that of float32


def check_timesteps(timesteps: str) -> str:
    if timesteps not in TIMESTEPS:
        raise UserError(f"timesteps {timesteps!r}: expected one of {', '.join(TIMESTEPS)}")
    return timesteps


class LossAwareSampler:
    """Importance sampling: p(t) follows sqrt(E[loss(t)^2]), the optimum, over the last losses of each timestep.

    Until every timestep has all the losses that it is judged by, they are uniform. All is on the CPU, where timesteps
    are drawn.

    Args:
        num_timesteps: T.
        history: losses kept of each timestep.
        uniform: share of the draws that are uniform, so that none is forgotten.
    """

    def __init__(self, num_timesteps: int, history: int = 10, uniform: float = 0.001):
        self.uniform = uniform
        self.losses = torch.zeros(num_timesteps, history)  # of each timestep the last ones, oldest first
        self.counts = torch.zeros(num_timesteps, dtype=torch.int64)

    def probabilities(self) -> Tensor:
        """(T,) float64."""
        T, history = self.losses.shape
        even = torch.full((T,), 1 / T, dtype=torch.float64)
        size = self.losses.double().square().mean(1).sqrt()
        if bool((self.counts < history).any()) or not size.sum() > 0:
            return even
        return self.uniform * even + (1 - self.uniform) * size / size.sum()

    def draw(self, noise: NoiseSource) -> tuple[Tensor, Tensor]:
        """Timesteps (B,) int64 and the weights 1 / (T p(t)) (B,) float32 that leave the expected loss what it was.

        Each row's number decides alone: the rest of the batch does not change its timestep.
        """
        p = self.probabilities()
        places = noise.randint(FINE).double() / FINE
        t = torch.searchsorted(p.cumsum(0), places, right=True).clamp(max=len(p) - 1)
        return t, (1 / (len(p) * p[t])).float()

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take note of the losses (B,) at the timesteps t (B,), in this order; what is not finite is skipped."""
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
