"""DDIM (Song et al., 2010.02502), down and up.

In the convention of latent diffusion: sampling ends at the level of t = 0, `alphas_cumprod[0]`, not at 1.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from ldm.diffusion.process import x0_from_eps
from ldm.diffusion.schedule import Schedule
from ldm.samplers.common import Callback, Denoise, Hook, Noise, draw, time_grid
from ldm.utils.errors import UserError


@torch.no_grad()
def ddim(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[float],
    *,
    end: float | None = 0,
    eta: float = 0.0,
    noise: Noise | None = None,
    callback: Callback | None = None,
    hook: Hook | None = None,
) -> Tensor:
    """Sample from x (B, ...) at the level of `timesteps[0]` down to that of `end`; one call of `denoise` per timestep.

    Args:
        end: the timestep whose level the last step reaches; None: a clean sample, as guided-diffusion ends.
        eta: 0 is deterministic and draws nothing from `noise`; 1 is the ancestral step of DDPM. In [0, 1].
    """
    check_eta(eta)
    for i, step in enumerate(time_grid(timesteps, schedule, x, end)):
        eps = denoise(x, step.t_batch)
        sigma = ddim_sigma(step.alpha, step.alpha_prev, eta)
        z = draw(noise, x) if sigma > 0 else None
        x, x0 = ddim_step(x, eps, step.alpha, step.alpha_prev, sigma, z)
        x = x if hook is None else hook(x, step.t_prev)
        if callback is not None:
            callback(i, step.t, x, x0)
    return x


@torch.no_grad()
def ddim_invert(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[float],
    *,
    end: float | None = 0,
    refine: int = 0,
    callback: Callback | None = None,
) -> dict[float, Tensor]:
    """Walk `ddim` with eta 0 backwards: from x (B, ...) at the level of `end` up to that of `timesteps[0]`.

    A step up needs eps at its far end, which is not known yet: `denoise` is called with that timestep, but with the
    sample before. Each fixed-point iteration calls it with the sample arrived at, so that `ddim` comes closer to
    undoing the step.

    Args:
        timesteps: descending, as for `ddim`; visited in reverse.
        end: the timestep whose level x has, where `ddim` ends; None: x is clean.
        refine: fixed-point iterations in each step.

    Returns:
        the sample at every level on the way, by timestep; at `end` (-1 for None) it is x.
    """
    record = {-1 if end is None else end: x}
    for i, step in enumerate(reversed(time_grid(timesteps, schedule, x, end))):
        start = x
        for _ in range(1 + refine):
            eps = denoise(x, step.t_batch)
            x, x0 = ddim_step(start, eps, step.alpha_prev, step.alpha)
        record.setdefault(step.t, x)  # not at `end`, if the grid has it: that step leads nowhere, except by rounding
        if callback is not None:
            callback(i, step.t, x, x0)
    return record


def ddim_sigma(alpha: float, alpha_prev: float, eta: float) -> float:
    """Return the standard deviation of the noise that a step between two levels of alphas_cumprod adds (eq. 16)."""
    return eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)) ** 0.5


def ddim_step(
    x: Tensor, eps: Tensor, alpha: float, alpha_prev: float, sigma: float = 0.0, z: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Take one step between two levels of alphas_cumprod (equation 12): return the new x and the predicted x0.

    Args:
        z: standard normal like x, the noise of a step with sigma > 0.
    """
    x0 = x0_from_eps(x, eps, alpha)
    x = alpha_prev**0.5 * x0 + (1 - alpha_prev - sigma**2) ** 0.5 * eps
    return (x if z is None else x + sigma * z), x0


def check_eta(eta: float) -> None:
    """Check that eta is in [0, 1].

    Raises:
        UserError: it is not.
    """
    if not 0 <= eta <= 1:
        raise UserError(f"eta {eta}: expected a number from 0 (deterministic) to 1 (ancestral)")
