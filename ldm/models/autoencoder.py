"""The KL-regularised autoencoder of latent diffusion (2112.10752), with the official checkpoints' names."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.models.attention import attend, to_image, to_tokens
from ldm.models.layers import Upsample


@dataclass
class DiagonalGaussian:
    """The normal distribution N(mean, exp(logvar)) of a latent, independent per element; both (B, C, h, w)."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments: Tensor) -> "DiagonalGaussian":
        """Return the distribution of moments (B, 2 C, h, w): means, then log variances, clamped to [-30, 20]."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30, 20))

    def sample(self, noise: Tensor) -> Tensor:
        """Return mean + std * noise, with standard normal `noise` of the latent's shape."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def mode(self) -> Tensor:
        """Return the mean."""
        return self.mean

    def kl(self) -> Tensor:
        """Return the KL divergence from the standard normal, (B,), summed over the latent (1312.6114, appendix B)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).flatten(1).sum(1)


class AutoencoderKL(nn.Module):
    """An autoencoder of images, with small latents.

    Args:
        ch: width at full resolution.
        ch_mult: width at each resolution, as a multiple of `ch`; every resolution has half the side of the one before.
        num_res_blocks: residual blocks per resolution (the decoder has one more).
        z_channels: channels at the bottleneck.
        embed_dim: channels of the latent, after a 1x1 convolution.
        in_channels, out_channels: of the images.
    """

    def __init__(
        self,
        ch: int,
        ch_mult: tuple[int, ...],
        num_res_blocks: int,
        z_channels: int,
        embed_dim: int,
        in_channels: int = 3,
        out_channels: int = 3,
    ):
        super().__init__()
        self.latent_channels = embed_dim
        self.downsampling = 2 ** (len(ch_mult) - 1)
        self.encoder = Encoder(in_channels, ch, ch_mult, num_res_blocks, 2 * z_channels)
        self.decoder = Decoder(z_channels, ch, ch_mult, num_res_blocks, out_channels)
        self.quant_conv = nn.Conv2d(2 * z_channels, 2 * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, z_channels, 1)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """Return the posterior of the latents of images.

        (B, 3, H, W) in [-1, 1] -> (B, embed_dim, H/f, W/f), f = `downsampling`.
        """
        x = x.to(self.quant_conv.weight.dtype)
        return DiagonalGaussian.from_moments(self.quant_conv(self.encoder(x)))

    def decode(self, z: Tensor) -> Tensor:
        """Decode latents (B, embed_dim, h, w), not scaled, to images (B, 3, f h, f w), about [-1, 1]."""
        return self.decoder(self.post_quant_conv(z))


class Encoder(nn.Module):
    """The encoder: (B, in, H, W) -> (B, out, h, w)."""

    def __init__(self, in_channels: int, ch: int, ch_mult: tuple[int, ...], num_res_blocks: int, out_channels: int):
        super().__init__()
        widths = [ch * mult for mult in ch_mult]
        self.conv_in = nn.Conv2d(in_channels, ch, 3, padding=1)
        self.down = nn.ModuleList()
        for level, (before, width) in enumerate(zip([ch, *widths], widths, strict=False)):
            stage = nn.Module()
            stage.block = nn.Sequential(*(ResnetBlock(width if i else before, width) for i in range(num_res_blocks)))
            stage.downsample = Downsample(width) if level < len(widths) - 1 else nn.Identity()
            self.down.append(stage)
        self.mid = middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for stage in self.down:
            h = stage.downsample(stage.block(h))
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """The decoder: (B, in, h, w) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, ch: int, ch_mult: tuple[int, ...], num_res_blocks: int, out_channels: int):
        super().__init__()
        widths = [ch * mult for mult in ch_mult]
        self.conv_in = nn.Conv2d(in_channels, widths[-1], 3, padding=1)
        self.mid = middle(widths[-1])
        self.up = nn.ModuleList()  # up[0] is the finest resolution: it runs last
        for level, (width, before) in enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True)):
            stage = nn.Module()
            stage.block = nn.Sequential(
                *(ResnetBlock(width if i else before, width) for i in range(num_res_blocks + 1))
            )
            stage.upsample = Upsample(width) if level else nn.Identity()
            self.up.append(stage)
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for stage in reversed(self.up):
            h = stage.upsample(stage.block(h))
        return self.conv_out(F.silu(self.norm_out(h)))


def group_norm(channels: int) -> nn.GroupNorm:
    """Return the autoencoder's norm: 32 groups, epsilon 1e-6."""
    return nn.GroupNorm(32, channels, eps=1e-6)


def middle(channels: int) -> nn.Sequential:
    """Return two residual blocks with attention between them, for the lowest resolution."""
    mid = nn.Sequential()
    mid.add_module("block_1", ResnetBlock(channels, channels))
    mid.add_module("attn_1", AttnBlock(channels))
    mid.add_module("block_2", ResnetBlock(channels, channels))
    return mid


class ResnetBlock(nn.Module):
    """A residual block of two convolutions: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(x) + h


class AttnBlock(nn.Module):
    """Self-attention with one head over all positions of x (B, C, H, W), added to x."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (to_tokens(project(h)) for project in (self.q, self.k, self.v))
        return x + self.proj_out(to_image(attend(q, k, v, heads=1), like=x))


class Downsample(nn.Module):
    """Downsampling by 2: a convolution that is padded on the right and at the bottom only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))
