"""The U-Net of Stable Diffusion, Paint by Example and ADM, with the official checkpoints' names.

One class, because at equal options the networks of CompVis (2112.10752) and of guided-diffusion (2105.05233) have the
same parameters in the same order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ldm.nn.attention import AttentionBlock, SpatialTransformer
from ldm.nn.embeddings import timestep_embedding
from ldm.nn.initialization import zero_init
from ldm.nn.residual import Downsample, ResBlock, Upsample
from ldm.utils.errors import UserError


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
        self.downsampling = 2 ** (len(channel_mult) - 1)
        emb_channels = 4 * model_channels
        widths = [int(mult * model_channels) for mult in channel_mult]

        def residual(before: int, after: int, resample: str | None = None) -> nn.Module:
            return ResBlock(before, after, emb_channels, dropout, use_scale_shift_norm, resample)

        def attention(channels: int) -> nn.Module:
            heads = num_heads if num_head_channels == -1 else channels // num_head_channels
            if heads < 1 or channels % heads or num_head_channels not in (-1, channels // heads):
                given = f"num_heads {num_heads}, num_head_channels {num_head_channels}"
                raise UserError(f"UNet: {channels} channels do not divide into heads ({given})")
            if context_dim is None:
                return AttentionBlock(channels, heads, use_new_attention_order)
            return SpatialTransformer(channels, heads, context_dim, transformer_depth)

        def block(before: int, after: int, level: int) -> list[nn.Module]:
            has_attention = 2**level in attention_resolutions
            return [residual(before, after), attention(after)] if has_attention else [residual(before, after)]

        def stage(*layers: nn.Module) -> Stage:
            return Stage(*layers, use_checkpoint=use_checkpoint)

        self.time_embed = nn.Sequential(
            nn.Linear(model_channels, emb_channels), nn.SiLU(), nn.Linear(emb_channels, emb_channels)
        )
        self.label_emb = None if num_classes is None else nn.Embedding(num_classes, emb_channels)

        channels = widths[0]
        self.input_blocks = nn.ModuleList([stage(nn.Conv2d(in_channels, channels, 3, padding=1))])
        skips = [channels]
        for level, width in enumerate(widths):
            for _ in range(num_res_blocks):
                self.input_blocks.append(stage(*block(channels, width, level)))
                channels = width
                skips.append(channels)
            if level < len(widths) - 1:
                down = residual(channels, channels, "down") if resblock_updown else Downsample(channels)
                self.input_blocks.append(stage(down))
                skips.append(channels)

        self.middle_block = stage(residual(channels, channels), attention(channels), residual(channels, channels))

        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for i in range(num_res_blocks + 1):
                layers = block(channels + skips.pop(), width, level)
                channels = width
                if level and i == num_res_blocks:
                    layers.append(residual(channels, channels, "up") if resblock_updown else Upsample(channels))
                self.output_blocks.append(stage(*layers))

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
        emb = self.time_embed(timestep_embedding(t, self.model_channels).to(dtype))  # (B, 4 model_channels)
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


class Stage(nn.Sequential):
    """Layers in a row, each handed the conditions that it takes."""

    def __init__(self, *layers: nn.Module, use_checkpoint: bool = False):
        super().__init__(*layers)
        self.use_checkpoint = use_checkpoint

    def forward(self, h: Tensor, emb: Tensor, context: Tensor | None) -> Tensor:
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
