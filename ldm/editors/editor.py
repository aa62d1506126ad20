"""What all editors have in common: a model, the settings of their calls, and the way back to pictures."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.diffusion.schedule import sampling_timesteps
from ldm.editors import compose
from ldm.editors.settings import Compositing, Sampling, Settings
from ldm.models.clip_text import TextConditioner
from ldm.models.diffusion import DiffusionModel
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.samplers import SAMPLERS
from ldm.samplers.common import Callback, Denoise
from ldm.utils.errors import UserError
from ldm.utils.image import to_tensor
from ldm.utils.random import NoiseSource

S = TypeVar("S", bound=Settings)


class Editor(Generic[S]):
    """
    Args:
        model: on any device and in any precision.
        settings: used where a call does not say otherwise.
    """

    def __init__(self, model: DiffusionModel, settings: S):
        self.model = model
        self.settings = settings

    @property
    def like(self) -> Tensor:
        """A tensor on the model's device, in its precision."""
        return next(self.model.parameters())

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Pictures -> latents (B, c, h, w) float32, by the mode of the posterior: nothing about them is random."""
        return self.model.encode(image.to(self.like.device), None).float()

    def region(self, image: Image.Image, mask: Tensor, settings: Compositing) -> compose.Region:
        """What of a picture an edit inside a mask (1, 1, H, W) works on, as the settings say."""
        image, multiple = compose.keep_alpha(image), self.model.multiple
        view = compose.choose_view(mask, settings, self.model.image_size)
        window = view.to_model(view.cut(to_tensor(image)), multiple)
        return compose.Region(image, mask, view, window, view.mask_to_model(view.cut(mask), multiple))

    def lay_in_all(
        self,
        regions: Sequence[compose.Region],
        settings: Compositing,
        sample: Callable[[Tensor, Tensor, list[int]], Tensor],
    ) -> list[Image.Image]:
        """One finished picture of each region; those whose windows are of one size are sampled in one batch.

        Args:
            sample: (windows (B, 3, h, w), holes (B, 1, h, w), their places among the regions) -> latents.
        """
        pictures = [region.image for region in regions]
        for rows in compose.grouped(range(len(regions)), lambda row: regions[row].window.shape):
            windows, holes = (torch.cat([getattr(regions[row], name) for row in rows]) for name in ("window", "hole"))
            outputs = self.decode(sample(windows, holes, rows)).split(1)
            for row, output in zip(rows, outputs, strict=True):
                (pictures[row],) = regions[row].lay_in(output, settings)
        return pictures

    def to_cells(self, mask: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 1, h, w): a latent cell is edited if any of its pixels is."""
        return F.max_pool2d(mask, self.model.downsampling)

    def run_sampler(
        self, denoise: Denoise, x: Tensor, settings: Sampling, noise: NoiseSource, callback: Callback | None = None
    ) -> Tensor:
        """Pure noise x (B, ...) to a sample, on the default grid; sampler, steps and eta are read from the settings."""
        schedule = self.model.schedule
        timesteps = sampling_timesteps(settings.steps, schedule.num_timesteps)
        eta = {"eta": settings.eta} if settings.sampler == "ddim" else {}
        sampler, start = SAMPLERS[settings.sampler], x.to(self.like.device)
        return sampler(denoise, start, schedule, timesteps, noise=noise.randn, callback=callback, **eta)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latents -> pictures (B, 3, H, W) float32 on the CPU, about [-1, 1]."""
        pictures = self.model.decode(z.to(self.like)).float().cpu()
        check_finite(pictures)  # would be written as arbitrary colours
        return pictures


def check_finite(output: Tensor) -> None:
    """
    Raises:
        UserError: what a model made is not finite.
    """
    if not output.isfinite().all():
        raise UserError("the model's output is not finite: its weights are damaged, or its precision is too low")


def check_text_model(model: LatentDiffusion, purpose: str) -> None:
    """
    Raises:
        UserError: the model does not turn a prompt and nothing else into a picture.
    """
    if not isinstance(model, LatentDiffusion):
        raise UserError(f"{purpose}: {type(model).__name__} is no text-to-image model")
    check_unet(model, purpose, model.autoencoder.latent_channels, "a text-to-image model")
    if not isinstance(model.conditioner, TextConditioner):
        raise UserError(f"{purpose}: {type(model.conditioner).__name__} takes no prompts")


def check_exemplar_model(model: LatentDiffusion, purpose: str) -> None:
    """
    Raises:
        UserError: the model does not paint what a picture shows into the hole of another.
    """
    check_unet(model, purpose, 2 * model.autoencoder.latent_channels + 1, "an exemplar model")
    if not hasattr(model.conditioner, "image_size"):
        raise UserError(f"{purpose}: {type(model.conditioner).__name__} takes no pictures")


def check_untold_model(model: LatentDiffusion, purpose: str) -> None:
    """
    Raises:
        UserError: the model, which has no conditioner, does not work without one. It may know classes.
    """
    check_unet(model, purpose, model.autoencoder.latent_channels, "a model without conditioner", classes=True)
    if model.unet.context_dim is not None:
        raise UserError(f"{purpose}: the UNet takes context, and the model has no conditioner")


def check_unet(model: LatentDiffusion, purpose: str, channels: int, kind: str, classes: bool = False) -> None:
    """
    Raises:
        UserError: the UNet has other input channels than such a model needs, or knows classes, which none tells it.
    """
    found, those_by_example = model.unet.in_channels, 2 * model.autoencoder.latent_channels + 1
    if found != channels:
        hint = f" ({found} are those of an exemplar model)" if found == those_by_example else ""
        raise UserError(f"{purpose}: the UNet has {found} input channels, not the {channels} of {kind}{hint}")
    if not classes and getattr(model, "num_classes", None):
        raise UserError(f"{purpose}: the UNet knows {model.num_classes} classes, that of {kind} knows none")
