"""Edit by example (Paint by Example, Yang et al., 2211.13227): repaint a masked region after an exemplar picture."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ldm.diffusion.denoiser import Denoiser
from ldm.editors import compose
from ldm.editors.conditions import told_exemplar
from ldm.editors.editor import Editor, check_exemplar_model
from ldm.editors.mask_inference import EmptyMask, InferredMask, infer_mask
from ldm.editors.sampling import run_sampler
from ldm.editors.settings import EditSettings, MaskInference
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.utils.clip import CLIP_MEAN, clip_normalise
from ldm.utils.image import to_pil, to_tensor
from ldm.utils.mask import Box, box_mask, fit_mask, mask_picture
from ldm.utils.random import NoiseSource, key_seed

Progress = Callable[[int, int, Tensor, Tensor], None]


@dataclass(frozen=True)
class EditResult:
    """The edited pictures and what the model was shown.

    Attributes:
        images: one per sample, of the scene's size; RGBA with the scene's own alpha if it had one.
        seeds: sample k alone is made again by `seed=seeds[k], n_samples=1`.
        mask: the hole, mode L at the scene's size, 255 = repainted.
        masked: the scene with its hole blanked, at the scene's size.
        exemplar: the exemplar as the image encoder sees it.
        settings: how the edit was made.
    """

    images: list[Image.Image]
    seeds: list[int]
    mask: Image.Image
    masked: Image.Image
    exemplar: Image.Image
    settings: EditSettings


@dataclass(frozen=True)
class BoxMask:
    """What of a box has to change.

    Attributes:
        map: (1, 1, H, W) in [0, 1] at the scene's size, 0 outside the box.
        mask: (1, 1, H, W), 1 where the map is above the threshold.
    """

    map: Tensor
    mask: Tensor


class ExemplarEditor(Editor[EditSettings]):
    """Repaints the masked region of a scene after an exemplar, with a 9-channel model.

    Args:
        model: a `LatentDiffusion` with an exemplar conditioner, on any device and in any precision.
        settings: used where a call does not say otherwise.
    """

    def __init__(self, model: LatentDiffusion, settings: EditSettings):
        check_exemplar_model(model, "editing by example")
        super().__init__(model, settings)

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image,
        mask: Image.Image | Tensor,
        exemplar: Image.Image,
        *,
        callback: Progress | None = None,
        start_seed: int | None = None,
        **changes: object,
    ) -> EditResult:
        """Edit one scene.

        Args:
            image: the scene, of any size.
            mask: what to repaint: a picture (white = repaint, see `ldm.utils.mask`) or (1, 1, H, W) of zeros and ones.
            exemplar: what to paint, of any size; transparency is filled with the mean colour of CLIP's training data.
            callback: `(i, t, x, x0)` after each step; x0 is the latent predicted so far.
            start_seed: take every sample's start from this one seed; by default from its own.
            changes: fields of `EditSettings`, e.g. `seed=3`; to another `sampler` belong other `steps`.

        Raises:
            UserError: an empty or ill-fitting mask, or a wrong setting.
        """
        settings = replace(self.settings, **changes)
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        mask = fit_mask(mask, image.size, settings.mask_rule)
        seeds = [settings.seed + k for k in range(settings.n_samples)]
        start = None if start_seed is None else NoiseSource([start_seed])
        seen = fit_exemplar(exemplar, self.model.conditioner.image_size, settings.exemplar_fit)
        pixels = exemplar_pixels(seen, float16=settings.exemplar_fit == "original")

        scene = to_tensor(image)
        view = compose.choose_view(mask, settings, self.model.image_size)
        window = view.to_model(view.cut(scene), self.model.multiple)
        hole = view.mask_to_model(view.cut(mask), self.model.multiple)
        z = self.sample(window, hole, pixels, NoiseSource(seeds), settings, callback, start)
        return EditResult(
            images=compose.lay_in(view.from_model(self.decode(z)), image, mask, view, settings),
            seeds=seeds,
            mask=mask_picture(mask),
            masked=to_pil(scene[0] * (1 - mask[0])),
            exemplar=seen,
            settings=settings,
        )

    @torch.no_grad()
    def infer_mask(
        self,
        image: Image.Image,
        box: Box,
        exemplar: Image.Image,
        inference: MaskInference,
        *,
        callback: Callable[[int], None] | None = None,
        **changes: object,
    ) -> BoxMask:
        """What of a box has to change for it to show the exemplar, as the mask of a call.

        Under `crop: auto` the model looks at a square around the box here, and around the mask in the call.

        Args:
            image: the scene, of any size.
            box: x0, y0, x1, y1 in its pixels, x1 and y1 exclusive.
            inference: how; a `DiffEditSettings` is one too. Its seed alone counts: edits of every seed share a mask.
            callback: told how many more evaluations of the network are done.
            changes: fields of `EditSettings`; exemplar_fit and crop are read.

        Raises:
            UserError: a wrong box or setting.
            EmptyMask: nothing in the box differs from the exemplar.
        """
        settings = replace(self.settings, **changes)
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        hole, size, multiple = box_mask(box, image.size), self.model.conditioner.image_size, self.model.multiple
        shown, wanted = (
            exemplar_pixels(fit_exemplar(picture, size, settings.exemplar_fit), settings.exemplar_fit == "original")
            for picture in (image.crop(box), exemplar)
        )
        view = compose.choose_view(hole, settings, self.model.image_size)
        repainted = view.mask_to_model(view.cut(hole), multiple)
        found = self.compare(
            view.to_model(view.cut(to_tensor(image)), multiple),
            repainted,
            shown,
            wanted,
            inference,
            callback,
            inside=repainted * view.inside(multiple),
        )
        placed = []
        for values in (F.interpolate(found.map, found.mask.shape[-2:], mode="nearest"), found.mask):
            placed.append(torch.zeros_like(hole))
            view.cut(placed[-1]).copy_(view.mask_from_model(values))
        result = BoxMask(*(values * hole for values in placed))
        if not result.mask.any():
            name = ",".join(map(str, box))
            raise EmptyMask(
                f"the inferred mask is empty: nothing in the box {name} differs from the exemplar", [result.map[0, 0]]
            )
        return result

    @torch.no_grad()
    def compare(
        self,
        image: Tensor,
        mask: Tensor,
        reference: Tensor,
        query: Tensor,
        inference: MaskInference,
        callback: Callable[[int], None] | None = None,
        inside: Tensor | None = None,
    ) -> InferredMask:
        """Where the noise that the model sees in the scenes differs between two exemplars: DiffEdit's mask.

        All noise is a function of the inference's seed alone: every scene of a batch meets the same.

        Args:
            image: (B, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            mask: (B, 1, H, W), 1 in the region that the model is to repaint.
            reference: (B, 3, S, S), what the region shows, see `exemplar_pixels`.
            query: (B, 3, S, S), what it is to show.
            inside: (B, 1, H, W), 1 where the map counts, if not in all of the mask: padding would shift its mean.
        """
        model, like = self.model, self.like
        noise = NoiseSource([key_seed(inference.seed, "masked")]).randn(*model.latent_shape(*image.shape[-2:]))
        concat = model.inpainting_channels(image.to(like), mask.to(like), noise.to(like))
        return infer_mask(
            Denoiser(model.unet, model.schedule, model.prediction, concat),
            self.encode(image),
            model.conditioner(reference.to(like)),
            model.conditioner(query.to(like)),
            model.schedule,
            model.downsampling,
            n=inference.n_maps,
            strength=inference.strength,
            threshold=inference.threshold,
            clamp=inference.clamp,
            seeds=[inference.seed],
            inside=self.to_cells(mask if inside is None else inside),
            callback=callback,
        )

    @torch.no_grad()
    def sample(
        self,
        image: Tensor,
        mask: Tensor,
        pixels: Tensor,
        noise: NoiseSource,
        settings: EditSettings,
        callback: Progress | None = None,
        start: NoiseSource | None = None,
    ) -> Tensor:
        """The edit itself, in latents (B, c, h, w) float32; B is the number of rows that `noise` draws.

        Each row draws its start, then the posterior of the masked image, then the noise of each step.

        Args:
            image: (1 or B, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            mask: (1 or B, 1, H, W), 1 = repaint.
            pixels: (1 or B, 3, S, S), see `exemplar_pixels`.
            settings: sampler, steps, eta and guidance scale are read.
            start: draw the start from here instead; noise's own is drawn all the same.
        """
        model = self.model
        shape = model.latent_shape(*image.shape[-2:])
        x = noise.randn(*shape)
        batch = len(x)
        if start is not None:
            x = start.randn(*shape).expand(batch, *shape)
        denoise = told_exemplar(model, image, mask, pixels, noise.randn(*shape), settings.guidance_scale)
        return run_sampler(denoise, x.to(self.like.device), model.schedule, settings, noise, callback)


def fit_exemplar(exemplar: Image.Image, size: int, fit: str) -> Image.Image:
    """Exemplar -> RGB square of the image encoder's `size`, bicubic; `fit` as in `EditSettings.exemplar_fit`."""
    if exemplar.has_transparency_data and fit != "original":
        rgba = exemplar.convert("RGBA")
        exemplar = Image.new("RGBA", rgba.size, tuple(round(255 * c) for c in CLIP_MEAN))
        exemplar.alpha_composite(rgba)
    exemplar = exemplar.convert("RGB")
    if fit == "crop":
        return ImageOps.fit(exemplar, (size, size), Image.Resampling.BICUBIC)
    return exemplar.resize((size, size), Image.Resampling.BICUBIC)


def exemplar_pixels(square: Image.Image, float16: bool = False) -> Tensor:
    """The encoder's input (1, 3, S, S), normalised for CLIP; `float16` rounds it, as the original's script does."""
    pixels = clip_normalise(torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 255)
    return pixels.half().float() if float16 else pixels
