"""The base of diffusion models, of latents or of pictures: a UNet and the constants of its weights."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from ldm.models.unet import UNet

if TYPE_CHECKING:  # for the annotation alone: networks do not import the mathematics
    from ldm.diffusion.schedule import Schedule


class DiffusionModel(nn.Module):
    """Base class of diffusion models; subclasses define `encode`, `decode`, `latent_shape` and `downsampling`.

    Args:
        unet: predicts the noise (or v).
        schedule: its noise schedule in training.
        image_size: side in pixels of the training images.
        prediction: what the UNet predicts, `eps` or `v`.
    """

    downsampling: int

    def __init__(self, unet: UNet, schedule: "Schedule", image_size: int, prediction: str):
        super().__init__()
        self.unet = unet
        self.schedule = schedule
        self.image_size = image_size
        self.prediction = prediction

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.unet.out[-1].weight.device

    @property
    def num_classes(self) -> int | None:
        """The number of classes that the UNet is conditioned on, None if it is not."""
        return self.unet.num_classes

    @property
    def multiple(self) -> int:
        """The number of pixels that image sides must be a multiple of: each UNet level after the first halves them."""
        return self.downsampling * self.unet.downsampling
