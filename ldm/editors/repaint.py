"""RePaint (Lugmayr et al., 2201.09865): fill holes with a model that was never trained to, by resampling.

In pictures, with a model of pictures; or in latents, with any latent model: unconditional, of prompts, or of exemplars.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor, nn

from ldm.diffusion.schedule import strided_timesteps
from ldm.editors.compose import Region
from ldm.editors.denoisers import check_class, check_classifier, told_class, told_exemplar, told_prompts
from ldm.editors.editor import Editor, check_exemplar_model, check_text_model, check_untold_model
from ldm.editors.exemplar import exemplar_pixels, fit_exemplar
from ldm.editors.settings import Compositing, RePaintSettings
from ldm.models.clip_text import TextConditioner
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.models.pixel_diffusion import PixelDiffusion
from ldm.samplers.common import Callback, Denoise
from ldm.samplers.repaint import repaint
from ldm.utils.errors import UserError
from ldm.utils.mask import fit_mask, mask_picture
from ldm.utils.random import NoiseSource


@dataclass(frozen=True)
class RePaintResult:
    """Filled pictures and what they were made from.

    Attributes:
        images: one per sample, of the picture's size; RGBA with its own alpha if it had one.
        seeds: sample k alone is made again by `seed=seeds[k], n_samples=1`.
        mask: the hole, mode L at the picture's size, 255 = repainted.
        masked: the picture with its hole blanked.
        settings: how they were made.
    """

    images: list[Image.Image]
    seeds: list[int]
    mask: Image.Image
    masked: Image.Image
    settings: RePaintSettings


@dataclass(frozen=True)
class Wish:
    """What is told to a model about a picture.

    Args:
        class_id: of a class-conditional model or of the classifier's classes.
        prompt, negative: of a text-to-image model; the empty prompt is its unconditional model.
        pixels: (1, 3, S, S) of an exemplar model, see `exemplar_pixels`.
    """

    class_id: int | None = None
    prompt: str = ""
    negative: str = ""
    pixels: Tensor | None = None


class RePaint(Editor[RePaintSettings]):
    """Fills holes of pictures.

    Args:
        model: a `PixelDiffusion`, or a `LatentDiffusion`: without conditioner (it may know classes), of prompts, or of
            exemplars (with 9 input channels), where resampling harmonises what is painted with its surroundings.
        settings: used where a call does not say otherwise.
        classifier: `(x (B, 3, H, W) noisy, t (B,)) -> (B, num_classes)`, an attribute that it must have; guides a
            `PixelDiffusion` (2105.05233).

    Raises:
        UserError: it is another kind of model, its parts do not fit together, or the classifier does not say its
            `num_classes` or cannot guide it.
    """

    def __init__(
        self, model: PixelDiffusion | LatentDiffusion, settings: RePaintSettings, classifier: nn.Module | None = None
    ):
        if not isinstance(model, PixelDiffusion | LatentDiffusion):
            raise UserError(f"RePaint: {type(model).__name__} is no diffusion model")
        if classifier is not None and not isinstance(model, PixelDiffusion):
            raise UserError(f"a classifier guides models of pictures, not {type(model).__name__}")
        check_classifier(classifier)
        super().__init__(model, settings)
        self.classifier = classifier
        if isinstance(model, LatentDiffusion):
            check_latent_model(model, "RePaint")

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image,
        mask: Image.Image | Tensor,
        *,
        class_id: int | None = None,
        prompt: str | None = None,
        negative: str = "",
        exemplar: Image.Image | None = None,
        callback: Callback | None = None,
        **changes: object,
    ) -> RePaintResult:
        """Fill the hole of one picture.

        Args:
            image: of any size.
            mask: what to fill: a picture (white = repaint, see `ldm.utils.mask`) or (1, 1, H, W) of zeros and ones.
            class_id: for a class-conditional model, or the classifier; there is no default.
            prompt, negative: for a text-to-image model; without a prompt it is used unconditionally.
            exemplar: for an exemplar model, what to paint, of any size.
            callback: `(i, t, x, x0)` after each call of the network; x0 is the clean sample predicted so far.
            changes: fields of `RePaintSettings`, e.g. `seed=3`.

        Raises:
            UserError: an ill-fitting mask, one that leaves nothing known or nothing to fill, a wrong setting, or
                something the model needs or cannot use.
        """
        settings = replace(self.settings, **changes)
        region = self.region(image, fit_mask(mask, image.size, settings.mask_rule), settings)
        wish = self.wish(class_id, prompt, negative, exemplar)
        seeds = [settings.seed + k for k in range(settings.n_samples)]
        z = self.sample(region.window, region.hole, [wish], NoiseSource(seeds), settings, callback)
        return RePaintResult(
            images=region.lay_in(self.decode(z), settings),
            seeds=seeds,
            mask=mask_picture(region.mask),
            masked=region.masked,
            settings=settings,
        )

    def fill_all(
        self, regions: Sequence[Region], wishes: Sequence[Wish], seeds: Sequence[int], settings: RePaintSettings
    ) -> list[Image.Image]:
        """Fill the holes of several pictures, a sample of each; those whose windows are of one size in one batch.

        Args:
            regions: of this editor, by the same settings.
            wishes: one for each.
            seeds: one for each: region k alone is filled so by `seed=seeds[k], n_samples=1`, but for rounding.
            settings: how; the seed and n_samples are not read.
        """

        def sample(windows: Tensor, holes: Tensor, rows: list[int]) -> Tensor:
            noise = NoiseSource(seeds[row] for row in rows)
            return self.sample(windows, holes, [wishes[row] for row in rows], noise, settings)

        return self.lay_in_all(regions, settings, sample)

    def region(self, image: Image.Image, mask: Tensor, settings: Compositing) -> Region:
        """As of every editor.

        Raises:
            UserError: nothing of the picture is known, see `sample`.
        """
        if mask.all():
            raise UserError("mask: everything is selected, nothing of the picture is known (ldm sample samples)")
        region = super().region(image, mask, settings)
        self._known_cells(region.hole, settings)
        return region

    def wish(
        self,
        class_id: int | None = None,
        prompt: str | None = None,
        negative: str = "",
        exemplar: Image.Image | None = None,
    ) -> Wish:
        """
        Raises:
            UserError: the model needs something else, or cannot use something.
        """
        check_class(self.model, class_id, self.classifier)
        if not self.takes_prompts and (prompt is not None or negative):
            raise UserError("prompt: this model takes none")
        if self.takes_exemplars != (exemplar is not None):
            raise UserError(f"exemplar: this model {'needs one' if self.takes_exemplars else 'takes none'}")
        pixels = None
        if exemplar is not None:
            pixels = exemplar_pixels(fit_exemplar(exemplar, self.model.conditioner.image_size, "stretch"))
        return Wish(class_id, prompt or "", negative, pixels)

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
        wishes: Sequence[Wish],
        noise: NoiseSource,
        settings: RePaintSettings,
        callback: Callback | None = None,
    ) -> Tensor:
        """What fills the holes: pictures or latents (B, c, h, w) float32, that which is known of them exact.

        Args:
            image: (B or 1, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            mask: (B or 1, 1, H, W), 1 = repaint.
            wishes: B, or one for all.
            noise: draws B rows: the start, for an exemplar model the posterior of the masked picture's latent, and
                what the steps add.
            settings: how; what concerns compositing and the seed is not read, but for what an error says.

        Raises:
            UserError: of a picture nothing is known: no pixel, or in latents no cell that is known wholly. A crop of
                `auto`, which shrinks pictures to the model's size and calls a pixel unknown if any that it stands for
                is, can come to that with fine masks.
        """
        model, schedule, device = self.model, self.model.schedule, self.like.device
        cells = self._known_cells(mask, settings).to(device)
        x = noise.randn(*model.latent_shape(*image.shape[-2:]))
        denoise, gradient = self.denoiser(image, mask, wishes, noise, x.shape, settings)
        return repaint(
            denoise,
            x.to(device),
            schedule,
            strided_timesteps(settings.steps, schedule.num_timesteps),
            settings.times(),
            self.encode(image),
            cells,
            reverse=settings.sampler,
            variance=getattr(model, "variance", "fixed_small"),
            eta=settings.eta,
            gradient=gradient,
            noise=noise.randn,
            callback=callback,
        )

    def _known_cells(self, mask: Tensor, settings: Compositing) -> Tensor:
        """What `to_cells` makes of a mask; raises what `sample` says."""
        cells, side = self.to_cells(mask), self.model.downsampling
        if bool(cells.flatten(1).all(1).any()):
            if side > 1:
                raise UserError(f"mask: leaves no latent cell of {side} pixels a side that is wholly known")
            shrunk = ": crop auto shrinks the picture until none is left; use crop none"
            raise UserError(f"mask: leaves no known pixel{shrunk if settings.crop == 'auto' else ''}")
        return cells

    def denoiser(
        self,
        image: Tensor,
        mask: Tensor,
        wishes: Sequence[Wish],
        noise: NoiseSource,
        shape: Sequence[int],
        settings: RePaintSettings,
    ) -> tuple[Denoise, Denoise | None]:
        """`denoise` and `gradient` as `repaint` wants them."""
        model, batch, scale = self.model, shape[0], settings.guidance_scale
        if self.takes_exemplars:
            context = model.conditioner(torch.cat([wish.pixels for wish in wishes]).to(self.like))
            return told_exemplar(model, image, mask, context, noise.randn(*shape[1:]), scale), None
        wishes = [*wishes] * (batch // len(wishes))
        if self.takes_prompts:
            prompts, negatives = [wish.prompt for wish in wishes], [wish.negative for wish in wishes]
            return told_prompts(model, prompts, negatives, scale), None
        classes, ancestral = [wish.class_id for wish in wishes], settings.sampler == "ddpm"
        return told_class(model, classes, self.classifier, settings.classifier_scale, ancestral)


def check_latent_model(model: LatentDiffusion, purpose: str) -> None:
    """
    Raises:
        UserError: the model is none that can be told a prompt, a picture, or nothing.
    """
    if model.conditioner is None:
        check_untold_model(model, purpose)
    elif hasattr(model.conditioner, "image_size"):
        check_exemplar_model(model, purpose)
    else:
        check_text_model(model, purpose)
