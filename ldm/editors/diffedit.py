"""DiffEdit (Couairon et al., 2210.11427): change what a prompt names, in the region that the model itself finds.

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
from ldm.editors.editor import Editor, Result, check_prompts, check_text_model, for_each, own_seed
from ldm.editors.mask_inference import EmptyMask, InferredMask, infer_map
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.presets import DiffEditSettings, encoded_steps
from ldm.samplers.ddim import ddim, ddim_invert
from ldm.utils.errors import UserError, attempt
from ldm.utils.image import Picture, as_image, to_tensor
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
        """Return the inversion of some of the pictures; each may come several times."""
        latents = {t: z[list(rows)] for t, z in self.latents.items()}
        return Inversion(latents, self.timesteps, self.context[list(rows)])


@dataclass(frozen=True)
class DiffEditRequest:
    """A picture, and what it should become.

    Attributes:
        image: of any size.
        targets: what it should show; with several prompts, each makes a picture of its own.
        source: what it shows, for the mask; may be empty.
        mask: what to edit, instead of what is inferred: a picture (white = edit, see `ldm.utils.mask`) or (1, 1, H, W)
            of zeros and ones.
        seed: of the map's noises, by default as the settings say.
    """

    image: Picture
    targets: str | Sequence[str]
    source: str = ""
    mask: Picture | None = None
    seed: int | None = None


@dataclass(frozen=True)
class DiffEditResult(Result[DiffEditSettings]):
    """One edited picture for each target.

    Attributes:
        images: of the picture's size; RGBA with its own alpha if it had one.
        settings: how the edits were made.
        masks: what was edited, mode L at the picture's size, 255 = edited.
        maps: (H, W) in [0, 1], of the picture's size, of which the masks are the thresholds; none if a mask was given.
        inversions: how the picture was encoded, one picture each, as the model saw it; all the same except with
            `crop: auto`, where each target has its own window.
    """

    masks: list[Image.Image]
    maps: list[Tensor]
    inversions: list[Inversion]


@dataclass(frozen=True)
class PreparedPicture:
    """A request's picture, and where it is to be edited.

    Attributes:
        scene: (1, 3, H, W) in [-1, 1].
        view: what of it the mask is inferred in.
        mask: (1, 1, H, W), 1 = edit, if one was given.
    """

    image: Image.Image
    scene: Tensor
    view: compose.View
    mask: Tensor | None


@dataclass(frozen=True)
class Place:
    """The places where a picture is to be edited, for each target.

    Attributes:
        maps: (H, W) in [0, 1]; none if a mask was given.
        holes: (1, 1, H, W) of zeros and ones.
    """

    maps: list[Tensor]
    holes: list[Tensor]


Key = tuple[int, int]  # of a request, and of one of its targets


class DiffEdit(Editor[DiffEditSettings]):
    """Editor of pictures by prompts, with a text-to-image model such as Stable Diffusion v1.

    Args:
        model: with a `TextConditioner` and as many input channels as its autoencoder's latents have.
        settings, show_progress, changes: see `Editor`; a preset of `configs/diffedit`.
    """

    kind = DiffEditSettings

    @staticmethod
    def check(model: LatentDiffusion) -> None:
        check_text_model(model, "DiffEdit")

    def __call__(
        self,
        image: Picture | Sequence[Picture],
        target: str | Sequence[str],
        source: str = "",
        *,
        negative: str = "",
        mask: Picture | Sequence[Picture] | None = None,
        callback: Progress | None = None,
        **changes: object,
    ) -> DiffEditResult | list[DiffEditResult]:
        """Edit a picture after one or several prompts, or each picture of a list.

        Args:
            image, target, source, mask: see `DiffEditRequest`. With a list of pictures, masks are a list too, or one
                for all; every picture is edited after every prompt.
            negative: what the edit is guided away from, instead of the empty prompt.
            changes: fields of `DiffEditSettings`, e.g. `encode_ratio=0.6`.

        Raises:
            UserError: an empty target, an empty or ill-fitting mask, or a wrong setting.
            EmptyMask: nothing is found to edit, for one of the targets; then none is edited.
        """

        def alone(image: Picture, mask: Picture | None) -> DiffEditResult:
            return self(image, target, source, negative=negative, mask=mask, callback=callback, **changes)

        if (results := for_each(alone, image, mask)) is not None:
            return results
        settings = self.changed(changes)
        targets = [target] if isinstance(target, str) else list(target)
        request = DiffEditRequest(image, targets, source, mask)
        total = settings.evaluations(mask=mask is None)
        with self.progress_bar(total, "evaluation", callback) as bar:
            step = callback or (lambda stage, n: bar.update(n))
            (result,) = self.edit_all([request], negative=negative, callback=step, **vars(settings))
        if isinstance(result, UserError):
            raise result
        return result

    @torch.no_grad()
    def edit_all(
        self,
        requests: Sequence[DiffEditRequest],
        *,
        negative: str = "",
        callback: Progress | None = None,
        **changes: object,
    ) -> list[DiffEditResult | UserError]:
        """Edit several pictures, each as if it were alone except for rounding; those of one size share a batch.

        Args:
            negative, changes: see `__call__`.

        Returns:
            For each request its result or its error, an `EmptyMask` if nothing was found to edit.
        """
        settings = self.changed(changes)
        requests = [
            replace(request, targets=[request.targets]) if isinstance(request.targets, str) else request
            for request in requests
        ]
        prepared = [attempt(self._prepare, request, settings) for request in requests]
        places = self._find(requests, prepared, settings, callback)
        regions = {
            (n, k): self.region(prepared[n].image, hole, settings)
            for n, place in enumerate(places)
            if isinstance(place, Place)
            for k, hole in enumerate(place.holes)
        }
        edits = self._edit_regions(requests, regions, negative, settings, callback)
        results: list[DiffEditResult | UserError] = []
        for n, (request, place) in enumerate(zip(requests, places, strict=True)):
            if isinstance(place, UserError):
                results.append(place)
                continue
            pairs = [edits[n, k] for k in range(len(place.holes))]
            results.append(
                DiffEditResult(
                    images=[image for image, _ in pairs],
                    settings=self._own(request, settings),
                    masks=[mask_picture(hole) for hole in place.holes],
                    maps=place.maps,
                    inversions=[inversion for _, inversion in pairs],
                )
            )
        return results

    def _prepare(self, request: DiffEditRequest, settings: DiffEditSettings) -> PreparedPicture:
        check_prompts(self.model, [*request.targets, request.source])
        own_seed(request.seed, settings)
        if not request.targets or not all(prompt.strip() for prompt in request.targets):
            raise UserError("target prompt: empty, expected a description of what the picture should show")
        image = as_image(request.image)
        scene, mask = to_tensor(image), None
        if request.mask is not None:
            mask = fit_mask(request.mask, image.size, settings.mask_rule, resize=False)
        view = compose.fitted(scene, self.model.image_size) if settings.crop == "auto" else compose.whole(scene)
        return PreparedPicture(image, scene, view, mask)

    def _find(
        self,
        requests: Sequence[DiffEditRequest],
        prepared: Sequence[PreparedPicture | UserError],
        settings: DiffEditSettings,
        callback: Progress | None,
    ) -> list[Place | UserError]:
        """Return where each picture is to be edited: as its mask says, or where the model sees a difference."""
        places: dict[int, Place | UserError] = {}
        windows, multiple = {}, self.model.multiple
        for n, (request, one) in enumerate(zip(requests, prepared, strict=True)):
            if isinstance(one, UserError):
                places[n] = one
            elif one.mask is not None:
                places[n] = Place([], [one.mask] * len(request.targets))
            else:
                windows[n] = one.view.to_model(one.scene, multiple)

        def batch(n: int) -> tuple[torch.Size, int | None]:
            """One target for each picture of a batch, or several for a single picture."""
            return windows[n].shape, n if len(requests[n].targets) > 1 else None

        for group in compose.grouped(windows, batch):
            some = [requests[n] for n in group]
            found = self.infer_mask(
                torch.cat([windows[n] for n in group]),
                [request.source for request in some],
                [prompt for request in some for prompt in request.targets],
                seeds=[self._own(request, settings).seed for request in some],
                inside=torch.cat([prepared[n].view.inside(multiple) for n in group]),
                callback=callback,
                **vars(settings),
            )
            maps = F.interpolate(found.map, found.mask.shape[-2:], mode="nearest")
            counts = [len(request.targets) for request in some]
            for n, *both in zip(group, maps.split(counts), found.mask.split(counts), strict=True):
                places[n] = _place(requests[n], *map(prepared[n].view.mask_from_model, both))
        return [places[n] for n in range(len(requests))]

    def _edit_regions(
        self,
        requests: Sequence[DiffEditRequest],
        regions: Mapping[Key, compose.Region],
        negative: str,
        settings: DiffEditSettings,
        callback: Progress | None,
    ) -> dict[Key, tuple[Image.Image, Inversion]]:
        """Edit each region after its target, and say how it was encoded; what targets see alike is encoded once."""
        edits = {}
        for keys in compose.grouped(regions, lambda key: regions[key].window.shape):
            windows = {(key[0], regions[key].view): regions[key].window for key in keys}
            inversion = self.invert(torch.cat(list(windows.values())), callback=callback, **vars(settings))
            rows = [list(windows).index((key[0], regions[key].view)) for key in keys]
            cells = torch.cat([self.to_cells(regions[key].hole) for key in keys])
            targets = [requests[n].targets[k] for n, k in keys]
            z = self.edit(inversion.rows(rows), cells, targets, negative, callback=callback, **vars(settings))
            single = [inversion.rows([row]) for row in range(len(windows))]
            for key, row, output in zip(keys, rows, self.decode(z).split(1), strict=True):
                (picture,) = regions[key].composite(output, settings)
                edits[key] = picture, single[row]
        return edits

    def _own(self, request: DiffEditRequest, settings: DiffEditSettings) -> DiffEditSettings:
        return settings if request.seed is None else replace(settings, seed=request.seed)

    def _contexts(self, prompts: Sequence[str] | Tensor) -> Tensor:
        return prompts if isinstance(prompts, Tensor) else self.model.conditioner(list(prompts))

    @property
    def _denoise(self) -> Denoiser:
        return Denoiser(self.model.unet, self.model.schedule, self.model.prediction)

    # the three steps alone

    @torch.no_grad()
    def infer_mask(
        self,
        image: Tensor,
        source: Sequence[str] | Tensor,
        target: Sequence[str] | Tensor,
        *,
        seeds: Sequence[int] | None = None,
        inside: Tensor | None = None,
        callback: Progress | None = None,
        **changes: object,
    ) -> InferredMask:
        """Step 1: find where the noise that the model sees in the pictures differs between two prompts.

        Map j is made with noise of its own, a function of (seed, j): pictures of one seed meet the same ones.

        Args:
            image: (B, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            source: B prompts, "" for none, or their contexts (B, L, C).
            target: B prompts or contexts, or any number for B = 1.
            seeds: one for each picture; by default the settings' for all.
            inside: (B or 1, 1, H, W), 1 where the map counts, if not everywhere: padding would shift its mean.
            changes: fields of `DiffEditSettings`.
        """
        settings = self.changed(changes)
        if isinstance(source, Tensor) or isinstance(target, Tensor):
            reference, query = self._contexts(source), self._contexts(target)
        else:  # read together: in bfloat16 the context of a prompt depends on the number of prompts beside it
            reference, query = self._contexts([*source, *target]).split([len(source), len(target)])
        inside = None if inside is None else self.to_cells(inside)
        count = callback and (lambda evaluations: callback("mask", evaluations))
        z = self.encode(image)
        found = infer_map(self._denoise, z, reference, query, settings, seeds=seeds, inside=inside, callback=count)
        return InferredMask.above(settings.threshold, found, self.model.downsampling)

    @torch.no_grad()
    def invert(
        self,
        image: Tensor,
        condition: Sequence[str] | Tensor | None = None,
        *,
        callback: Progress | None = None,
        **changes: object,
    ) -> Inversion:
        """Step 2: encode pictures by DDIM inversion, unguided, and keep every latent on the way.

        Args:
            image: (B, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            condition: B prompts or their contexts (B, L, C); by default the empty prompt.
            changes: fields of `DiffEditSettings`: `steps`, `encode_ratio`, `refine`.
        """
        settings = self.changed(changes)
        z, schedule, refine = self.encode(image), self.model.schedule, settings.refine
        context = self.model.conditioner.unconditional(len(z)) if condition is None else self._contexts(condition)
        visited = encoded_steps(settings.encode_ratio, settings.steps)
        timesteps = sampling_timesteps(settings.steps, schedule.num_timesteps)[-visited:]
        count = callback and (lambda *_: callback("invert", 1 + refine))
        denoise = classifier_free_guidance(self._denoise, context, None, scale=1)
        return Inversion(
            ddim_invert(denoise, z, schedule, timesteps, refine=refine, callback=count), timesteps, context
        )

    @torch.no_grad()
    def edit(
        self,
        inversion: Inversion,
        mask: Tensor,
        target: Sequence[str] | Tensor,
        negative: str = "",
        *,
        callback: Progress | None = None,
        **changes: object,
    ) -> Tensor:
        """Step 3: decode from the inversion's last latent under the target; outside the mask stays what was recorded.

        After the step to a timestep the background is the latent recorded at that timestep, so that both have the same
        noise level, and in the end it is the picture's own.

        Args:
            inversion: of B pictures, or of one for any number of targets.
            mask: (B, 1, h, w), 1 = edit, at the latents' size.
            target: B prompts or their contexts (B, L, C).
            negative: see `__call__`.
            changes: fields of `DiffEditSettings`: `guidance_scale`.

        Returns:
            latents (B, c, h, w).
        """
        cond, scale = self._contexts(target), self.changed(changes).guidance_scale
        n, inside = len(cond), mask.to(self.like.device) > 0
        uncond = self._contexts([negative]).expand(n, -1, -1)
        top = inversion.latents[int(inversion.timesteps[0])]
        return ddim(
            classifier_free_guidance(self._denoise, cond, uncond, scale),
            top.expand(n, *top.shape[1:]),
            self.model.schedule,
            inversion.timesteps,
            hook=lambda x, t: torch.where(inside, x, inversion.latents[t]),
            callback=callback and (lambda *_: callback("edit", 1 if scale == 1 else 2)),
        )

    @torch.no_grad()
    def reconstruct(self, inversion: Inversion, callback: Progress | None = None) -> Tensor:
        """Return the latents (B, c, h, w) that come back when an inversion is undone, everywhere and unedited."""
        top = inversion.latents[int(inversion.timesteps[0])]
        denoise = classifier_free_guidance(self._denoise, inversion.context, None, scale=1)
        count = callback and (lambda *_: callback("round trip", 1))
        return ddim(denoise, top, self.model.schedule, inversion.timesteps, callback=count)


def _place(request: DiffEditRequest, maps: Tensor, holes: Tensor) -> Place | EmptyMask:
    for prompt, hole in zip(request.targets, holes, strict=True):
        if not hole.any():
            words = f"the model sees no difference between {request.source!r} and {prompt!r} in the picture"
            return EmptyMask(f"the inferred mask is empty: {words}", list(maps[:, 0]))
    return Place(list(maps[:, 0]), list(holes.split(1)))
