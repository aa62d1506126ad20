"""The base of diffusion models, of latents or of pictures: a UNet and the constants of its weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ldm.models.unet import UNet

if TYPE_CHECKING:  # for the annotation alone: networks do not import the mathematics
    from ldm.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Domain:
    """The pictures that a narrow model knows.

    Attributes:
        pictures: in words, for messages.
        round_trip: PSNR in dB, at which or above one of them comes back from the model's autoencoder.
    """

    pictures: str
    round_trip: float | None = None


class DiffusionModel(nn.Module):
    """Base class of diffusion models; subclasses define `encode`, `decode`, `latent_shape` and `downsampling`.

    Args:
        unet: predicts the noise (or v).
        schedule: its noise schedule in training.
        image_size: side in pixels of the training images.
        prediction: what the UNet predicts, `eps` or `v`.
    """

    downsampling: int
    domain: Domain | None = None  # of a model that knows few kinds of pictures

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
