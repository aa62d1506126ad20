"""What all editors have in common: a model, the settings of their calls, and the way back to pictures."""

from typing import Generic, TypeVar

import torch
from torch import Tensor

from ldm.editors.settings import Settings
from ldm.models.clip_text import TextConditioner
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.utils.errors import UserError

S = TypeVar("S", bound=Settings)


class Editor(Generic[S]):
    """
    Args:
        model: on any device and in any precision.
        settings: used where a call does not say otherwise.
    """

    def __init__(self, model: LatentDiffusion, settings: S):
        self.model = model
        self.settings = settings

    @property
    def like(self) -> Tensor:
        """A tensor on the model's device, in its precision."""
        return next(self.model.parameters())

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latents -> pictures (B, 3, H, W) float32 on the CPU, about [-1, 1]."""
        pictures = self.model.decode(z.to(self.like)).float().cpu()
        if not pictures.isfinite().all():  # would be written as arbitrary colours
            raise UserError("the model's output is not finite: its weights are damaged, or its precision is too low")
        return pictures


def check_text_model(model: LatentDiffusion, purpose: str) -> None:
    """
    Raises:
        UserError: the model does not turn a prompt and nothing else into a picture.
    """
    needed, found = model.autoencoder.latent_channels, model.unet.in_channels
    if found != needed:
        raise UserError(f"{purpose}: the UNet has {found} input channels, not the {needed} of a text-to-image model")
    if not isinstance(model.conditioner, TextConditioner):
        raise UserError(f"{purpose}: {type(model.conditioner).__name__} takes no prompts")
