"""The parts that samplers share around their equations: the grid of steps, and the caller's noise."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ldm.diffusion.schedule import Schedule, levels_at
from ldm.utils.errors import UserError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""`(x (B, ...), t (B,)) -> eps (B, ...)`: network, conditioning and guidance together.

t is int64, or floating-point on a grid with fractional timesteps.
"""

Noise = Callable[..., Tensor]
"""`(*shape without the batch) -> (B, *shape)` standard normal, on any device: e.g. `NoiseSource.randn`."""

Callback = Callable[[int, float, Tensor, Tensor], None]
"""`(i, t, x, x0)` after step i from timestep t: the sample, and the clean sample predicted on the way."""

Hook = Callable[[Tensor, float], Tensor]
"""`(x, t) -> x` after each step, before its callback; t is the timestep whose noise level x now has, -1 for clean."""


@dataclass(frozen=True)
class Step:
    """A step down from timestep t to t_prev, which is -1 for a clean sample.

    Attributes:
        t_batch: (B,) t as the network takes it, on x's device.
        alpha, alpha_prev: alphas_cumprod at t and t_prev, 1 for a clean sample.
    """

    t: float
    t_prev: float
    t_batch: Tensor
    alpha: float
    alpha_prev: float


def time_grid(
    timesteps: Tensor | Iterable[float], schedule: Schedule, x: Tensor, end: float | None = None
) -> list[Step]:
    """Return the steps down a grid, all made before the loop so that it never waits for the device.

    Args:
        timesteps: descending; where one is fractional, the levels are interpolated and `t_batch` is floating-point.
        end: the timestep that the last step reaches (a step from itself stays there); None: a clean sample.

    Raises:
        UserError: they do not strictly descend within the schedule, or `end` is not below them.
    """
    steps, last = [float(t) for t in timesteps], schedule.num_timesteps - 1
    whole = all(t.is_integer() for t in (*steps, float(end or 0)))
    steps = [int(t) for t in steps] if whole else steps
    if not all(0 <= t <= last for t in steps) or not all(t > after for t, after in pairwise(steps)):
        raise UserError(f"timesteps {steps}: expected descending values within 0..{last}")
    if not steps:
        raise UserError("timesteps: the grid is empty, expected one timestep or more")
    lowest = min(steps)
    if end is not None and not 0 <= end <= lowest:
        raise UserError(f"end {end}: expected None or a timestep from 0 to the last of the grid, {lowest}")

    visited = [*steps, *([] if end is None else [end])]
    alphas = levels_at(schedule.alphas_cumprod, torch.tensor(visited, dtype=torch.float64, device="cpu")).tolist()
    if end is None:
        visited, alphas = [*visited, -1], [*alphas, 1.0]
    dtype = torch.int64 if whole else torch.promote_types(x.dtype, torch.float32)  # half precision has no 999.5
    t_batch = torch.tensor(steps, dtype=dtype, device=x.device)[:, None].repeat(1, len(x))
    rows = zip(pairwise(visited), pairwise(alphas), t_batch, strict=True)
    return [Step(t, t_prev, batch, alpha, alpha_prev) for (t, t_prev), (alpha, alpha_prev), batch in rows]


def draw(noise: Noise | None, x: Tensor) -> Tensor:
    """Return the caller's next noise, like x; it travels to a GPU without holding up the host.

    Raises:
        UserError: there is no source of noise.
    """
    if noise is None:
        raise UserError("a sampler that adds noise in its steps was given no source of noise")
    z = noise(*x.shape[1:]).to(x.dtype)
    if x.is_cuda and not z.is_cuda:
        z = z.pin_memory()  # only from pinned memory does the copy not wait
    return z.to(x.device, non_blocking=True)
