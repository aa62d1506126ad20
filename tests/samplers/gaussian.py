"""Data N(mean, std^2): the best denoiser, the marginals and the probability-flow ODE are known in closed form."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.schedule import Schedule

SCHEDULE = Schedule.scaled_linear()
END = {"ddim": 0, "plms": 0, "dpm_solver": -1, "ddpm": -1}
"""The level at which each sampler ends: that of t = 0, or clean."""


def level(t: float) -> float:
    """alphas_cumprod at t, 1 at -1; between whole timesteps its log-odds are linear."""
    if t < 0:
        return 1.0
    here, above = (SCHEDULE.alphas_cumprod[f(t)].item() for f in (math.floor, math.ceil))
    if here == above:
        return here
    odds = [a / (1 - a) for a in (here, above)]
    between = odds[0] ** (1 - t % 1) * odds[1] ** (t % 1)
    return between / (1 + between)


@dataclass
class Gaussian:
    """Scalars: every x is (B, 1) float64."""

    mean: float
    std: float

    def marginal(self, t: float) -> tuple[float, float]:
        """Mean and standard deviation of x_t."""
        a = level(t)
        return a**0.5 * self.mean, (a * self.std**2 + 1 - a) ** 0.5

    def flow(self, z: Tensor, t: float) -> Tensor:
        """The probability-flow ODE through z (B, 1): it keeps the distance from the mean in standard deviations."""
        mean, std = self.marginal(t)
        return mean + std * z

    def denoise(self, x: Tensor, t: Tensor) -> Tensor:
        """E[eps | x_t]; a fractional t is the same in all rows."""
        fractional = t.is_floating_point()
        a = x.new_tensor(level(t[0].item())) if fractional else SCHEDULE.alphas_cumprod[t][:, None]
        return (1 - a).sqrt() * (x - a.sqrt() * self.mean) / (a * self.std**2 + 1 - a)


class Normal:
    """(B, *shape) float64 noise from one seeded generator; counts its draws."""

    def __init__(self, batch: int, seed: int = 0):
        self.batch, self.generator, self.draws = batch, torch.Generator().manual_seed(seed), 0

    def __call__(self, *shape: int) -> Tensor:
        self.draws += 1
        return torch.randn(self.batch, *shape, generator=self.generator, dtype=torch.float64)
