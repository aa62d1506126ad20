"""Numbers as vectors."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class TimeEmbedding(nn.Sequential):
    """(B,) timesteps -> (B, 4 channels) in the weights' precision: two layers over sinusoids of length `channels`."""

    def __init__(self, channels: int):
        super().__init__(nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels))

    def forward(self, t: Tensor) -> Tensor:
        first = self[0]
        return super().forward(timestep_embedding(t, first.in_features).to(first.weight.dtype))
