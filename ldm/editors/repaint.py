"""RePaint (Lugmayr et al., 2201.09865): fill holes with a model that was never trained to, by resampling.

In pictures, with a model of pictures; or in latents, with any latent model: unconditional, of prompts, or of exemplars.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor, nn

from ldm.diffusion.schedule import strided_timesteps
from ldm.editors import compose
from ldm.editors.conditions import check_class, check_classifier, told_class, told_exemplar, told_prompts
from ldm.editors.editor import Editor, check_exemplar_model, check_text_model, check_untold_model
from ldm.editors.exemplar import exemplar_pixels, fit_exemplar
from ldm.editors.settings import RePaintSettings
from ldm.models.clip_text import TextConditioner
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.models.pixel_diffusion import PixelDiffusion
from ldm.samplers.common import Callback, Denoise
from ldm.samplers.repaint import repaint
from ldm.utils.errors import UserError
from ldm.utils.image import to_pil, to_tensor
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
    """What is told to a model about the picture.

    Args:
        class_id: of a class-conditional model or of the classifier's classes.
        prompt, negative: of a text-to-image model; the empty prompt is its unconditional model.
        pixels: (B or 1, 3, S, S) of an exemplar model, see `exemplar_pixels`.
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
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        mask = fit_mask(mask, image.size, settings.mask_rule)
        if mask.all():
            raise UserError("mask: everything is selected, nothing of the picture is known (scripts/sample.py samples)")
        wish = self.wish(class_id, prompt, negative, exemplar)
        seeds = [settings.seed + k for k in range(settings.n_samples)]

        scene = to_tensor(image)
        view = compose.choose_view(mask, settings, self.model.image_size)
        window = view.to_model(view.cut(scene), self.model.multiple)
        hole = view.mask_to_model(view.cut(mask), self.model.multiple)
        z = self.sample(window, hole, wish, NoiseSource(seeds), settings, callback)
        return RePaintResult(
            images=compose.lay_in(view.from_model(self.decode(z)), image, mask, view, settings),
            seeds=seeds,
            mask=mask_picture(mask),
            masked=to_pil(scene[0] * (1 - mask[0])),
            settings=settings,
        )

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
        wish: Wish,
        noise: NoiseSource,
        settings: RePaintSettings,
        callback: Callback | None = None,
    ) -> Tensor:
        """What fills the holes: pictures or latents (B, c, h, w) float32, that which is known of them exact.

        Args:
            image: (B or 1, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            mask: (B or 1, 1, H, W), 1 = repaint.
            noise: draws B rows: the start, for an exemplar model the posterior of the masked picture's latent, and
                what the steps add.
            settings: how; what concerns compositing and the seed is not read, but for what an error says.

        Raises:
            UserError: of a picture nothing is known: no pixel, or in latents no cell that is known wholly. A crop of
                `auto`, which shrinks pictures to the model's size and calls a pixel unknown if any that it stands for
                is, can come to that with fine masks.
        """
        model, schedule, device = self.model, self.model.schedule, self.like.device
        cells = self.to_cells(mask).to(device)
        if bool(cells.flatten(1).all(1).any()):
            if model.downsampling > 1:
                side = f"{model.downsampling} pixels a side"
                raise UserError(f"mask: leaves no latent cell of {side} that is wholly known")
            shrunk = ": crop auto shrinks the picture until none is left; use crop none"
            raise UserError(f"mask: leaves no known pixel{shrunk if settings.crop == 'auto' else ''}")
        x = noise.randn(*model.latent_shape(*image.shape[-2:]))
        denoise, gradient = self.denoiser(image, mask, wish, noise, x.shape, settings)
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

    def denoiser(
        self,
        image: Tensor,
        mask: Tensor,
        wish: Wish,
        noise: NoiseSource,
        shape: Sequence[int],
        settings: RePaintSettings,
    ) -> tuple[Denoise, Denoise | None]:
        """`denoise` and `gradient` as `repaint` wants them."""
        model, batch, scale = self.model, shape[0], settings.guidance_scale
        if self.takes_exemplars:
            return told_exemplar(model, image, mask, wish.pixels, noise.randn(*shape[1:]), scale), None
        if self.takes_prompts:
            return told_prompts(model, [wish.prompt] * batch, wish.negative, scale), None
        ancestral = settings.sampler == "ddpm"
        return told_class(model, wish.class_id, batch, self.classifier, settings.classifier_scale, ancestral)


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
