"""Noise schedules over discrete time, and the timesteps at which samplers visit them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, repeat

import torch
from torch import Tensor

from ldm.utils.errors import UserError


@dataclass(frozen=True, eq=False)
class Schedule:
    """A noise schedule: `q(x_t | x_0) = N(sqrt(alphas_cumprod[t]) x_0, 1 - alphas_cumprod[t])`.

    Everything stays in float64 on the CPU, also inside a `torch.device` context: samplers read plain numbers from it.

    Args:
        betas: (T,) float64, `1 - alphas_cumprod[t] / alphas_cumprod[t - 1]`, each between 0 and 1.
    """

    betas: Tensor

    def __post_init__(self):
        if not bool(((self.betas > 0) & (self.betas < 1)).all()):
            low, high = self.betas.min().item(), self.betas.max().item()
            raise UserError(f"schedule: betas from {low:g} to {high:g}, expected values between 0 and 1")

    @property
    def num_timesteps(self) -> int:
        """The number of timesteps, T."""
        return len(self.betas)

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """The share of the data's variance that is left at each t, (T,) float64."""
        return (1 - self.betas).cumprod(0)

    @cached_property
    def alphas_cumprod_prev(self) -> Tensor:
        """The alphas_cumprod of the step before, (T,) float64; 1, clean data, before the first."""
        return torch.cat([self.alphas_cumprod.new_ones(1), self.alphas_cumprod[:-1]])

    @cached_property
    def posterior_variance(self) -> Tensor:
        """The variance of `q(x_{t-1} | x_t, x_0)` (Ho et al., 2006.11239, equation 7), (T,) float64; 0 at t = 0."""
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    def respaced(self, timesteps: Tensor | Iterable[float]) -> "Schedule":
        """Return the schedule that visits these timesteps alone (Nichol and Dhariwal, 2102.09672, section 4).

        Its step k has this schedule's noise at the k-th of them, counted upwards.

        Args:
            timesteps: of this schedule, whole or fractional, distinct, in any order.
        """
        visited = torch.tensor(sorted(float(t) for t in timesteps), dtype=torch.float64, device="cpu")
        alphas_cumprod = levels_at(self.alphas_cumprod, visited)
        before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
        return Schedule(1 - alphas_cumprod / before)

    @classmethod
    def scaled_linear(cls, T: int = 1000, start: float = 0.00085, end: float = 0.012) -> "Schedule":
        """Return latent diffusion's schedule (2112.10752), linear in sqrt(beta); its code calls it `linear`."""
        return cls(_linspace(start**0.5, end**0.5, T) ** 2)

    @classmethod
    def linear(cls, T: int = 1000, start: float = 1e-4, end: float = 0.02) -> "Schedule":
        """Return the schedule of DDPM: linear in beta (Ho et al., 2006.11239, section 4)."""
        return cls(_linspace(start, end, T))

    @classmethod
    def cosine(cls, T: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> "Schedule":
        """Return the schedule of a squared cosine (Nichol and Dhariwal, 2102.09672, equation 17)."""
        time = torch.arange(T + 1, dtype=torch.float64, device="cpu") / T
        alphas_cumprod = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
        alphas_cumprod = alphas_cumprod / alphas_cumprod[0]  # cancels below; for the rounding of the original
        return cls((1 - alphas_cumprod[1:] / alphas_cumprod[:-1]).clamp(max=max_beta))


def _linspace(start: float, end: float, T: int) -> Tensor:
    return torch.linspace(start, end, T, dtype=torch.float64, device="cpu")


def levels_at(alphas_cumprod: Tensor, t: Tensor) -> Tensor:
    """Return alphas_cumprod (T,) at timesteps t, whole or fractional, on the same device.

    Between two whole timesteps it is linear in the log-SNR, log(alphas_cumprod / (1 - alphas_cumprod)).
    """
    if not t.is_floating_point():
        return alphas_cumprod[t]
    below = t.floor().long()
    fraction = (t - below).to(alphas_cumprod)
    here, above = alphas_cumprod[below], alphas_cumprod[(below + 1).clamp(max=len(alphas_cumprod) - 1)]
    return torch.where(fraction == 0, here, torch.lerp(here.logit(), above.logit(), fraction).sigmoid())


def sampling_timesteps(S: int, T: int = 1000) -> Tensor:
    """Return the default grid: S distinct timesteps, descending, (S,) int64 on the CPU.

    `floor(T i / S) + 1` for S < T, which is latent diffusion's own grid where S divides T, and all of 0..T-1 for S = T.

    Raises:
        UserError: S is not a whole number from 1 to T.
    """
    check_steps(S, T)
    offset = 1 if S < T else 0
    return torch.tensor([T * i // S + offset for i in reversed(range(S))], dtype=torch.int64, device="cpu")


def strided_timesteps(S: int, T: int = 1000) -> Tensor:
    """Return guided-diffusion's and RePaint's grid: S even timesteps from T - 1 to 0, rounded, (S,) int64.

    A single step is at T - 1, where sampling starts (the original: at 0). Halfway between two timesteps the rounding
    errors of the original's sum decide, so it is summed here too.

    Raises:
        UserError: S is not a whole number from 1 to T.
    """
    check_steps(S, T)
    stride = (T - 1) / max(S - 1, 1)
    steps = [T - 1] if S == 1 else [round(place) for place in accumulate(repeat(stride, S - 1), initial=0.0)]
    return torch.tensor(steps[::-1], dtype=torch.int64, device="cpu")


def check_steps(S: int, T: int) -> None:
    """Check a number of sampling steps.

    Raises:
        UserError: S is not a whole number from 1 to T.
    """
    if not isinstance(S, int) or isinstance(S, bool) or not 1 <= S <= T:
        raise UserError(f"steps {S!r}: expected a whole number from 1 to {T}")
