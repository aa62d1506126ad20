"""Edit by example (Paint by Example, Yang et al., 2211.13227): repaint a masked region after an exemplar picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.diffusion.denoiser import Denoiser
from ldm.editors.compose import Region
from ldm.editors.denoisers import exemplar_denoiser
from ldm.editors.editor import RegionEditor, Result, check_exemplar_model, for_each, own_seed
from ldm.editors.exemplars import mix_exemplars
from ldm.editors.mask_inference import EmptyMask, InferredMask, infer_map
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.presets import EditSettings, MaskInference
from ldm.samplers.common import Callback
from ldm.utils.image import Picture, as_image
from ldm.utils.mask import Box, box_mask, fit_mask, mask_picture
from ldm.utils.random import NoiseSource, key_seed


@dataclass(frozen=True)
class ExemplarRequest:
    """A scene, and what should be painted into it.

    Attributes:
        image: the scene, of any size.
        mask: what to repaint: a picture (white = repaint, see `ldm.utils.mask`) or (1, 1, H, W) of zeros and ones.
        exemplar: what to paint, of any size; transparency is filled with the mean colour of CLIP's training data.
            Several are mixed.
        weights: of several exemplars; by default all count the same.
        seed: of the sample; by default as the settings say.
    """

    image: Picture
    mask: Picture
    exemplar: Picture | Sequence[Picture]
    weights: Sequence[float] | None = None
    seed: int | None = None


@dataclass(frozen=True)
class EditResult(Result[EditSettings]):
    """The edited pictures and what the model was shown.

    Attributes:
        images: one per sample, of the scene's size; RGBA with the scene's own alpha if it had one.
        settings: how the edit was made.
        seeds: sample k alone is made again by `seed=seeds[k], n_samples=1`.
        mask: the hole, mode L at the scene's size, 255 = repainted.
        masked: the scene with its hole blanked, at the scene's size.
        exemplars: as the image encoder sees them.
    """

    seeds: list[int]
    mask: Image.Image
    masked: Image.Image
    exemplars: list[Image.Image]


@dataclass(frozen=True)
class BoxMask:
    """The part of a box that has to change.

    Attributes:
        map: (1, 1, H, W) in [0, 1] at the scene's size, 0 outside the box.
        mask: (1, 1, H, W), 1 where the map is above the threshold.
    """

    map: Tensor
    mask: Tensor


@dataclass(frozen=True)
class PreparedEdit:
    """A request as the model sees it: its region, its exemplars and their context (1, L, C)."""

    region: Region
    exemplars: list[Image.Image]
    context: Tensor
    seed: int


class ExemplarEditor(RegionEditor[EditSettings, ExemplarRequest, PreparedEdit, EditResult]):
    """Editor that repaints the masked region of a scene after an exemplar, with a 9-channel model.

    Args:
        model: a `LatentDiffusion` with an exemplar conditioner, on any device and in any precision.
        settings, show_progress, changes: see `Editor`; a preset of `configs/edit`.
    """

    kind = EditSettings

    @staticmethod
    def check(model: LatentDiffusion) -> None:
        check_exemplar_model(model, "editing by example")

    @torch.no_grad()
    def __call__(
        self,
        image: Picture | Sequence[Picture],
        mask: Picture | Sequence[Picture],
        exemplar: Picture | Sequence[Picture],
        weights: Sequence[float] | None = None,
        *,
        callback: Callback | None = None,
        start_seed: int | None = None,
        **changes: object,
    ) -> EditResult | list[EditResult]:
        """Edit one scene, or each of a list.

        Args:
            image, mask, exemplar, weights: see `ExemplarRequest`. With a list of scenes, masks and exemplars are lists
                too, or one for all.
            callback: `(i, t, x, x0)` after each step; x0 is the latent predicted so far.
            start_seed: take every sample's start from this one seed; by default from its own.
            changes: fields of `EditSettings`, e.g. `seed=3`; another `sampler` brings its own `steps`.

        Raises:
            UserError: an empty or ill-fitting mask, weights that do not fit, or a wrong setting.
        """
        alone = partial(self, weights=weights, callback=callback, start_seed=start_seed, **changes)
        if (results := for_each(alone, image, mask, exemplar)) is not None:
            return results
        settings = self.changed(changes)
        prepared = self.prepare(ExemplarRequest(image, mask, exemplar, weights), settings)
        seeds = [settings.seed + k for k in range(settings.n_samples)]
        start = None if start_seed is None else NoiseSource([start_seed])
        region, noise = prepared.region, NoiseSource(seeds)
        with self.progress_bar(settings.steps, "step", callback) as bar:
            step = callback or (lambda *_: bar.update())
            z = self.sample(region.window, region.hole, prepared.context, noise, settings, step, start)
        return self.result(prepared, region.composite(self.decode(z), settings), seeds, settings)

    def prepare(self, request: ExemplarRequest, settings: EditSettings) -> PreparedEdit:
        image = as_image(request.image)
        region = self.region(image, fit_mask(request.mask, image.size, settings.mask_rule), settings)
        seen, context = mix_exemplars(self.model.conditioner, request.exemplar, request.weights, settings.exemplar_fit)
        return PreparedEdit(region, seen, context, own_seed(request.seed, settings))

    def sample_batch(self, windows: Tensor, holes: Tensor, batch: list[PreparedEdit], settings: EditSettings) -> Tensor:
        context, noise = torch.cat([one.context for one in batch]), NoiseSource(one.seed for one in batch)
        return self.sample(windows, holes, context, noise, settings)

    def result(
        self, prepared: PreparedEdit, images: list[Image.Image], seeds: list[int], settings: EditSettings
    ) -> EditResult:
        mask, masked = mask_picture(prepared.region.mask), prepared.region.masked
        return EditResult(images, settings, seeds, mask, masked, prepared.exemplars)

    @torch.no_grad()
    def infer_mask(
        self,
        image: Picture,
        box: Box,
        exemplar: Picture | Sequence[Picture],
        inference: MaskInference,
        weights: Sequence[float] | None = None,
        *,
        callback: Callable[[int], None] | None = None,
        **changes: object,
    ) -> BoxMask:
        """Find the part of a box that has to change for it to show the exemplar: the mask of a call.

        Under `crop: auto` the model looks at a square around the box here, and around the mask in the call.

        Args:
            image: the scene, of any size.
            box: x0, y0, x1, y1 in its pixels, x1 and y1 exclusive.
            inference: how; a `DiffEditSettings` is one too. Its seed alone counts: edits of every seed share a mask.
            callback: called with the number of evaluations of the network just done.
            changes: fields of `EditSettings`; exemplar_fit and crop are read.

        Raises:
            UserError: a wrong box or setting.
            EmptyMask: nothing in the box differs from the exemplar.
        """
        settings, image = self.changed(changes), as_image(image)
        region, conditioner = self.region(image, box_mask(box, image.size), settings), self.model.conditioner
        _, shown = mix_exemplars(conditioner, region.image.crop(box), None, settings.exemplar_fit)
        _, wanted = mix_exemplars(conditioner, exemplar, weights, settings.exemplar_fit)
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
        """Find where the noise that the model sees in the scenes differs between two exemplars: DiffEdit's mask.

        All noise is a function of the inference's seed alone: every scene of a batch meets the same.

        Args:
            image: (B, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            mask: (B, 1, H, W), 1 in the region that the model is to repaint.
            reference: (B, L, C), the context of what the region shows, see `ldm.editors.exemplars`.
            query: (B, L, C), the context of what it is to show.
            inside: (B, 1, H, W), 1 where the map counts, if not in all of the mask: padding would shift its mean.
        """
        model, like = self.model, self.like
        noise = NoiseSource([key_seed(inference.seed, "masked")]).randn(*model.latent_shape(*image.shape[-2:]))
        concat = model.inpainting_channels(image.to(like), mask.to(like), noise.to(like))
        denoise = Denoiser(model.unet, model.schedule, model.prediction, concat)
        inside = self.to_cells(mask if inside is None else inside)
        found = infer_map(denoise, self.encode(image), reference, query, inference, inside=inside, callback=callback)
        return InferredMask.above(inference.threshold, found, model.downsampling)

    @torch.no_grad()
    def sample(
        self,
        image: Tensor,
        mask: Tensor,
        context: Tensor,
        noise: NoiseSource,
        settings: EditSettings,
        callback: Callback | None = None,
        start: NoiseSource | None = None,
    ) -> Tensor:
        """Make the edit itself, in latents (B, c, h, w) float32; B is the number of rows that `noise` draws.

        Each row draws its start, then the posterior of the masked image, then the noise of each step.

        Args:
            image: (1 or B, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            mask: (1 or B, 1, H, W), 1 = repaint.
            context: (1 or B, L, C), of the exemplars, see `ldm.editors.exemplars`.
            settings: sampler, steps, eta and guidance scale are read.
            start: draw the start from here instead; noise's own is drawn all the same.
        """
        model = self.model
        shape = model.latent_shape(*image.shape[-2:])
        x = noise.randn(*shape)
        batch = len(x)
        if start is not None:
            x = start.randn(*shape).expand(batch, *shape)
        denoise = exemplar_denoiser(model, image, mask, context, noise.randn(*shape), settings.guidance_scale)
        return self.run_sampler(denoise, x, settings, noise, callback)
