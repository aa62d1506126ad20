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
    """Layers in a row; residual blocks get the embedding, transformers the context."""

    def __init__(self, *layers: nn.Module, use_checkpoint: bool = False):
        super().__init__(*layers)
        self.use_checkpoint = use_checkpoint

    def forward(self, h: Tensor, emb: Tensor, context: Tensor | None = None) -> Tensor:
        """Map h (B, C, H, W), emb (B, emb_channels) and context (B, L, context_dim) to (B, C', H', W')."""
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
    """A factory of the stages of one network; `UNet` documents the parameters.

    Levels count from 0 at full size; sides halve from one to the next. `emb_channels` is the length of the time
    embedding.
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
        """Make a residual block from `before` to `after` channels, which may change the resolution: `up` or `down`."""
        return ResBlock(before, after, self.emb_channels, self.dropout, self.use_scale_shift_norm, resample)

    def attention(self, channels: int) -> nn.Module:
        """Make an attention layer: over the positions and the context, or over the positions alone.

        Raises:
            UserError: the channels do not divide into heads.
        """
        heads = self.num_heads if self.num_head_channels == -1 else channels // self.num_head_channels
        if heads < 1 or channels % heads or self.num_head_channels not in (-1, channels // heads):
            given = f"num_heads {self.num_heads}, num_head_channels {self.num_head_channels}"
            raise UserError(f"UNet: {channels} channels, expected a number that divides into heads ({given})")
        if self.context_dim is None:
            return AttentionBlock(channels, heads, self.use_new_attention_order)
        return SpatialTransformer(channels, heads, self.context_dim, self.transformer_depth)

    def block(self, before: int, after: int, level: int) -> list[nn.Module]:
        """Make a residual block, and attention where the level has it."""
        has_attention = 2**level in self.attention_resolutions
        return [self.residual(before, after), *([self.attention(after)] if has_attention else [])]

    def down(self, channels: int) -> nn.Module:
        """Make the layer that halves the side."""
        return self.residual(channels, channels, "down") if self.resblock_updown else Downsample(channels)

    def up(self, channels: int) -> nn.Module:
        """Make the layer that doubles the side."""
        return self.residual(channels, channels, "up") if self.resblock_updown else Upsample(channels)

    def stage(self, *layers: nn.Module) -> Stage:
        """Make a stage of these layers."""
        return Stage(*layers, use_checkpoint=self.use_checkpoint)

    def way_down(self, in_channels: int, widths: Sequence[int], num_res_blocks: int) -> tuple[nn.ModuleList, list[int]]:
        """Make the first convolution and all levels; return these stages, and the channels after each of them."""
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
        """Make the stage of the smallest size, which always has attention."""
        return self.stage(
            self.residual(channels, channels), self.attention(channels), self.residual(channels, channels)
        )


class UNet(nn.Module):
    """A U-Net that predicts the noise (or v) in noisy images or latents.

    Args:
        in_channels, out_channels: 4 and 4 in Stable Diffusion, 9 and 4 in Paint by Example; 3 and 6 in ADM,
            which predicts its variance too.
        model_channels: base width.
        num_res_blocks: residual blocks per resolution on the way down (one more on the way up).
        attention_resolutions: downsampling factors (1, 2, 4, ...) that have attention; the middle always has it.
        channel_mult: width at each resolution, as a multiple of `model_channels`; sides halve from one to the next.
        num_heads: attention heads at every width, if `num_head_channels` is -1.
        num_head_channels: width of a head.
        context_dim: width of the context tokens of the attention layers; None: they attend to the image alone.
        transformer_depth: transformer blocks per attention layer.
        num_classes: number of classes of a conditional network; their embedding is added to the time's.
        use_scale_shift_norm: the embedding scales and shifts the image in residual blocks instead of being added.
        resblock_updown: residual blocks change the resolution, instead of single convolutions.
        use_new_attention_order: order of q, k, v where there is no context, see `AttentionBlock`.
        dropout: rate in residual blocks.
        use_checkpoint: save memory in training by computing activations twice (gradient checkpointing, 1604.06174).

    Raises:
        UserError: the widths do not divide into heads.
    """

    def __init__(  # noqa: PLR0913 (its hyper-parameters)
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
        """Return the prediction in x's precision; the network runs in that of its weights.

        Args:
            x: (B, in_channels, H, W), sides multiples of `downsampling`.
            t: (B,) timesteps, whole or fractional, 0 to 999.
            context: (B, L, context_dim) tokens, if the network takes any.
            y: (B,) int64 class labels, if the network has classes.

        Returns:
            (B, out_channels, H, W).
        """
        self._check_conditions(context, y)
        dtype = self.time_embed[0].weight.dtype
        # at level l: C_l = channel_mult[l] * model_channels, H_l = H / 2^l, W_l = W / 2^l
        emb = self.time_embed(t)  # (B, 4 model_channels)
        emb = emb if y is None else emb + self.label_emb(y)  # (B, 4 model_channels)
        context = None if context is None else context.to(dtype)  # (B, L, context_dim)

        h, skips = x.to(dtype), []  # (B, in_channels, H, W)
        for stage in self.input_blocks:
            h = stage(h, emb, context)  # (B, C_l, H_l, W_l), l = 0, 1, ...; the last stage of a level halves the side
            skips.append(h)
        h = self.middle_block(h, emb, context)  # (B, C_l, H_l, W_l), the last l
        for stage in self.output_blocks:
            h = torch.cat([h, skips.pop()], dim=1)  # (B, C_h + C_skip, H_l, W_l)
            h = stage(h, emb, context)  # (B, C_l, H_l, W_l), l = ..., 1, 0; the last stage of a level doubles the side
        return self.out(h).to(x.dtype)  # (B, out_channels, H, W)

    def _check_conditions(self, context: Tensor | None, y: Tensor | None) -> None:
        for name, value, wanted in (("context", context, self.context_dim), ("y", y, self.label_emb)):
            if (value is None) != (wanted is None):
                raise ValueError(f"UNet: {name} is {'missing' if value is None else 'given, but not used here'}")
