"""RePaint (Lugmayr et al., 2201.09865): fill holes with a model that was never trained to, by resampling.

In pictures, with a model of pictures; or in latents, with any latent model: unconditional, of prompts, or of exemplars.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ldm.diffusion.schedule import strided_timesteps
from ldm.editors.compose import Region
from ldm.editors.denoisers import check_class, check_classifier, class_denoiser, exemplar_denoiser, prompt_denoiser
from ldm.editors.editor import (
    RegionEditor,
    Result,
    check_exemplar_model,
    check_prompts,
    check_text_model,
    check_unconditional_model,
    for_each,
    own_seed,
)
from ldm.editors.exemplars import mix_exemplars
from ldm.models.clip_text import TextConditioner
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.models.pixel_diffusion import PixelDiffusion
from ldm.presets import Compositing, RePaintSettings
from ldm.samplers.common import Callback, Denoise
from ldm.samplers.repaint import Known, StepDown, repaint
from ldm.utils.errors import UserError
from ldm.utils.image import Picture, as_image
from ldm.utils.mask import fit_mask, mask_picture
from ldm.utils.random import NoiseSource


@dataclass(frozen=True)
class RePaintRequest:
    """A picture, and what should fill its hole.

    Attributes:
        image: of any size.
        mask: what to fill: a picture (white = repaint, see `ldm.utils.mask`) or (1, 1, H, W) of zeros and ones.
        class_id: for a class-conditional model, or the classifier; there is no default.
        prompt, negative: for a text-to-image model; without a prompt it is used unconditionally.
        exemplar: for an exemplar model, what to paint, of any size.
        seed: of the sample; by default as the settings say.
    """

    image: Picture
    mask: Picture
    class_id: int | None = None
    prompt: str | None = None
    negative: str = ""
    exemplar: Picture | None = None
    seed: int | None = None


@dataclass(frozen=True)
class RePaintResult(Result[RePaintSettings]):
    """Filled pictures and what they were made from.

    Attributes:
        images: one per sample, of the picture's size; RGBA with its own alpha if it had one.
        settings: how they were made.
        seeds: sample k alone is made again by `seed=seeds[k], n_samples=1`.
        mask: the hole, mode L at the picture's size, 255 = repainted.
        masked: the picture with its hole blanked.
    """

    seeds: list[int]
    mask: Image.Image
    masked: Image.Image


@dataclass(frozen=True)
class Condition:
    """A condition on what fills a hole, as far as a model takes one.

    Attributes:
        class_id: of a class-conditional model or of the classifier's classes.
        prompt, negative: of a text-to-image model; the empty prompt is its unconditional model.
        context: (1, L, C), of an exemplar.
    """

    class_id: int | None = None
    prompt: str = ""
    negative: str = ""
    context: Tensor | None = None


@dataclass(frozen=True)
class PreparedFill:
    """A request as the model sees it."""

    region: Region
    condition: Condition
    seed: int


class RePaint(RegionEditor[RePaintSettings, RePaintRequest, PreparedFill, RePaintResult]):
    """Editor that fills holes of pictures.

    Args:
        model: a `PixelDiffusion`, or a `LatentDiffusion`: without conditioner (it may know classes), of prompts, or of
            exemplars (with 9 input channels), where resampling harmonises what is painted with its surroundings.
        settings, changes: see `Editor`; a preset of `configs/repaint`.
        classifier: `(x (B, 3, H, W) noisy, t (B,)) -> (B, num_classes)`, an attribute that it must have; guides a
            `PixelDiffusion` (2105.05233).

    Raises:
        UserError: it is another kind of model, its parts do not fit together, or the classifier does not say its
            `num_classes` or cannot guide it.
    """

    kind = RePaintSettings

    def __init__(
        self,
        model: PixelDiffusion | LatentDiffusion,
        settings: RePaintSettings | str | Path = "default",
        classifier: nn.Module | None = None,
        **changes: object,
    ):
        super().__init__(model, settings, **changes)
        if classifier is not None and not isinstance(model, PixelDiffusion):
            raise UserError(f"classifier: guides pixel models only, found {type(model).__name__}")
        check_classifier(classifier)
        self.classifier = classifier

    @staticmethod
    def check(model: PixelDiffusion | LatentDiffusion) -> None:
        if isinstance(model, LatentDiffusion):
            check_latent_model(model, "RePaint")
        elif not isinstance(model, PixelDiffusion):
            raise UserError(f"RePaint: expected a diffusion model, found {type(model).__name__}")

    @torch.no_grad()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        mask: Picture | Sequence[Picture],
        *,
        callback: Callback | None = None,
        class_id: int | None = None,
        prompt: str | None = None,
        negative: str = "",
        exemplar: Picture | Sequence[Picture] | None = None,
        **changes: object,
    ) -> RePaintResult | list[RePaintResult]:
        """Fill the hole of one picture, or of each of a list.

        Args:
            image, mask, class_id, prompt, negative, exemplar: see `RePaintRequest`. With a list of pictures masks
                and exemplars are lists too, or one for all.
            callback: `(i, t, x, x0)` after each call of the network; x0 is the clean sample predicted so far.
            changes: fields of `RePaintSettings`, e.g. `seed=3`.

        Raises:
            UserError: an ill-fitting mask, one that leaves nothing known or nothing to fill, a wrong setting, or
                something the model needs or cannot use.
        """
        wanted = {"class_id": class_id, "prompt": prompt, "negative": negative}

        def alone(image: Picture, mask: Picture, exemplar: Picture | None) -> RePaintResult:
            return self(image, mask, exemplar=exemplar, callback=callback, **wanted, **changes)

        if (results := for_each(alone, image, mask, exemplar)) is not None:
            return results
        settings = self.changed(changes)
        prepared = self.prepare(RePaintRequest(image, mask, **wanted, exemplar=exemplar), settings)
        seeds = [settings.seed + k for k in range(settings.n_samples)]
        region, noise = prepared.region, NoiseSource(seeds)
        with self.progress_bar(settings.calls(), "call", callback) as bar:
            step = callback or (lambda *_: bar.update())
            z = self.sample(region.window, region.hole, [prepared.condition], noise, settings, step)
        return self.result(prepared, region.composite(self.decode(z), settings), seeds, settings)

    def prepare(self, request: RePaintRequest, settings: RePaintSettings) -> PreparedFill:
        image = as_image(request.image)
        region = self.region(image, fit_mask(request.mask, image.size, settings.mask_rule, resize=False), settings)
        condition = self.condition(request.class_id, request.prompt, request.negative, request.exemplar)
        return PreparedFill(region, condition, own_seed(request.seed, settings))

    def sample_batch(
        self, windows: Tensor, holes: Tensor, batch: list[PreparedFill], settings: RePaintSettings
    ) -> Tensor:
        noise = NoiseSource(one.seed for one in batch)
        return self.sample(windows, holes, [one.condition for one in batch], noise, settings)

    def result(
        self, prepared: PreparedFill, images: list[Image.Image], seeds: list[int], settings: RePaintSettings
    ) -> RePaintResult:
        return RePaintResult(images, settings, seeds, mask_picture(prepared.region.mask), prepared.region.masked)

    def region(self, image: Image.Image, mask: Tensor, settings: Compositing) -> Region:
        """Return what an edit works on, as for every editor.

        Raises:
            UserError: nothing of the picture is known, see `sample`.
        """
        if mask.all():
            raise UserError(
                "mask: everything is selected, nothing of the picture is known; `ldm sample` draws whole pictures"
            )
        region = super().region(image, mask, settings)
        self._known_cells(region.hole, settings)
        return region

    def condition(
        self,
        class_id: int | None = None,
        prompt: str | None = None,
        negative: str = "",
        exemplar: Picture | None = None,
    ) -> Condition:
        """Return the condition for a request; see `RePaintRequest`.

        Raises:
            UserError: the model needs something else, or cannot use something.
        """
        self.check_condition(class_id, prompt, negative, exemplar)
        if self.takes_prompts:
            check_prompts(self.model, [prompt or "", negative])
        context = None
        if exemplar is not None:
            _, context = mix_exemplars(self.model.conditioner, exemplar, None, "stretch")
        return Condition(class_id, prompt or "", negative, context)

    def check_condition(
        self, class_id: int | None = None, prompt: str | None = None, negative: str = "", exemplar: Any = None
    ) -> None:
        """Refuse what the model cannot use or misses; its weights are not needed for that.

        Raises:
            UserError: see above.
        """
        check_class(self.model, class_id, self.classifier)
        if not self.takes_prompts and (prompt is not None or negative):
            raise UserError("prompt: this model takes no prompts")
        if self.takes_exemplars != (exemplar is not None):
            raise UserError(
                f"exemplar: {'is missing for this model' if self.takes_exemplars else 'this model takes no exemplars'}"
            )

    @property
    def takes_prompts(self) -> bool:
        return isinstance(self.model.conditioner, TextConditioner)

    @property
    def takes_exemplars(self) -> bool:
        return hasattr(self.model.conditioner, "image_size")

    @torch.no_grad()
    def sample(
        self,
        image: Tensor,
        mask: Tensor,
        conditions: Sequence[Condition],
        noise: NoiseSource,
        settings: RePaintSettings,
        callback: Callback | None = None,
    ) -> Tensor:
        """Fill the holes: pictures or latents (B, c, h, w) float32, exact where they are known.

        Args:
            image: (B or 1, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            mask: (B or 1, 1, H, W), 1 = repaint.
            conditions: B, or one for all.
            noise: draws B rows: the start, for an exemplar model the posterior of the masked picture's latent, and
                what the steps add.
            settings: how; compositing and the seed are not read (errors name the crop).

        Raises:
            UserError: nothing of a picture is known: no pixel, or no latent cell entirely. With fine masks
                `crop="auto"` can lead to that, since it shrinks pictures to the model's size, and a pixel of the small
                picture is unknown if any of those it stands for is.
        """
        model, schedule, device = self.model, self.model.schedule, self.like.device
        cells = self._known_cells(mask, settings).to(device)
        x = noise.randn(*model.latent_shape(*image.shape[-2:]))
        denoise, gradient = self.denoiser(image, mask, conditions, noise, x.shape, settings)
        variance = getattr(model, "variance", "fixed_small")
        return repaint(
            denoise,
            x.to(device),
            schedule,
            strided_timesteps(settings.steps, schedule.num_timesteps),
            settings.times(),
            Known(self.encode(image), cells),
            StepDown(settings.sampler, variance, settings.eta, gradient),
            noise=noise.randn,
            callback=callback,
        )

    def _known_cells(self, mask: Tensor, settings: Compositing) -> Tensor:
        """Return the latent cells of a mask, (B, 1, h, w).

        Raises:
            UserError: see `sample`.
        """
        cells, side = self.to_cells(mask), self.model.downsampling
        if bool(cells.flatten(1).all(1).any()):
            if side > 1:
                raise UserError(f"mask: leaves no latent cell, of {side} x {side} pixels, that is entirely known")
            shrunk = ": --crop auto shrinks the picture until none is left; use --crop none"
            raise UserError(f"mask: leaves no known pixel{shrunk if settings.crop == 'auto' else ''}")
        return cells

    def denoiser(
        self,
        image: Tensor,
        mask: Tensor,
        conditions: Sequence[Condition],
        noise: NoiseSource,
        shape: Sequence[int],
        settings: RePaintSettings,
    ) -> tuple[Denoise, Denoise | None]:
        """Return `denoise` and `gradient` as `repaint` takes them."""
        model, batch, scale = self.model, shape[0], settings.guidance_scale
        if self.takes_exemplars:
            context = torch.cat([condition.context for condition in conditions])
            return exemplar_denoiser(model, image, mask, context, noise.randn(*shape[1:]), scale), None
        conditions = [*conditions] * (batch // len(conditions))
        if self.takes_prompts:
            prompts = [condition.prompt for condition in conditions]
            return prompt_denoiser(model, prompts, [condition.negative for condition in conditions], scale), None
        classes, ancestral = [condition.class_id for condition in conditions], settings.sampler == "ddpm"
        return class_denoiser(model, classes, self.classifier, settings.classifier_scale, ancestral)


def check_latent_model(model: LatentDiffusion, purpose: str) -> None:
    """Refuse a latent model that follows neither a prompt nor an exemplar, and is not unconditional either.

    Raises:
        UserError: it is such a model.
    """
    if model.conditioner is None:
        check_unconditional_model(model, purpose)
    elif hasattr(model.conditioner, "image_size"):
        check_exemplar_model(model, purpose)
    else:
        check_text_model(model, purpose)
