"""DDPM ancestral sampling on any grid (Ho et al., 2006.11239, algorithm 2; respaced as in 2102.09672, section 4)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.process import posterior, x0_from_eps
from ldm.diffusion.schedule import Schedule
from ldm.diffusion.variance import reverse_sigma, split, variance_bounds, variance_fraction
from ldm.samplers.common import Callback, Denoise, Hook, Noise, draw, time_grid
from ldm.utils.errors import UserError


@torch.no_grad()
def ddpm(  # noqa: PLR0913 (its steps have a variance and a gradient of their own)
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[float],
    *,
    end: float | None = None,
    variance: str = "fixed_small",
    gradient: Denoise | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
    hook: Hook | None = None,
) -> Tensor:
    """Sample from x (B, ...) at the level of `timesteps[0]` down to that of `end`; one call of `denoise` per timestep.

    Each step draws from `q(x_prev | x, x0)` at the predicted x0, between grid neighbours; one to a clean sample draws
    nothing.

    Args:
        end: the timestep, below the others, whose level the last step reaches; None: a clean sample.
        variance: of each step, see `ldm.diffusion.variance`; if it is learned, `denoise` returns it behind the noise.
        gradient: `(x, t) -> (B, ...)`, the gradient of the scaled log-probability to climb: each step's mean is
            moved by it, times the variance (classifier guidance: Dhariwal and Nichol, 2105.05233, algorithm 1).
    """
    steps = time_grid(timesteps, schedule, x, end)
    levels = ddpm_levels(schedule, [step.t for step in steps], variance, end)
    for i, (step, level) in enumerate(zip(steps, levels, strict=True)):
        shift = None if gradient is None else gradient(x, step.t_batch)
        z = draw(noise, x) if step.t_prev >= 0 else None
        x, x0 = ddpm_step(x, denoise(x, step.t_batch), level, variance, z, shift)
        x = x if hook is None else hook(x, step.t_prev)
        if callback is not None:
            callback(i, step.t, x, x0)
    return x


@dataclass(frozen=True)
class Level:
    """A step's levels: alphas_cumprod where it starts and where it leads, and the bounds of its variance."""

    alpha: float
    alpha_prev: float
    small: float
    large: float


def ddpm_levels(schedule: Schedule, timesteps: list[float], variance: str, end: float | None = None) -> list[Level]:
    """Return the levels of each of the descending timesteps; the last leads to `end`, or to clean data.

    Raises:
        UserError: `end` is not below them.
    """
    if end is not None and end == timesteps[-1]:
        raise UserError(f"end {end}: expected a timestep below the last of the grid, {timesteps[-1]}")
    grid = schedule.respaced(timesteps if end is None else [*timesteps, end])
    columns = grid.alphas_cumprod, grid.alphas_cumprod_prev, *variance_bounds(grid, variance)
    levels = [Level(*row) for row in reversed(torch.stack(columns, dim=1).tolist())]
    return levels[: len(timesteps)]  # a step from `end` to clean data is not taken


def ddpm_step(
    x: Tensor, output: Tensor, level: Level, variance: str, z: Tensor | None, shift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Take one step down: return the new x and the predicted x0.

    Args:
        output: what `denoise` returned.
        z: standard normal like x; None for the last step, which adds no noise.
        shift: moves the mean, times the variance.
    """
    eps, predicted_variance = split(output, x.shape[1])
    x0 = x0_from_eps(x, eps, level.alpha)
    mean, _ = posterior(x0, x, level.alpha, level.alpha_prev)
    if z is None and shift is None:
        return mean, x0
    sigma = reverse_sigma(variance_fraction(variance, predicted_variance), level.small, level.large)
    if shift is not None:
        mean = mean + sigma**2 * shift
    return (mean if z is None else mean + sigma * z), x0
