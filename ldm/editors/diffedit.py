"""DiffEdit (Couairon et al., 2210.11427): change what a prompt names, where the model itself sees that it is.

Its three steps (section 3.2) are methods of their own: infer the mask, invert the picture, decode it anew inside the
mask. A call puts them together, for pictures of any size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.guidance import classifier_free_guidance
from ldm.diffusion.schedule import sampling_timesteps
from ldm.editors import compose
from ldm.editors.editor import Editor, check_text_model
from ldm.editors.mask_inference import EmptyMask, InferredMask, infer_mask
from ldm.editors.settings import DiffEditSettings, Encoding, MaskInference, encoded_steps
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.samplers.ddim import ddim, ddim_invert
from ldm.utils.errors import UserError
from ldm.utils.image import to_tensor
from ldm.utils.mask import fit_mask, mask_picture

Progress = Callable[[str, int], None]
"""`(stage, n)`: n more evaluations of the network are done, in "mask", "invert", "edit" or "round trip"."""


@dataclass(frozen=True)
class Inversion:
    """Pictures on their way to noise.

    Attributes:
        latents: by timestep, (B, c, h, w) at that level; at 0 the pictures' own.
        timesteps: (k,), descending: the way that `edit` takes back.
        context: (B, L, C), the condition of the inversion.
    """

    latents: dict[int, Tensor]
    timesteps: Tensor
    context: Tensor

    def rows(self, rows: Sequence[int]) -> "Inversion":
        """That of some of the pictures; each may come several times."""
        latents = {t: z[list(rows)] for t, z in self.latents.items()}
        return Inversion(latents, self.timesteps, self.context[list(rows)])


Key = tuple[int, int]  # of a request, and of one of its targets


@dataclass(frozen=True)
class Request:
    """A picture, and what is to become of it.

    Args:
        image: of any size.
        targets: what it is to show; with several prompts, each makes a picture of its own.
        source: what it shows, for the mask; may be empty.
        mask: what to edit, instead of what is inferred: a picture (white = edit, see `ldm.utils.mask`) or (1, 1, H, W)
            of zeros and ones.
        seed: of the map's noises, by default as the settings say.
    """

    image: Image.Image
    targets: Sequence[str]
    source: str = ""
    mask: Image.Image | Tensor | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Place:
    """Where a picture is to be edited, for each target.

    Attributes:
        maps: (H, W) in [0, 1]; none if a mask was given.
        holes: (1, 1, H, W) of zeros and ones.
    """

    maps: list[Tensor]
    holes: list[Tensor]


@dataclass(frozen=True)
class DiffEditResult:
    """One edited picture for each target.

    Attributes:
        images: of the picture's size; RGBA with its own alpha if it had one.
        masks: what was edited, mode L at the picture's size, 255 = edited.
        maps: (H, W) in [0, 1], of the picture's size, of which the masks are the thresholds; none if a mask was given.
        inversions: how the picture was encoded, one picture each, as the model saw it; all the same but with
            `crop: auto`, where each target has its own window.
        settings: how the edits were made.
    """

    images: list[Image.Image]
    masks: list[Image.Image]
    maps: list[Tensor]
    inversions: list[Inversion]
    settings: DiffEditSettings


class DiffEdit(Editor[DiffEditSettings]):
    """Edits pictures after prompts, with a text-to-image model such as Stable Diffusion v1.

    Args:
        model: with a `TextConditioner` and as many input channels as its autoencoder's latents have.
        settings: used where a call of the whole does not say otherwise.
    """

    def __init__(self, model: LatentDiffusion, settings: DiffEditSettings):
        check_text_model(model, "DiffEdit")
        super().__init__(model, settings)
        self.denoise = Denoiser(model.unet, model.schedule, model.prediction)

    def __call__(
        self,
        image: Image.Image,
        target: str | Sequence[str],
        source: str = "",
        *,
        negative: str = "",
        mask: Image.Image | Tensor | None = None,
        callback: Progress | None = None,
        **changes: object,
    ) -> DiffEditResult:
        """Edit a picture after one or several prompts.

        Args:
            image, target, source, mask: see `Request`.
            negative: what the edit is guided away from, in the place of the empty prompt.
            changes: fields of `DiffEditSettings`, e.g. `encode_ratio=0.6`.

        Raises:
            UserError: an empty target, an empty or ill-fitting mask, or a wrong setting.
            EmptyMask: nothing is found to edit, for one of the targets; then none is edited.
        """
        request = Request(image, [target] if isinstance(target, str) else list(target), source, mask)
        (result,) = self.edit_all([request], negative=negative, callback=callback, **changes)
        if isinstance(result, EmptyMask):
            raise result
        return result

    @torch.no_grad()
    def edit_all(
        self,
        requests: Sequence[Request],
        *,
        negative: str = "",
        callback: Progress | None = None,
        **changes: object,
    ) -> list[DiffEditResult | EmptyMask]:
        """Edit several pictures, each as if it were alone but for rounding; those of one size for the model in a batch.

        Args:
            negative, changes: see `__call__`.

        Returns:
            For each request its result, or why there is none.

        Raises:
            UserError: as `__call__`; then nothing is edited.
        """
        settings = replace(self.settings, **changes)
        for request in requests:
            if not request.targets or not all(prompt.strip() for prompt in request.targets):
                raise UserError("target prompt: is empty, expected what the picture is to show")
        places = self._find(requests, settings, callback)
        regions: dict[Key, compose.Region] = {
            (n, k): self.region(requests[n].image, hole, settings)
            for n, place in enumerate(places)
            if isinstance(place, Place)
            for k, hole in enumerate(place.holes)
        }
        edits = self._edit(requests, regions, negative, settings, callback)
        results = []
        for n, place in enumerate(places):
            if isinstance(place, Place):
                images, inversions = map(list, zip(*(edits[n, k] for k in range(len(place.holes))), strict=True))
                masks, own = [mask_picture(hole) for hole in place.holes], self._own(requests[n], settings)
                place = DiffEditResult(images, masks, place.maps, inversions, own)
            results.append(place)
        return results

    def _find(
        self, requests: Sequence[Request], settings: DiffEditSettings, callback: Progress | None
    ) -> list[Place | EmptyMask]:
        """Where each picture is to be edited: as its mask says, or where the model sees a difference."""
        places, views, windows, model = {}, {}, {}, self.model
        for n, request in enumerate(requests):
            if request.mask is None:
                scene = to_tensor(request.image)
                views[n] = compose.fitted(scene, model.image_size) if settings.crop == "auto" else compose.whole(scene)
                windows[n] = views[n].to_model(scene, model.multiple)
            else:
                hole = fit_mask(request.mask, request.image.size, settings.mask_rule, resize=False)
                places[n] = Place([], [hole] * len(request.targets))
        # one target for each picture, or several for a single one
        for group in compose.grouped(views, lambda n: (windows[n].shape, len(requests[n].targets) > 1 and (n,))):
            some = [requests[n] for n in group]
            found = self.infer_mask(
                torch.cat([windows[n] for n in group]),
                [request.source for request in some],
                [prompt for request in some for prompt in request.targets],
                n=settings.n_maps,
                strength=settings.strength,
                threshold=settings.threshold,
                clamp=settings.clamp,
                seed=[self._own(request, settings).seed for request in some],
                inside=torch.cat([views[n].inside(model.multiple) for n in group]),
                callback=callback,
            )
            maps = F.interpolate(found.map, found.mask.shape[-2:], mode="nearest")
            counts = [len(request.targets) for request in some]
            for n, *both in zip(group, maps.split(counts), found.mask.split(counts), strict=True):
                places[n] = _place(requests[n], *map(views[n].mask_from_model, both))
        return [places[n] for n in range(len(requests))]

    def _edit(
        self,
        requests: Sequence[Request],
        regions: Mapping[Key, compose.Region],
        negative: str,
        settings: DiffEditSettings,
        callback: Progress | None,
    ) -> dict[Key, tuple[Image.Image, Inversion]]:
        """Each region edited after its target, and how it was encoded; what targets see alike is encoded once."""
        edits = {}
        for keys in compose.grouped(regions, lambda key: regions[key].window.shape):
            windows = {(key[0], regions[key].view): regions[key].window for key in keys}
            inversion = self.invert(
                torch.cat(list(windows.values())),
                ratio=settings.encode_ratio,
                steps=settings.steps,
                refine=settings.refine,
                callback=callback,
            )
            rows = [list(windows).index((key[0], regions[key].view)) for key in keys]
            z = self.edit(
                inversion.rows(rows),
                torch.cat([self.to_cells(regions[key].hole) for key in keys]),
                [requests[n].targets[k] for n, k in keys],
                negative,
                guidance_scale=settings.guidance_scale,
                callback=callback,
            )
            single = [inversion.rows([row]) for row in range(len(windows))]
            for key, row, output in zip(keys, rows, self.decode(z).split(1), strict=True):
                edits[key] = (*regions[key].lay_in(output, settings), single[row])
        return edits

    @staticmethod
    def _own(request: Request, settings: DiffEditSettings) -> DiffEditSettings:
        return settings if request.seed is None else replace(settings, seed=request.seed)

    @torch.no_grad()
    def infer_mask(
        self,
        image: Tensor,
        source: Sequence[str],
        target: Sequence[str],
        *,
        n: int = 10,
        strength: float = 0.5,
        threshold: float = 0.5,
        clamp: float = 3.0,
        seed: int | Sequence[int] = 0,
        inside: Tensor | None = None,
        callback: Progress | None = None,
    ) -> InferredMask:
        """Step 1: where the noise that the model sees in the pictures differs between two prompts.

        Map j is made with noise of its own, a function of (seed, j): pictures of one seed meet the same ones.

        Args:
            image: (B, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            source: B prompts, "" for none.
            target: B prompts, or any number for B = 1.
            n: noises over which the map is averaged.
            strength: noise level, as a share of the schedule's timesteps, in (0, 1].
            threshold, clamp: see `scale_map`; what is above the threshold is in the mask.
            seed: of the noises, or one for each picture.
            inside: (B or 1, 1, H, W), 1 where the map counts, if not everywhere: padding would shift its mean.
        """
        seeds = [seed] if isinstance(seed, int) else seed
        for each in seeds:
            MaskInference(n, strength, threshold, clamp, each)  # refuses what is out of range
        model = self.model
        # read together: in bfloat16 the context of a prompt depends on the number of prompts beside it
        contexts = model.conditioner([*source, *target])
        return infer_mask(
            self.denoise,
            self.encode(image),
            contexts[: len(source)],
            contexts[len(source) :],
            model.schedule,
            model.downsampling,
            n=n,
            strength=strength,
            threshold=threshold,
            clamp=clamp,
            seeds=seeds,
            inside=None if inside is None else self.to_cells(inside),
            callback=callback and (lambda evaluations: callback("mask", evaluations)),
        )

    @torch.no_grad()
    def invert(
        self,
        image: Tensor,
        condition: Sequence[str] | None = None,
        *,
        ratio: float = 0.8,
        steps: int = 50,
        refine: int = 0,
        callback: Progress | None = None,
    ) -> Inversion:
        """Step 2: encode pictures by DDIM inversion, unguided, and keep every latent on the way.

        Args:
            image: (B, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            condition: B prompts; by default the empty one.
            ratio: the share of the grid of `steps` timesteps that is climbed, in (0, 1].
            refine: see `ddim_invert`.
        """
        Encoding(steps, ratio, refine)  # refuses what is out of range
        z, conditioner = self.encode(image), self.model.conditioner
        context = conditioner.unconditional(len(z)) if condition is None else conditioner(condition)
        timesteps = sampling_timesteps(steps, self.model.schedule.num_timesteps)[-encoded_steps(ratio, steps) :]
        latents = ddim_invert(
            classifier_free_guidance(self.denoise, context, None, scale=1),
            z,
            self.model.schedule,
            timesteps,
            refine=refine,
            callback=callback and (lambda *_: callback("invert", 1 + refine)),
        )
        return Inversion(latents, timesteps, context)

    @torch.no_grad()
    def edit(
        self,
        inversion: Inversion,
        mask: Tensor,
        target: Sequence[str],
        negative: str = "",
        *,
        guidance_scale: float = 7.5,
        callback: Progress | None = None,
    ) -> Tensor:
        """Step 3: decode from the inversion's last latent under the target; outside the mask stays what was recorded.

        After the step to a timestep the background is the latent recorded at that timestep, so that both have the same
        noise level, and in the end it is the picture's own.

        Args:
            inversion: of B pictures, or of one for any number of targets.
            mask: (B, 1, h, w), 1 = edit, at the latents' size.
            target: B prompts.
            negative: see `__call__`.

        Returns:
            latents (B, c, h, w).
        """
        conditioner, n = self.model.conditioner, len(target)
        inside = mask.to(self.like.device) > 0
        denoise = classifier_free_guidance(
            self.denoise,
            cond=conditioner(target),
            uncond=conditioner([negative]).expand(n, -1, -1),
            scale=guidance_scale,
        )
        evaluations = 1 if guidance_scale == 1 else 2
        top = inversion.latents[int(inversion.timesteps[0])]
        return ddim(
            denoise,
            top.expand(n, *top.shape[1:]),
            self.model.schedule,
            inversion.timesteps,
            hook=lambda x, t: torch.where(inside, x, inversion.latents[t]),
            callback=callback and (lambda *_: callback("edit", evaluations)),
        )

    @torch.no_grad()
    def reconstruct(self, inversion: Inversion, callback: Progress | None = None) -> Tensor:
        """The latents (B, c, h, w) that come back when an inversion is undone without a mask or another condition."""
        top = inversion.latents[int(inversion.timesteps[0])]
        denoise = classifier_free_guidance(self.denoise, inversion.context, None, scale=1)
        return ddim(
            denoise,
            top,
            self.model.schedule,
            inversion.timesteps,
            callback=callback and (lambda *_: callback("round trip", 1)),
        )


def _place(request: Request, maps: Tensor, holes: Tensor) -> Place | EmptyMask:
    for prompt, hole in zip(request.targets, holes, strict=True):
        if not hole.any():
            words = f"nothing of the picture differs between {request.source!r} and {prompt!r}"
            return EmptyMask(f"the inferred mask is empty: {words}", list(maps[:, 0]))
    return Place(list(maps[:, 0]), list(holes.split(1)))
