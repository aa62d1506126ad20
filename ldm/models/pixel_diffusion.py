"""A diffusion model of pictures themselves (Ho et al., 2006.11239; ADM: Dhariwal and Nichol, 2105.05233)."""

from typing import TYPE_CHECKING

from torch import Tensor

from ldm.models.diffusion import DiffusionModel
from ldm.models.unet import UNet
from ldm.utils.errors import UserError

if TYPE_CHECKING:  # for the annotation alone: networks do not import the mathematics
    from ldm.diffusion.schedule import Schedule

VARIANCES = ("fixed_small", "fixed_large", "learned_range", "learned_clipped")
"""The names of `ldm.diffusion.variance.VARIANCES`."""


class PixelDiffusion(DiffusionModel):
    """A UNet and the constants that belong to its weights, with the interface of a latent diffusion model.

    Args:
        unet: 3 channels in; 3 out, or 6 if it was trained to predict its variance too. It may be class-conditional.
        schedule: its noise schedule in training.
        image_size: side in pixels of the training pictures, a multiple of `multiple`.
        prediction: what the UNet predicts, `eps` or `v`.
        variance: of its reverse steps, see `ldm.diffusion.variance`; the UNet's predicted variance need not be used.

    Raises:
        UserError: the UNet's channels or `image_size` do not fit, or there is no such variance.
    """

    conditioner = None
    downsampling = 1  # "latents" are pictures

    def __init__(
        self,
        unet: UNet,
        schedule: "Schedule",
        image_size: int,
        prediction: str = "eps",
        variance: str = "learned_range",
    ):
        super().__init__(unet, schedule, image_size, prediction)
        if variance not in VARIANCES:
            raise UserError(f"variance {variance!r}: expected one of {', '.join(VARIANCES)}")
        if image_size < 1 or image_size % unet.downsampling:
            raise UserError(
                f"image_size {image_size}: expected a multiple of {unet.downsampling} for the levels of the UNet"
            )
        plain, found = unet.in_channels, unet.out_channels
        if found not in ((2 * plain,) if variance.startswith("learned") else (plain, 2 * plain)):
            expected = (
                f"{2 * plain} with {variance}" if found == plain else f"{plain}, or {2 * plain} with the variance"
            )
            raise UserError(f"unet: {found} channels out, expected {expected}")
        self.variance = variance

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (channels, height, width) of an image of that size in pixels."""
        return self.unet.in_channels, height, width

    def encode(self, image: Tensor, noise: Tensor | None) -> Tensor:
        """Return images (B, 3, H, W) in [-1, 1] as they are: pixels are diffused."""
        return image

    def decode(self, z: Tensor) -> Tensor:
        """Return images as they are."""
        return z
