"""Pictures from noise, by a model of pictures: unconditional, or of a class (Dhariwal and Nichol, 2105.05233)."""

from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor, nn

from ldm.diffusion.schedule import strided_timesteps
from ldm.editors.denoisers import check_class, check_classifier, told_class
from ldm.editors.editor import Editor
from ldm.editors.settings import PixelSampling
from ldm.models.pixel_diffusion import PixelDiffusion
from ldm.samplers import SAMPLERS
from ldm.samplers.common import Callback
from ldm.utils.errors import UserError
from ldm.utils.image import to_pil
from ldm.utils.random import NoiseSource


@dataclass(frozen=True)
class SamplesResult:
    """
    Attributes:
        images: RGB, of the size the model was trained at.
        seeds: picture k alone is made again by `seed=seeds[k], n_samples=1`.
        settings: how they were made.
    """

    images: list[Image.Image]
    seeds: list[int]
    settings: PixelSampling


class PixelSampler(Editor[PixelSampling]):
    """Makes pictures of the kind that a model was trained on.

    Args:
        model: a `PixelDiffusion`.
        settings: used where a call does not say otherwise.
        classifier: `(x (B, 3, H, W) noisy, t (B,)) -> (B, num_classes)`, an attribute that it must have; if it is to
            guide.

    Raises:
        UserError: the model is none of pictures, or the classifier does not say its `num_classes`.
    """

    def __init__(self, model: PixelDiffusion, settings: PixelSampling, classifier: nn.Module | None = None):
        if not isinstance(model, PixelDiffusion):
            raise UserError(f"sampling: {type(model).__name__} is no model of pictures (ldm txt2img has prompts)")
        check_classifier(classifier)
        super().__init__(model, settings)
        self.classifier = classifier

    @torch.no_grad()
    def __call__(
        self, *, class_id: int | None = None, callback: Callback | None = None, **changes: object
    ) -> SamplesResult:
        """Make `n_samples` pictures in one batch; the batch does not change them.

        Args:
            class_id: for a class-conditional model, or the classifier; there is no default.
            callback: `(i, t, x, x0)` after each step.
            changes: fields of `PixelSampling`, e.g. `seed=3`; to another `sampler` belong other `steps`.

        Raises:
            UserError: a wrong setting, or a class that the model needs or cannot use.
        """
        settings = replace(self.settings, **changes)
        seeds = [settings.seed + k for k in range(settings.n_samples)]
        pictures = self.decode(self.sample(class_id, NoiseSource(seeds), settings, callback))
        return SamplesResult([to_pil(picture, settings.rounding) for picture in pictures], seeds, settings)

    @torch.no_grad()
    def sample(
        self, class_id: int | None, noise: NoiseSource, settings: PixelSampling, callback: Callback | None = None
    ) -> Tensor:
        """Pictures (B, 3, H, W) float32, about [-1, 1]; `noise` draws B rows: the start, and what the steps add."""
        check_class(self.model, class_id, self.classifier)
        model, schedule, ancestral = self.model, self.model.schedule, settings.sampler == "ddpm"
        x = noise.randn(*model.latent_shape(model.image_size, model.image_size))
        scale = settings.classifier_scale
        denoise, gradient = told_class(model, [class_id] * len(x), self.classifier, scale, ancestral)
        options = {"variance": model.variance, "gradient": gradient} if ancestral else {}
        if settings.sampler == "ddim":
            options = {"eta": settings.eta, "clean": True}
        timesteps = strided_timesteps(settings.steps, schedule.num_timesteps)
        sampler, start = SAMPLERS[settings.sampler], x.to(self.like.device)
        return sampler(denoise, start, schedule, timesteps, noise=noise.randn, callback=callback, **options)
