"""Where two conditions make a network see other noise: DiffEdit (Couairon et al., 2210.11427), section 3.2, step 1."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.diffusion.process import q_sample
from ldm.diffusion.schedule import Schedule

CELLS = 4 * 64 * 64  # of latents that the network sees at once: as much as four pictures of 512 x 512
ROUNDING = 1e-4  # differences of eps, whose variance is 1, below this mean nothing


@torch.no_grad()
def difference_map(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor],
    z: Tensor,
    reference: Tensor,
    query: Tensor,
    t: int,
    schedule: Schedule,
    noises: Tensor,
    callback: Callable[[int], None] | None = None,
) -> Tensor:
    """Mean over noises and channels of |eps(x_t, reference) - eps(x_t, query)|, (Q, 1, h, w).

    Args:
        denoise: `(x, t, context) -> eps`.
        z: (B, c, h, w) clean latents, one or as many as queries.
        reference: (B, L, C) contexts of what the pictures show.
        query: (Q, L, C) contexts of what they are to show.
        t: the timestep to which z is noised.
        noises: (n, c, h, w), one for each map; every picture meets the same.
        callback: told how many maps have been added.
    """
    maps_at_once = max(1, CELLS // ((len(z) + len(query)) * z.shape[-2:].numel()))
    alpha_cumprod, total = schedule.alphas_cumprod[t].item(), 0
    context = torch.cat([reference, query])
    for part in noises.split(maps_at_once):
        n = len(part)
        x = q_sample(z, part[:, None], alpha_cumprod)  # (n, B, c, h, w)
        x = torch.cat([x, x.expand(-1, len(query), -1, -1, -1)], dim=1).flatten(0, 1)
        times = torch.full((len(x),), t, device=x.device)
        eps = denoise(x, times, context.repeat(n, 1, 1)).unflatten(0, (n, -1))
        total = total + (eps[:, : len(z)] - eps[:, len(z) :]).abs().sum(0)
        if callback is not None:
            callback(n)
    return total.mean(1, keepdim=True) / len(noises)


def scale_map(difference: Tensor, clamp: float) -> Tensor:
    """A difference map (B, 1, h, w) with its outliers cut, scaled to [0, 1]; each on its own.

    Values are cut at `clamp` times the map's mean. Where there is no difference at all the result is 0.
    """
    limit = clamp * difference.mean((1, 2, 3), keepdim=True)
    cut = torch.minimum(difference, limit)
    return cut / cut.amax((1, 2, 3), keepdim=True).clamp(min=ROUNDING)
