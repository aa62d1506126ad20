"""PLMS, the pseudo linear multistep method (Liu et al., 2202.09778): DDIM steps along an extrapolated eps."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ldm.diffusion.schedule import Schedule
from ldm.samplers.common import Callback, Denoise, Hook, Noise, time_grid
from ldm.samplers.ddim import ddim_step, ddim_table

ADAMS_BASHFORTH = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


@torch.no_grad()
def plms(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[int],
    *,
    noise: Noise | None = None,
    callback: Callback | None = None,
    hook: Hook | None = None,
) -> Tensor:
    """Sample from x (B, ...) at the level of `timesteps[0]` down to that of t = 0: S steps, S + 1 calls of `denoise`.

    The first step has no history: it averages eps here and at the end of a trial step, as latent diffusion does. The
    weights assume even spacing. Deterministic: `noise` is accepted as in every sampler and never drawn.
    """
    steps, t_batch = time_grid(timesteps, schedule, x)
    history: list[Tensor] = []  # of eps, newest first
    alphas, alphas_prev, _ = ddim_table(schedule, steps)
    for i, (t, t_prev, alpha, alpha_prev) in enumerate(zip(steps, [*steps[1:], 0], alphas, alphas_prev, strict=True)):
        eps = denoise(x, t_batch[i])
        history = [eps, *history[:3]]
        if i == 0:
            trial, _ = ddim_step(x, eps, alpha, alpha_prev)
            eps = (eps + denoise(trial, torch.full_like(t_batch[0], t_prev))) / 2
        else:
            eps = sum(weight * past for weight, past in zip(ADAMS_BASHFORTH[len(history)], history, strict=True))
        x, x0 = ddim_step(x, eps, alpha, alpha_prev)
        x = x if hook is None else hook(x, t_prev)
        if callback is not None:
            callback(i, t, x, x0)
    return x
