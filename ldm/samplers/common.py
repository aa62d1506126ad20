"""What every sampler needs around its equation: the grid, the caller's noise, the types of its arguments."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor

from ldm.diffusion.schedule import Schedule
from ldm.utils.errors import UserError

Denoise = Callable[[Tensor, Tensor], Tensor]
"""`(x (B, ...), t (B,) int64) -> eps (B, ...)`: network, conditioning and guidance together."""

Noise = Callable[..., Tensor]
"""`(*shape without the batch) -> (B, *shape)` standard normal, on any device: e.g. `NoiseSource.randn`."""

Callback = Callable[[int, int, Tensor, Tensor], None]
"""`(i, t, x, x0)` after step i from timestep t: the sample, and the clean sample predicted on the way."""

Hook = Callable[[Tensor, int], Tensor]
"""`(x, t) -> x` after each step, before its callback; t is the timestep whose noise level x now has, -1 for clean."""


def time_grid(timesteps: Tensor | Iterable[int], schedule: Schedule, x: Tensor) -> tuple[list[int], Tensor]:
    """The timesteps as plain numbers and as (S, B) int64 on x's device, made before the loop so that it never waits.

    Raises:
        UserError: they do not strictly descend within the schedule.
    """
    steps = [int(t) for t in timesteps]
    if not all(t > after for t, after in pairwise([schedule.num_timesteps, *steps, -1])):
        raise UserError(f"timesteps {steps}: expected descending values within 0..{schedule.num_timesteps - 1}")
    return steps, torch.tensor(steps, dtype=torch.int64, device=x.device)[:, None].repeat(1, len(x))


def draw(noise: Noise | None, x: Tensor) -> Tensor:
    """The caller's next noise, as x; it travels to a GPU without holding up the host."""
    if noise is None:
        raise UserError("a sampler that adds noise in its steps was given no source of noise")
    z = noise(*x.shape[1:]).to(x.dtype)
    if x.is_cuda and not z.is_cuda:
        z = z.pin_memory()  # only from pinned memory does the copy not wait
    return z.to(x.device, non_blocking=True)
