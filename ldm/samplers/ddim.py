"""DDIM (Song et al., 2010.02502), down and up, in the convention of latent diffusion: the clean end is at t = 0,
`alphas_cumprod[0]`, not at 1."""

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
    timesteps: Tensor | Iterable[int],
    *,
    eta: float = 0.0,
    clean: bool = False,
    noise: Noise | None = None,
    callback: Callback | None = None,
    hook: Hook | None = None,
) -> Tensor:
    """Sample from x (B, ...) at the level of `timesteps[0]` down to that of t = 0; one call of `denoise` per timestep.

    Args:
        eta: 0 is deterministic and draws nothing from `noise`; 1 is the ancestral step of DDPM. In [0, 1].
        clean: the last step goes to a clean sample instead, as in guided-diffusion.
    """
    steps, t_batch = time_grid(timesteps, schedule, x)
    end = -1 if clean else 0
    for i, (t, t_prev, *step) in enumerate(
        zip(steps, [*steps[1:], end], *ddim_table(schedule, steps, eta, clean), strict=True)
    ):
        eps = denoise(x, t_batch[i])
        x, x0 = ddim_step(x, eps, *step, draw(noise, x) if step[-1] > 0 else None)
        x = x if hook is None else hook(x, t_prev)
        if callback is not None:
            callback(i, t, x, x0)
    return x


@torch.no_grad()
def ddim_invert(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    timesteps: Tensor | Iterable[int],
    *,
    refine: int = 0,
    callback: Callback | None = None,
) -> dict[int, Tensor]:
    """The way of `ddim` with eta 0 backwards: from the clean x (B, ...) up to the level of `timesteps[0]`.

    A step up needs eps where it leads to, which is not known yet: it is asked at that timestep, but of the sample
    before. Each fixed-point iteration asks again of the sample arrived at, so that `ddim` comes closer to undoing it.

    Args:
        timesteps: descending, as for `ddim`; visited in reverse.
        refine: fixed-point iterations in each step.

    Returns:
        the sample at every level on the way, by timestep; at 0 it is x.
    """
    steps, t_batch = time_grid(timesteps, schedule, x)
    alphas, alphas_before, _ = ddim_table(schedule, steps)
    record = {0: x}
    for i, k in enumerate(reversed(range(len(steps)))):
        start = x
        for _ in range(1 + refine):
            eps = denoise(x, t_batch[k])
            x, x0 = ddim_step(start, eps, alphas_before[k], alphas[k])
        record.setdefault(steps[k], x)  # not at t = 0, if the grid has it: a step that leads nowhere, but for rounding
        if callback is not None:
            callback(i, steps[k], x, x0)
    return record


def ddim_table(
    schedule: Schedule, timesteps: list[int], eta: float = 0.0, clean: bool = False
) -> tuple[list[float], list[float], list[float]]:
    """alphas_cumprod at each of the descending timesteps, at the one after (last: t = 0, or `clean`), and sigma."""
    check_eta(eta)
    table = schedule.alphas_cumprod.tolist()
    alphas = [table[t] for t in timesteps]
    alphas_prev = [*alphas[1:], 1.0 if clean else table[0]]
    return alphas, alphas_prev, [ddim_sigma(*pair, eta) for pair in zip(alphas, alphas_prev, strict=True)]


def ddim_sigma(alpha: float, alpha_prev: float, eta: float) -> float:
    """The noise that a step between two levels of alphas_cumprod adds (equation 16)."""
    return eta * ((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev)) ** 0.5


def ddim_step(
    x: Tensor, eps: Tensor, alpha: float, alpha_prev: float, sigma: float = 0.0, z: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One step between two levels of alphas_cumprod (equation 12): the new x and the predicted x0.

    Args:
        z: standard normal like x, the noise of a step with sigma > 0.
    """
    x0 = x0_from_eps(x, eps, alpha)
    x = alpha_prev**0.5 * x0 + (1 - alpha_prev - sigma**2) ** 0.5 * eps
    return (x if z is None else x + sigma * z), x0


def check_eta(eta: float) -> None:
    if not 0 <= eta <= 1:
        raise UserError(f"eta {eta}: expected a number from 0 (deterministic) to 1 (ancestral)")
