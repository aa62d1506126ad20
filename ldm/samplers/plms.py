"""PLMS, the pseudo linear multistep method (Liu et al., 2202.09778): DDIM steps along an extrapolated eps."""

from collections.abc import Iterable
from functools import reduce

import torch
from torch import Tensor

from ldm.diffusion.schedule import Schedule
from ldm.samplers.common import Callback, Denoise, Hook, Noise, time_grid
from ldm.samplers.ddim import ddim_step

ADAMS_BASHFORTH = {
    1: (1,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Weights of the last eps, newest first, by their number."""


@torch.no_grad()
def plms(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[float],
    *,
    end: float | None = 0,
    noise: Noise | None = None,
    callback: Callback | None = None,
    hook: Hook | None = None,
) -> Tensor:
    """Sample from x (B, ...) at the level of `timesteps[0]` down to that of `end`: S steps, S + 1 calls of `denoise`.

    The first step has no history: it averages eps here and at the end of a trial step, as latent diffusion does
    (unless that step leads to a clean sample). The weights assume even spacing. Deterministic: `noise` is accepted as
    in every sampler and never drawn.

    Args:
        end: the timestep whose level the last step reaches; None: a clean sample.
    """
    history: list[Tensor] = []  # of eps, newest first
    for i, step in enumerate(time_grid(timesteps, schedule, x, end)):
        eps = denoise(x, step.t_batch)
        history = [eps, *history[:3]]
        if i == 0 and step.t_prev >= 0:
            trial, _ = ddim_step(x, eps, step.alpha, step.alpha_prev)
            eps = (eps + denoise(trial, torch.full_like(step.t_batch, step.t_prev))) / 2
        else:
            weighted = [weight * past for weight, past in zip(ADAMS_BASHFORTH[len(history)], history, strict=True)]
            eps = reduce(torch.add, weighted)
        x, x0 = ddim_step(x, eps, step.alpha, step.alpha_prev)
        x = x if hook is None else hook(x, step.t_prev)
        if callback is not None:
            callback(i, step.t, x, x0)
    return x
