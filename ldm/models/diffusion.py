"""What diffusion models have in common, of latents or of pictures: a UNet and the constants of its weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ldm.models.unet import UNet

if TYPE_CHECKING:  # the mathematics is an argument: networks do not depend on it
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
    """Subclasses say what is diffused: `encode`, `decode`, `latent_shape`, and the pixels to a side of its cells.

    Args:
        unet: predicts the noise (or v).
        schedule: the noise schedule that it was trained with.
        image_size: the side, in pixels, that the model was trained at.
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
        return self.unet.out[-1].weight.device

    @property
    def num_classes(self) -> int | None:
        return self.unet.num_classes

    @property
    def multiple(self) -> int:
        """Image sides must be a multiple of this many pixels: each UNet level below the first halves what it sees."""
        return self.downsampling * self.unet.downsampling
