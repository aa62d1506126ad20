"""DDPM ancestral sampling on any grid (Ho et al., 2006.11239, algorithm 2; respaced as in 2102.09672, section 4)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ldm.diffusion.process import posterior, x0_from_eps
from ldm.diffusion.schedule import Schedule
from ldm.samplers.common import Callback, Denoise, Hook, Noise, draw, time_grid


@torch.no_grad()
def ddpm(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[int],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    hook: Hook | None = None,
) -> Tensor:
    """Sample from x (B, ...) at the level of `timesteps[0]` down to a clean sample; one call of `denoise` per timestep.

    Each step draws from `q(x_prev | x, x0)` at the predicted x0, between grid neighbours; the last draws nothing.
    """
    steps, t_batch = time_grid(timesteps, schedule, x)
    alphas = schedule.alphas_cumprod[steps].tolist()
    for i, (t, t_prev, alpha, alpha_prev) in enumerate(
        zip(steps, [*steps[1:], -1], alphas, [*alphas[1:], 1.0], strict=True)
    ):
        x0 = x0_from_eps(x, denoise(x, t_batch[i]), alpha)
        mean, variance = posterior(x0, x, alpha, alpha_prev)
        x = mean + variance**0.5 * draw(noise, x) if variance > 0 else mean
        x = x if hook is None else hook(x, t_prev)
        if callback is not None:
            callback(i, t, x, x0)
    return x
