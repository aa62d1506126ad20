"""A latent diffusion model: an autoencoder, a UNet over its latents and a conditioner (Rombach et al., 2112.10752).

With a 9-channel UNet it is Paint by Example (Yang et al., 2211.13227): the input is the noisy latent, the latent of the
image with its hole blanked, and the mask.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.models.autoencoder import AutoencoderKL
from ldm.models.diffusion import DiffusionModel
from ldm.models.unet import UNet

if TYPE_CHECKING:  # for the annotation alone: networks do not import the mathematics
    from ldm.diffusion.schedule import Schedule


class LatentDiffusion(DiffusionModel):
    """The networks of one model and the constants that belong to its weights.

    Args:
        unet: 4 input channels (text or unconditional), or 9 for editing inside a mask. Without a conditioner it may
            be class-conditional.
        autoencoder: maps images to latents and back.
        conditioner: maps images or texts to context tokens (B, L, C); None for an unconditional model.
        schedule: the UNet's noise schedule in training.
        scale_factor: factor of the latents, for about unit variance (0.18215 in Stable Diffusion).
        image_size: side in pixels of the training images.
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
        """The side of a latent cell in pixels."""
        return self.autoencoder.downsampling

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return (channels, height, width) of the latent of an image of that size in pixels."""
        f = self.downsampling
        return self.autoencoder.latent_channels, height // f, width // f

    def encode(self, image: Tensor, noise: Tensor | None) -> Tensor:
        """Return scaled latents (B, c, H/f, W/f) of images (B, 3, H, W) in [-1, 1].

        They are a sample of the posterior by `noise`, of the latent's shape; with None its mode.
        """
        posterior = self.autoencoder.encode(image)
        return self.scale_factor * (posterior.mode() if noise is None else posterior.sample(noise))

    def decode(self, z: Tensor) -> Tensor:
        """Return the images (B, 3, H, W), about [-1, 1], of scaled latents."""
        return self.autoencoder.decode(z / self.scale_factor)

    def inpainting_channels(self, image: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """Return the UNet's inputs behind the noisy latent, (B, c + 1, H/f, W/f): masked image's latent and keep mask.

        Args:
            image: (B or 1, 3, H, W) in [-1, 1]; one image serves all rows of `noise` and is encoded once.
            mask: (B or 1, 1, H, W) in [0, 1], 1 = repaint. The hole becomes 0, mid grey. The network's channel is
                inverted (1 = keep) and shrunk bilinearly without antialiasing, as in the official training.
            noise: the latent's shape, for sampling the masked image's posterior.
        """
        keep = 1 - mask
        z_masked = self.encode(image * keep, noise)
        keep = shrink_mask(keep, z_masked.shape[-2:])
        return torch.cat([z_masked, keep.expand(len(z_masked), -1, -1, -1)], dim=1)


def shrink_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Shrink (B, 1, H, W) to (B, 1, *size), bilinearly, without antialiasing and without making it binary again."""
    return F.interpolate(mask, size=size, mode="bilinear", align_corners=False, antialias=False)
