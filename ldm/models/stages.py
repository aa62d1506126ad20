"""The stages of a U-Net: residual blocks and attention in a row, and how the way down and the middle are made of them.

Shared by the whole U-Nets and by the classifier of ADM (2105.05233), which is one's first half.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.models.attention import AttentionBlock, SpatialTransformer
from ldm.models.residual import Downsample, ResBlock, Upsample
from ldm.utils.errors import UserError


class Stage(nn.Sequential):
    """Layers in a row, each handed the conditions that it takes."""

    def __init__(self, *layers: nn.Module, use_checkpoint: bool = False):
        super().__init__(*layers)
        self.use_checkpoint = use_checkpoint

    def forward(self, h: Tensor, emb: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in self:
            match layer:
                case ResBlock():
                    inputs = (h, emb)
                case SpatialTransformer():
                    inputs = (h, context)
                case _:
                    inputs = (h,)
            if self.use_checkpoint and torch.is_grad_enabled():
                h = checkpoint(layer, *inputs, use_reentrant=False)
            else:
                h = layer(*inputs)
        return h


@dataclass(frozen=True)
class StageMaker:
    """Makes the stages of one network. What its parameters mean is said at `UNet`; `emb_channels` is the time's width.

    Levels count from 0 at full size; sides halve from one to the next.
    """

    emb_channels: int
    attention_resolutions: Sequence[int]
    num_heads: int = -1
    num_head_channels: int = -1
    context_dim: int | None = None
    transformer_depth: int = 1
    use_scale_shift_norm: bool = False
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    dropout: float = 0.0
    use_checkpoint: bool = False

    def residual(self, before: int, after: int, resample: str | None = None) -> nn.Module:
        return ResBlock(before, after, self.emb_channels, self.dropout, self.use_scale_shift_norm, resample)

    def attention(self, channels: int) -> nn.Module:
        heads = self.num_heads if self.num_head_channels == -1 else channels // self.num_head_channels
        if heads < 1 or channels % heads or self.num_head_channels not in (-1, channels // heads):
            given = f"num_heads {self.num_heads}, num_head_channels {self.num_head_channels}"
            raise UserError(f"UNet: {channels} channels do not divide into heads ({given})")
        if self.context_dim is None:
            return AttentionBlock(channels, heads, self.use_new_attention_order)
        return SpatialTransformer(channels, heads, self.context_dim, self.transformer_depth)

    def block(self, before: int, after: int, level: int) -> list[nn.Module]:
        """A residual block, and attention where the level has it."""
        has_attention = 2**level in self.attention_resolutions
        return [self.residual(before, after), *([self.attention(after)] if has_attention else [])]

    def down(self, channels: int) -> nn.Module:
        return self.residual(channels, channels, "down") if self.resblock_updown else Downsample(channels)

    def up(self, channels: int) -> nn.Module:
        return self.residual(channels, channels, "up") if self.resblock_updown else Upsample(channels)

    def stage(self, *layers: nn.Module) -> Stage:
        return Stage(*layers, use_checkpoint=self.use_checkpoint)

    def way_down(self, in_channels: int, widths: Sequence[int], num_res_blocks: int) -> tuple[nn.ModuleList, list[int]]:
        """The first convolution and all levels, and the channels that leave each of these stages."""
        channels = widths[0]
        stages = nn.ModuleList([self.stage(nn.Conv2d(in_channels, channels, 3, padding=1))])
        leaving = [channels]
        for level, width in enumerate(widths):
            for _ in range(num_res_blocks):
                stages.append(self.stage(*self.block(channels, width, level)))
                channels = width
                leaving.append(channels)
            if level < len(widths) - 1:
                stages.append(self.stage(self.down(channels)))
                leaving.append(channels)
        return stages, leaving

    def middle(self, channels: int) -> Stage:
        """At the smallest size; it always has attention."""
        return self.stage(
            self.residual(channels, channels), self.attention(channels), self.residual(channels, channels)
        )
