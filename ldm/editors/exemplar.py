"""Edit by example (Paint by Example, Yang et al., 2211.13227): repaint a masked region after an exemplar picture."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ldm.diffusion.denoiser import Denoiser
from ldm.editors.compose import Region
from ldm.editors.denoisers import told_exemplar
from ldm.editors.editor import Editor, check_exemplar_model
from ldm.editors.mask_inference import EmptyMask, InferredMask, infer_mask
from ldm.editors.settings import EditSettings, MaskInference
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.utils.clip import CLIP_MEAN, clip_normalise
from ldm.utils.errors import UserError
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
        exemplars: as the image encoder sees them.
        settings: how the edit was made.
    """

    images: list[Image.Image]
    seeds: list[int]
    mask: Image.Image
    masked: Image.Image
    exemplars: list[Image.Image]
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
        exemplar: Image.Image | Sequence[Image.Image],
        weights: Sequence[float] | None = None,
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
                Several are mixed, see `condition`.
            weights: of several exemplars; by default all count the same.
            callback: `(i, t, x, x0)` after each step; x0 is the latent predicted so far.
            start_seed: take every sample's start from this one seed; by default from its own.
            changes: fields of `EditSettings`, e.g. `seed=3`; to another `sampler` belong other `steps`.

        Raises:
            UserError: an empty or ill-fitting mask, weights that do not fit, or a wrong setting.
        """
        settings = replace(self.settings, **changes)
        region = self.region(image, fit_mask(mask, image.size, settings.mask_rule), settings)
        seen, context = self.condition(exemplar, weights, settings.exemplar_fit)
        seeds = [settings.seed + k for k in range(settings.n_samples)]
        start = None if start_seed is None else NoiseSource([start_seed])
        z = self.sample(region.window, region.hole, context, NoiseSource(seeds), settings, callback, start)
        return EditResult(
            images=region.lay_in(self.decode(z), settings),
            seeds=seeds,
            mask=mask_picture(region.mask),
            masked=region.masked,
            exemplars=seen,
            settings=settings,
        )

    @torch.no_grad()
    def edit_all(
        self, regions: Sequence[Region], contexts: Sequence[Tensor], seeds: Sequence[int], settings: EditSettings
    ) -> list[Image.Image]:
        """Edit several scenes, a sample of each; those whose windows are of one size in one batch.

        Args:
            regions: of this editor, by the same settings.
            contexts: (1, L, C) for each, see `condition`.
            seeds: one for each: region k alone is edited so by `seed=seeds[k], n_samples=1`, but for rounding.
            settings: how; the seed and n_samples are not read.
        """

        def sample(windows: Tensor, holes: Tensor, rows: list[int]) -> Tensor:
            context = torch.cat([contexts[row] for row in rows])
            return self.sample(windows, holes, context, NoiseSource(seeds[row] for row in rows), settings)

        return self.lay_in_all(regions, settings, sample)

    @torch.no_grad()
    def condition(
        self, exemplar: Image.Image | Sequence[Image.Image], weights: Sequence[float] | None, fit: str
    ) -> tuple[list[Image.Image], Tensor]:
        """Exemplars as the image encoder sees them, and the mean of the contexts that it makes of them, (1, L, C).

        Args:
            weights: of the exemplars in the mean, by default the same for all.
            fit: see `EditSettings.exemplar_fit`.

        Raises:
            UserError: no exemplar, or weights that are not as many or not all above 0.
        """
        exemplars = [exemplar] if isinstance(exemplar, Image.Image) else list(exemplar)
        weights = [1.0] * len(exemplars) if weights is None else list(weights)
        if not exemplars:
            raise UserError("exemplar: there is none")
        if len(weights) != len(exemplars) or not all(0 < weight < math.inf for weight in weights):
            raise UserError(f"weights {weights}: expected one for each exemplar, {len(exemplars)}, all above 0")
        squares = [fit_exemplar(picture, self.model.conditioner.image_size, fit) for picture in exemplars]
        contexts = self.contexts(torch.cat([exemplar_pixels(square, fit == "original") for square in squares]))
        shares = torch.tensor(weights, dtype=torch.float64) / max(weights)  # of huge ones the sum is infinite
        shares = (shares / shares.sum()).to(contexts)
        return squares, (shares[:, None, None] * contexts).sum(0, keepdim=True)

    @torch.no_grad()
    def contexts(self, pixels: Tensor) -> Tensor:
        """Exemplars (B, 3, S, S), see `exemplar_pixels` -> what the network is told of each, (B, L, C)."""
        return self.model.conditioner(pixels.to(self.like))

    @torch.no_grad()
    def infer_mask(
        self,
        image: Image.Image,
        box: Box,
        exemplar: Image.Image | Sequence[Image.Image],
        inference: MaskInference,
        weights: Sequence[float] | None = None,
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
        region = self.region(image, box_mask(box, image.size), settings)
        shown, wanted = (
            self.condition(pictures, shares, settings.exemplar_fit)[1]
            for pictures, shares in ((region.image.crop(box), None), (exemplar, weights))
        )
        view, hole = region.view, region.mask
        inside = region.hole * view.inside(self.model.multiple)
        found = self.compare(region.window, region.hole, shown, wanted, inference, callback, inside)
        placed = []
        for values in (F.interpolate(found.map, found.mask.shape[-2:], mode="nearest"), found.mask):
            placed.append(torch.zeros_like(hole))
            view.cut(placed[-1]).copy_(view.mask_from_model(values))
        result = BoxMask(*(values * hole for values in placed))
        if not result.mask.any():
            where = f"nothing in the box {','.join(map(str, box))} differs from the exemplar"
            raise EmptyMask(f"the inferred mask is empty: {where}", [result.map[0, 0]])
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
            reference: (B, L, C), what the region shows, see `contexts`.
            query: (B, L, C), what it is to show.
            inside: (B, 1, H, W), 1 where the map counts, if not in all of the mask: padding would shift its mean.
        """
        model, like = self.model, self.like
        noise = NoiseSource([key_seed(inference.seed, "masked")]).randn(*model.latent_shape(*image.shape[-2:]))
        concat = model.inpainting_channels(image.to(like), mask.to(like), noise.to(like))
        return infer_mask(
            Denoiser(model.unet, model.schedule, model.prediction, concat),
            self.encode(image),
            reference,
            query,
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
        context: Tensor,
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
            context: (1 or B, L, C), see `condition` and `contexts`.
            settings: sampler, steps, eta and guidance scale are read.
            start: draw the start from here instead; noise's own is drawn all the same.
        """
        model = self.model
        shape = model.latent_shape(*image.shape[-2:])
        x = noise.randn(*shape)
        batch = len(x)
        if start is not None:
            x = start.randn(*shape).expand(batch, *shape)
        denoise = told_exemplar(model, image, mask, context, noise.randn(*shape), settings.guidance_scale)
        return self.run_sampler(denoise, x, settings, noise, callback)


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
