"""Layers of the U-Nets of DDPM (2006.11239), ADM (2105.05233) and Stable Diffusion: time, residuals, resampling."""

import math
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def zero_init(module: M) -> M:
    """Set all parameters to zero and return the module: a residual branch that ends in it starts as the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def normal_init(parameter: nn.Parameter, std: float = 1.0) -> nn.Parameter:
    """Draw a parameter from N(0, std^2) and return it.

    On the meta device there is nothing to draw; torch would first load its compiler, which takes 2 s.
    """
    return parameter if parameter.is_meta else nn.init.normal_(parameter, std=std)


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000.0) -> Tensor:
    """Return sinusoids of the timestep (1706.03762, section 3.5), in the order [cos, sin] of the diffusion codebases.

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
    """An embedding of timesteps (B,) in (B, 4 channels), in the weights' precision: two layers over sinusoids."""

    def __init__(self, channels: int):
        super().__init__(nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels))

    def forward(self, t: Tensor) -> Tensor:
        first = self[0]
        return super().forward(timestep_embedding(t, first.in_features).to(first.weight.dtype))


class ResBlock(nn.Module):
    """A residual block conditioned on the time: (B, in, H, W), (B, emb_channels) -> (B, out, H', W').

    Args:
        in_channels, out_channels: of the image; where they differ, the skip connection is a 1x1 convolution.
        emb_channels: length of the time embedding.
        dropout: rate, before the second convolution.
        scale_shift: the embedding scales and shifts the normalised image (2105.05233, section 3), else it is added.
        resample: `up` doubles or `down` halves the side on the way, in both branches; None keeps it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        emb_channels: int,
        dropout: float = 0.0,
        scale_shift: bool = False,
        resample: Literal["up", "down"] | None = None,
    ):
        super().__init__()
        self.scale_shift = scale_shift
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, in_channels), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        self.resample = {"up": nn.Upsample(scale_factor=2.0), "down": nn.AvgPool2d(2), None: nn.Identity()}[resample]
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels if scale_shift else out_channels)
        )
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, out_channels),
            nn.SiLU(),
            nn.Dropout(dropout),
            zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, activation, convolution = self.in_layers
        h = convolution(self.resample(activation(norm(x))))
        emb = self.emb_layers(emb)[:, :, None, None]
        norm, *rest = self.out_layers
        if self.scale_shift:
            scale, shift = emb.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + emb)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(self.resample(x)) + h


class Downsample(nn.Module):
    """Downsampling by 2, by a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Upsampling by 2: nearest neighbour, then a convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
