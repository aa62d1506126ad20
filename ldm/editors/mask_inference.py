"""Mask inference: where two conditions make a network predict different noise (DiffEdit, 2210.11427, section 3.2)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.process import q_sample
from ldm.diffusion.schedule import Schedule
from ldm.editors.editor import check_finite
from ldm.presets import MaskInference
from ldm.utils.errors import UserError
from ldm.utils.random import NoiseSource, key_seed

CELLS = 4 * 64 * 64  # of latents that the network sees at once: as much as four pictures of 512 x 512
ROUNDING = 1e-4  # differences of eps, whose variance is 1, below this mean nothing


@dataclass(frozen=True)
class InferredMask:
    """A mask of where reference and query differ.

    Attributes:
        map: (B, 1, h, w) in [0, 1], at the latent's size.
        latent: (B, 1, h, w), 1 where the map is above the threshold.
        mask: (B, 1, H, W), the same at the picture's size.
    """

    map: Tensor
    latent: Tensor
    mask: Tensor

    @classmethod
    def above(cls, threshold: float, map: Tensor, cell: int) -> "InferredMask":
        """Return the mask of what is above the threshold in a map; `cell` is the side of a latent's cell in pixels."""
        latent = (map > threshold).float()
        return cls(map, latent, F.interpolate(latent, scale_factor=cell, mode="nearest"))


class EmptyMask(UserError):
    """The error of an inferred mask that is empty: reference and query differ nowhere.

    Attributes:
        maps: the (H, W) maps in [0, 1] of all queries, at the picture's size.
    """

    exit_code = 3

    def __init__(self, message: str, maps: list[Tensor]):
        super().__init__(message)
        self.maps = maps


def infer_map(
    denoise: Denoiser,
    z: Tensor,
    reference: Tensor,
    query: Tensor,
    inference: MaskInference,
    *,
    seeds: Sequence[int] | None = None,
    inside: Tensor | None = None,
    callback: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the map of differences, (B, 1, h, w) in [0, 1] on the CPU.

    Map j is made with noise of its own, a function of (seed, j): pictures of one seed meet the same ones.

    Args:
        denoise, z, reference, query: see `difference_map`.
        seeds: of the noises, one for each picture or for all; by default the inference's.
        inside: see `scale_map`.
        callback: called with the number of evaluations of the network just done for each query.
    """
    schedule, seeds = denoise.schedule, [inference.seed] if seeds is None else seeds
    drawn = [
        NoiseSource(key_seed(seed, "map", j) for j in range(inference.n_maps)).randn(*z.shape[1:]) for seed in seeds
    ]
    noises = torch.stack(drawn, dim=1).to(z)
    t = max(round(inference.strength * schedule.num_timesteps) - 1, 0)
    count = callback and (lambda maps: callback(2 * maps))
    difference = difference_map(denoise, z, reference, query, t, schedule, noises, count)
    check_finite(difference)  # would be taken for no difference
    return scale_map(difference, inference.clamp, inside).cpu()


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
    """Return the mean over noises and channels of |eps(x_t, reference) - eps(x_t, query)|, (Q, 1, h, w).

    Args:
        denoise: `(x, t, context) -> eps`.
        z: (B, c, h, w) clean latents, one or as many as queries.
        reference: (B, L, C), the contexts of what the pictures show.
        query: (Q, L, C), the contexts of what they should show.
        t: the timestep to which z is noised.
        noises: (n, B or 1, c, h, w), one for each map, of each picture or of all.
        callback: called with the number of maps just added.
    """
    maps_at_once = max(1, CELLS // ((len(z) + len(query)) * z.shape[-2:].numel()))
    alpha_cumprod, total = schedule.alphas_cumprod[t].item(), 0
    context = torch.cat([reference, query])
    for part in noises.split(maps_at_once):
        n = len(part)
        x = q_sample(z, part, alpha_cumprod)  # (n, B, c, h, w)
        x = torch.cat([x, x.expand(-1, len(query), -1, -1, -1)], dim=1).flatten(0, 1)
        times = torch.full((len(x),), t, device=x.device)
        eps = denoise(x, times, context.repeat(n, 1, 1)).unflatten(0, (n, -1))
        total = total + (eps[:, : len(z)] - eps[:, len(z) :]).abs().sum(0)
        if callback is not None:
            callback(n)
    return total.mean(1, keepdim=True) / len(noises)


def scale_map(difference: Tensor, clamp: float, inside: Tensor | None = None) -> Tensor:
    """Cut the outliers of difference maps (B, 1, h, w) and scale each to [0, 1] on its own.

    Values are cut at `clamp` times the map's mean; then the lowest becomes 0 and the highest 1. Where no difference is
    more than rounding the result is 0, where it is the same everywhere 1.

    Args:
        inside: (B, 1, h, w), 1 where the map counts; elsewhere the result is 0; by default everywhere.
    """
    inside = torch.ones_like(difference, dtype=torch.bool) if inside is None else inside.to(difference.device) > 0
    mean = (difference * inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True)
    cut = torch.minimum(difference, clamp * mean)
    high = cut.where(inside, 0).amax((1, 2, 3), keepdim=True)
    low = cut.where(inside, torch.inf).amin((1, 2, 3), keepdim=True)
    low = low.where(high - low > ROUNDING, 0)
    return torch.where(inside & (high > ROUNDING), (cut - low) / (high - low).clamp(min=ROUNDING), 0)
