"""A latent diffusion model: an autoencoder, a UNet over its latents and a conditioner (Rombach et al., 2112.10752).

With a 9-channel UNet it is Paint by Example (Yang et al., 2211.13227): the network sees the noisy latent, the latent of
the image with its hole blanked, and the mask.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.models.autoencoder import AutoencoderKL
from ldm.models.diffusion import DiffusionModel
from ldm.models.unet import UNet

if TYPE_CHECKING:  # the mathematics is an argument: networks do not depend on it
    from ldm.diffusion.schedule import Schedule


class LatentDiffusion(DiffusionModel):
    """The networks of one model and the constants that belong to its weights.

    Args:
        unet: 4 input channels (text or unconditional), or 9 for editing inside a mask. Without a conditioner it may
            know classes.
        autoencoder: images to latents and back.
        conditioner: image or text to context tokens (B, L, C); None for an unconditional model.
        schedule: the noise schedule that the UNet was trained with.
        scale_factor: latents are multiplied by it, for about unit variance (0.18215 in Stable Diffusion).
        image_size: the side, in pixels, that the model was trained at.
        prediction: what the UNet predicts, `eps` or `v`.
    """

    def __init__(
        self,
        unet: UNet,
        autoencoder: AutoencoderKL,
        conditioner: nn.Module | None,
        schedule: "Schedule",
        scale_factor: float,
        image_size: int,
        prediction: str = "eps",
    ):
        super().__init__(unet, schedule, image_size, prediction)
        self.autoencoder = autoencoder
        self.conditioner = conditioner
        self.scale_factor = scale_factor

    @property
    def downsampling(self) -> int:
        """Pixels to the side of a latent cell."""
        return self.autoencoder.downsampling

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(channels, height, width) of the latent of an image of that size in pixels."""
        f = self.downsampling
        return self.autoencoder.latent_channels, height // f, width // f

    def encode(self, image: Tensor, noise: Tensor | None) -> Tensor:
        """Scaled latents (B, c, H/f, W/f) of images (B, 3, H, W) in [-1, 1].

        A sample of the posterior by `noise`, of the latent's shape; its mode, always the same, with None.
        """
        posterior = self.autoencoder.encode(image)
        return self.scale_factor * (posterior.mode() if noise is None else posterior.sample(noise))

    def decode(self, z: Tensor) -> Tensor:
        """Images (B, 3, H, W), about [-1, 1], of scaled latents."""
        return self.autoencoder.decode(z / self.scale_factor)

    def inpainting_channels(self, image: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """What the UNet sees beside the noisy latent: (B, c + 1, H/f, W/f), masked image's latent and keep mask.

        Args:
            image: (B or 1, 3, H, W) in [-1, 1]; one image serves all rows of `noise` and is encoded once.
            mask: (B or 1, 1, H, W) in [0, 1], 1 = repaint. The hole becomes 0, mid grey. The network's own channel is
                turned around (1 = keep) and shrunk bilinearly without antialiasing, as in the official training.
            noise: the latent's shape, for sampling the masked image's posterior.
        """
        keep = 1 - mask
        z_masked = self.encode(image * keep, noise)
        keep = shrink_mask(keep, z_masked.shape[-2:])
        return torch.cat([z_masked, keep.expand(len(z_masked), -1, -1, -1)], dim=1)


def shrink_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) -> (B, 1, *size), bilinear, no antialiasing and not made binary again."""
    return F.interpolate(mask, size=size, mode="bilinear", align_corners=False, antialias=False)
