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
    timesteps: Tensor | Iterable[float],
    *,
    end: float | None = None,
    noise: Noise | None = None,
    callback: Callback | None = None,
    hook: Hook | None = None,
) -> Tensor:
    """Sample from x (B, ...) at the level of `timesteps[0]` down to that of `end`; one call of `denoise` per timestep.

    The first step, which has no history, is of first order, and so is a last step to a clean sample, where the log-SNR
    is infinite: it arrives at the predicted x0 itself. Deterministic: `noise` is accepted as in every sampler and never
    drawn.

    Args:
        end: the timestep whose level the last step reaches; None: a clean sample.
    """
    before = None
    for i, step in enumerate(time_grid(timesteps, schedule, x, end)):
        x0 = x0_from_eps(x, denoise(x, step.t_batch), step.alpha)
        x = dpm_solver_step(x, x0, step.alpha, step.alpha_prev, before)
        before = x0, step.alpha
        x = x if hook is None else hook(x, step.t_prev)
        if callback is not None:
            callback(i, step.t, x, x0)
    return x


def dpm_solver_step(
    x: Tensor, x0: Tensor, alpha: float, alpha_next: float, before: tuple[Tensor, float] | None = None
) -> Tensor:
    """Take one step between two levels of alphas_cumprod; to 1, clean data, it arrives at x0.

    Args:
        x0: predicted from x.
        before: the x0 predicted one step earlier, and its level; without it, the step is of first order.
    """
    if alpha_next == 1:
        return x0
    if alpha_next == alpha:
        return x
    h = log_snr(alpha_next) - log_snr(alpha)
    slope = x0
    if before is not None:
        x0_before, alpha_before = before
        r = (log_snr(alpha) - log_snr(alpha_before)) / h
        slope = x0 + (x0 - x0_before) / (2 * r)
    return ((1 - alpha_next) / (1 - alpha)) ** 0.5 * x - alpha_next**0.5 * math.expm1(-h) * slope


def log_snr(alpha_cumprod: float) -> float:
    """Return lambda of the paper, half the log of the signal-to-noise ratio."""
    return 0.5 * math.log(alpha_cumprod / (1 - alpha_cumprod))
