"""The U-Net of Stable Diffusion, Paint by Example and ADM, with the official checkpoints' names.

One class, because at equal options the networks of CompVis (2112.10752) and of guided-diffusion (2105.05233) have the
same parameters in the same order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.models.attention import AttentionBlock, SpatialTransformer
from ldm.models.layers import Downsample, ResBlock, TimeEmbedding, Upsample, zero_init
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


class UNet(nn.Module):
    """Predict the noise (or v) in noisy images or latents.

    Args:
        in_channels, out_channels: 4 and 4 in Stable Diffusion, 9 and 4 in Paint by Example; ADM predicts its variance
            beside the noise and has 3 and 6.
        model_channels: base width.
        num_res_blocks: residual blocks per resolution on the way down (one more on the way up).
        attention_resolutions: downsampling factors (1, 2, 4, ...) that have attention; the middle always has it.
        channel_mult: width at each resolution, as a multiple of `model_channels`; sides halve from one to the next.
        num_heads: attention heads, at every width;
        num_head_channels: or instead the width of a head, -1 for `num_heads`.
        context_dim: width of the context tokens that the attention layers see; None: they see the image alone.
        transformer_depth: transformer blocks per attention layer.
        num_classes: a class-conditional network; the labels' embedding is added to the time's.
        use_scale_shift_norm: the embedding scales and shifts the image in residual blocks instead of being added.
        resblock_updown: residual blocks change the resolution, instead of single convolutions.
        use_new_attention_order: order of q, k, v where there is no context, see `AttentionBlock`.
        dropout: in residual blocks.
        use_checkpoint: save memory in training by computing activations twice (1604.06174).

    Raises:
        UserError: the widths do not divide into heads.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        model_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        channel_mult: Sequence[float],
        num_heads: int = -1,
        num_head_channels: int = -1,
        context_dim: int | None = None,
        transformer_depth: int = 1,
        num_classes: int | None = None,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        use_new_attention_order: bool = False,
        dropout: float = 0.0,
        use_checkpoint: bool = False,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.model_channels = model_channels
        self.context_dim = context_dim
        self.num_classes = num_classes
        self.downsampling = 2 ** (len(channel_mult) - 1)
        emb_channels = 4 * model_channels
        widths = [int(mult * model_channels) for mult in channel_mult]

        make = StageMaker(
            emb_channels=emb_channels,
            attention_resolutions=attention_resolutions,
            num_heads=num_heads,
            num_head_channels=num_head_channels,
            context_dim=context_dim,
            transformer_depth=transformer_depth,
            use_scale_shift_norm=use_scale_shift_norm,
            resblock_updown=resblock_updown,
            use_new_attention_order=use_new_attention_order,
            dropout=dropout,
            use_checkpoint=use_checkpoint,
        )

        self.time_embed = TimeEmbedding(model_channels)
        self.label_emb = None if num_classes is None else nn.Embedding(num_classes, emb_channels)

        self.input_blocks, skips = make.way_down(in_channels, widths, num_res_blocks)
        channels = skips[-1]
        self.middle_block = make.middle(channels)
        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for i in range(num_res_blocks + 1):
                layers = make.block(channels + skips.pop(), width, level)
                channels = width
                if level and i == num_res_blocks:
                    layers.append(make.up(channels))
                self.output_blocks.append(make.stage(*layers))

        self.out = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), zero_init(nn.Conv2d(channels, out_channels, 3, padding=1))
        )

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None, y: Tensor | None = None) -> Tensor:
        """Run in the weights' precision and return in that of x.

        Args:
            x: (B, in_channels, H, W), sides multiples of `downsampling`.
            t: (B,) timesteps, 0 to 999.
            context: (B, L, context_dim) tokens, if the network takes any.
            y: (B,) int64 class labels, if the network has classes.

        Returns:
            (B, out_channels, H, W).
        """
        for name, value, wanted in (("context", context, self.context_dim), ("y", y, self.label_emb)):
            if (value is None) != (wanted is None):
                raise ValueError(f"UNet: {name} is {'missing' if value is None else 'given, but not used here'}")
        dtype = self.time_embed[0].weight.dtype
        emb = self.time_embed(t)  # (B, 4 model_channels)
        if y is not None:
            emb = emb + self.label_emb(y)
        context = None if context is None else context.to(dtype)

        h = x.to(dtype)
        skips = []
        for stage in self.input_blocks:
            h = stage(h, emb, context)
            skips.append(h)
        h = self.middle_block(h, emb, context)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, skips.pop()], dim=1), emb, context)
        return self.out(h).to(x.dtype)
