"""DPM-Solver++(2M), a multistep solver in log-SNR on the predicted x0 (Lu et al., 2211.01095, algorithm 2)."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from ldm.diffusion.process import x0_from_eps
from ldm.diffusion.schedule import Schedule
from ldm.samplers.common import Callback, Denoise, Hook, Noise, time_grid


@torch.no_grad()
def dpm_solver(
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

    The first step, which has no history, and the last, where the log-SNR is infinite, are of first order; the last one
    arrives at the predicted x0 itself. Deterministic: `noise` is accepted as in every sampler and never drawn.
    """
    steps, t_batch = time_grid(timesteps, schedule, x)
    alphas_cumprod = schedule.alphas_cumprod[steps].tolist()
    log_snr = [0.5 * math.log(a / (1 - a)) for a in alphas_cumprod]  # lambda in the paper
    x0_before = None
    for i, t in enumerate(steps):
        x0 = x0_from_eps(x, denoise(x, t_batch[i]), alphas_cumprod[i])
        if i == len(steps) - 1:
            t_next, x = -1, x0
        else:
            t_next, a, a_next, h = steps[i + 1], alphas_cumprod[i], alphas_cumprod[i + 1], log_snr[i + 1] - log_snr[i]
            slope = x0
            if x0_before is not None:
                r = (log_snr[i] - log_snr[i - 1]) / h
                slope = x0 + (x0 - x0_before) / (2 * r)
            x = ((1 - a_next) / (1 - a)) ** 0.5 * x - a_next**0.5 * math.expm1(-h) * slope
        x0_before = x0
        x = x if hook is None else hook(x, t_next)
        if callback is not None:
            callback(i, t, x, x0)
    return x
