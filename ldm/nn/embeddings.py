"""Numbers as vectors."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Sinusoids of the timestep (1706.03762, section 3.5), in the order [cos, sin] of the diffusion codebases.

    Args:
        t: (B,) timesteps, whole or fractional.
        dim: length of the embedding; an odd one ends in a zero.
        max_period: the longest wavelength is just below 2 pi times this.

    Returns:
        (B, dim) float32.
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t[:, None].float() * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    return F.pad(embedding, (0, dim % 2))
