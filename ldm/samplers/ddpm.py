"""DDPM ancestral sampling on any grid (Ho et al., 2006.11239, algorithm 2; respaced as in 2102.09672, section 4)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.process import posterior, x0_from_eps
from ldm.diffusion.schedule import Schedule
from ldm.diffusion.variance import reverse_sigma, split, variance_bounds, variance_fraction
from ldm.samplers.common import Callback, Denoise, Hook, Noise, draw, time_grid


@torch.no_grad()
def ddpm(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[int],
    *,
    variance: str = "fixed_small",
    gradient: Denoise | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
    hook: Hook | None = None,
) -> Tensor:
    """Sample from x (B, ...) at the level of `timesteps[0]` down to a clean sample; one call of `denoise` per timestep.

    Each step draws from `q(x_prev | x, x0)` at the predicted x0, between grid neighbours; the last draws nothing.

    Args:
        variance: of each step, see `ldm.diffusion.variance`; if it is learned, `denoise` gives it behind the noise.
        gradient: `(x, t) -> (B, ...)`, the gradient of a scaled log-probability of what is wanted: each step's mean is
            moved by it, times the variance (classifier guidance: Dhariwal and Nichol, 2105.05233, algorithm 1).
    """
    steps, t_batch = time_grid(timesteps, schedule, x)
    table = ddpm_table(schedule, steps, variance)
    for i, (t, t_prev, level) in enumerate(zip(steps, [*steps[1:], -1], table, strict=True)):
        shift = None if gradient is None else gradient(x, t_batch[i])
        z = draw(noise, x) if t_prev >= 0 else None
        x, x0 = ddpm_step(x, denoise(x, t_batch[i]), level, variance, z, shift)
        x = x if hook is None else hook(x, t_prev)
        if callback is not None:
            callback(i, t, x, x0)
    return x


@dataclass(frozen=True)
class Level:
    """What a step down needs to know of a timestep: alphas_cumprod here and where it leads, bounds of its variance."""

    alpha: float
    alpha_prev: float
    small: float
    large: float


def ddpm_table(schedule: Schedule, timesteps: list[int], variance: str) -> list[Level]:
    """One for each of the descending timesteps; the last leads to clean data."""
    grid = schedule.respaced(timesteps)
    columns = grid.alphas_cumprod, grid.alphas_cumprod_prev, *variance_bounds(grid, variance)
    return [Level(*row) for row in reversed(torch.stack(columns, dim=1).tolist())]


def ddpm_step(
    x: Tensor, output: Tensor, level: Level, variance: str, z: Tensor | None, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step down: the new x and the predicted x0.

    Args:
        output: of `denoise`.
        z: standard normal like x; None for the last step, which adds no noise.
        shift: moves the mean, times the variance.
    """
    eps, said = split(output, x.shape[1])
    x0 = x0_from_eps(x, eps, level.alpha)
    mean, _ = posterior(x0, x, level.alpha, level.alpha_prev)
    if z is None and shift is None:
        return mean, x0
    sigma = reverse_sigma(variance_fraction(variance, said), level.small, level.large)
    if shift is not None:
        mean = mean + sigma**2 * shift
    return (mean if z is None else mean + sigma * z), x0
