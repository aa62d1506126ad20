"""The pixel normalisation that every CLIP model expects (Radford et al. 2021)."""

import torch
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of RGB in [0, 1]
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_normalise(pixels: Tensor) -> Tensor:
    """Normalise RGB (..., 3, H, W) in [0, 1] for CLIP."""
    mean, std = _statistics(pixels)
    return (pixels - mean) / std


def clip_denormalise(pixels: Tensor) -> Tensor:
    """Invert `clip_normalise`."""
    mean, std = _statistics(pixels)
    return pixels * std + mean


def _statistics(like: Tensor) -> list[Tensor]:
    return [
        torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None] for values in (CLIP_MEAN, CLIP_STD)
    ]
