"""The classifier of noisy pictures that guides ADM (Dhariwal and Nichol, 2105.05233, section 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldm.models.attention import AttentionPool
from ldm.models.layers import TimeEmbedding
from ldm.models.unet import StageMaker
from ldm.utils.errors import UserError

RGB = 3


class Classifier(nn.Module):
    """A classifier of noisy pictures: the first half of ADM's U-Net, with its tensors' names, and an attention pool.

    Args:
        image_size: side in pixels; the pool has an embedding of each position, so it takes no other.
        num_classes: number of logits.
        model_channels, num_res_blocks, attention_resolutions, channel_mult, num_head_channels,
            use_scale_shift_norm, resblock_updown: see `UNet`.

    Raises:
        UserError: the widths do not divide into heads, or image_size does not divide by the downsampling.
    """

    def __init__(
        self,
        image_size: int,
        num_classes: int,
        model_channels: int,
        num_res_blocks: int,
        attention_resolutions: Sequence[int],
        channel_mult: Sequence[float],
        num_head_channels: int,
        use_scale_shift_norm: bool = True,
        resblock_updown: bool = True,
    ):
        super().__init__()
        downsampling = 2 ** (len(channel_mult) - 1)
        if image_size % downsampling:
            raise UserError(f"Classifier: image_size {image_size}, expected a multiple of {downsampling}")
        self.image_size = image_size
        self.num_classes = num_classes
        make = StageMaker(
            emb_channels=4 * model_channels,
            attention_resolutions=attention_resolutions,
            num_head_channels=num_head_channels,
            use_scale_shift_norm=use_scale_shift_norm,
            resblock_updown=resblock_updown,
        )
        self.time_embed = TimeEmbedding(model_channels)
        widths = [int(mult * model_channels) for mult in channel_mult]
        self.input_blocks, leaving = make.way_down(RGB, widths, num_res_blocks)
        channels = leaving[-1]
        self.middle_block = make.middle(channels)
        pool = AttentionPool(image_size // downsampling, channels, channels // num_head_channels, num_classes)
        self.out = nn.Sequential(nn.GroupNorm(32, channels), nn.SiLU(), pool)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.out[0].weight.device

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return logits in x's precision; the network runs in that of its weights.

        Args:
            x: (B, 3, image_size, image_size), noised to t.
            t: (B,) timesteps, whole or fractional, 0 to 999.

        Returns:
            (B, num_classes) logits of p(y | x_t).

        Raises:
            UserError: the picture is of another size.
        """
        height, width = x.shape[-2:]
        if (height, width) != (self.image_size, self.image_size):
            side = self.image_size
            raise UserError(f"Classifier: a picture of {width}x{height} pixels, expected {side}x{side}")
        emb = self.time_embed(t)
        h = x.to(emb.dtype)
        for stage in (*self.input_blocks, self.middle_block):
            h = stage(h, emb)
        return self.out(h).to(x.dtype)
