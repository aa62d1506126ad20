"""Sampling of a pixel model: unconditional, or of one class (Dhariwal and Nichol, 2105.05233)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ldm.diffusion.schedule import strided_timesteps
from ldm.editors.denoisers import check_class, check_classifier, class_denoiser
from ldm.editors.editor import Editor, Result
from ldm.models.pixel_diffusion import PixelDiffusion
from ldm.presets import PixelSampling
from ldm.samplers import SAMPLERS
from ldm.samplers.common import Callback
from ldm.utils.errors import UserError
from ldm.utils.image import to_pil
from ldm.utils.random import NoiseSource


@dataclass(frozen=True)
class SamplesResult(Result[PixelSampling]):
    """Pictures and what they were made from.

    Attributes:
        images: RGB, of the size the model was trained at.
        settings: how they were made.
        seeds: picture k alone is made again by `seed=seeds[k], n_samples=1`.
    """

    seeds: list[int]


class PixelSampler(Editor[PixelSampling]):
    """Sampler of pictures of the kind that a model was trained on.

    Args:
        model: a `PixelDiffusion`.
        settings, changes: see `Editor`; a preset of `configs/sample`.
        classifier: `(x (B, 3, H, W) noisy, t (B,)) -> (B, num_classes)`, an attribute that it must have; if it is to
            guide.

    Raises:
        UserError: the model is not a pixel model, or the classifier has no `num_classes`.
    """

    kind = PixelSampling

    def __init__(
        self,
        model: PixelDiffusion,
        settings: PixelSampling | str | Path = "default",
        classifier: nn.Module | None = None,
        **changes: object,
    ):
        check_classifier(classifier)
        super().__init__(model, settings, **changes)
        self.classifier = classifier

    @staticmethod
    def check(model: PixelDiffusion) -> None:
        if not isinstance(model, PixelDiffusion):
            raise UserError(
                f"sampling: expected a pixel model, found {type(model).__name__} (`ldm txt2img` draws from prompts)"
            )

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
        settings = self.changed(changes)
        seeds = [settings.seed + k for k in range(settings.n_samples)]
        with self.progress_bar(settings.steps, "step", callback) as bar:
            step = callback or (lambda *_: bar.update())
            pictures = self.decode(self.sample(class_id, NoiseSource(seeds), settings, step))
        return SamplesResult([to_pil(picture, settings.rounding) for picture in pictures], settings, seeds)

    @torch.no_grad()
    def sample(
        self, class_id: int | None, noise: NoiseSource, settings: PixelSampling, callback: Callback | None = None
    ) -> Tensor:
        """Sample pictures (B, 3, H, W) float32, about [-1, 1]; `noise` draws B rows: start, then steps."""
        check_class(self.model, class_id, self.classifier)
        model, schedule, ancestral = self.model, self.model.schedule, settings.sampler == "ddpm"
        x = noise.randn(*model.latent_shape(model.image_size, model.image_size))
        scale = settings.classifier_scale
        denoise, gradient = class_denoiser(model, [class_id] * len(x), self.classifier, scale, ancestral)
        options: dict[str, Any] = {"end": None}  # pixels end clean
        if ancestral:
            options |= {"variance": model.variance, "gradient": gradient}
        if settings.sampler == "ddim":
            options["eta"] = settings.eta
        timesteps = strided_timesteps(settings.steps, schedule.num_timesteps)
        sampler, start = SAMPLERS[settings.sampler], x.to(self.like.device)
        return sampler(denoise, start, schedule, timesteps, noise=noise.randn, callback=callback, **options)
