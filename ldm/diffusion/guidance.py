"""Guidance: what turns several predictions of the noise into the one that a sampler follows."""

from collections.abc import Callable

import torch
from torch import Tensor


def classifier_free_guidance(
    denoise: Callable[[Tensor, Tensor, Tensor], Tensor], cond: Tensor, uncond: Tensor | None, scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """`eps = u + scale (c - u)` (Ho and Salimans, 2207.12598, equation 6, with scale = 1 + w).

    Args:
        denoise: `(x, t, context) -> eps`.
        cond: (B, L, C) context.
        uncond: the same shape; None is enough for scale 1, which runs the conditional pass alone.
        scale: 1 follows the condition as trained, more exaggerates it, 0 ignores it.

    Returns:
        `(x (B, ...), t (B,)) -> eps (B, ...)`, which makes one call on the batch [uncond, cond].
    """
    if scale == 1:
        return lambda x, t: denoise(x, t, cond)
    if uncond is None:
        raise ValueError(f"guidance scale {scale}: needs an unconditional context")
    context = torch.cat([uncond, cond])

    def guided(x: Tensor, t: Tensor) -> Tensor:
        eps_uncond, eps_cond = denoise(torch.cat([x, x]), torch.cat([t, t]), context).chunk(2)
        return eps_uncond + scale * (eps_cond - eps_uncond)

    return guided
