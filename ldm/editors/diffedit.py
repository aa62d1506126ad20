"""DiffEdit (Couairon et al., 2210.11427): change what a prompt names, where the model itself sees that it is.

Its three steps (section 3.2), each a method of its own, are in `ldm.editors.diffedit_steps`; here they make edits of
pictures of any size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ldm.editors import compose
from ldm.editors.diffedit_steps import DiffEditSteps, Inversion, Progress
from ldm.editors.mask_inference import EmptyMask
from ldm.editors.settings import DiffEditSettings
from ldm.utils.errors import UserError
from ldm.utils.image import to_tensor
from ldm.utils.mask import fit_mask, mask_picture

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


class DiffEdit(DiffEditSteps):
    """Edits pictures after prompts, with a text-to-image model such as Stable Diffusion v1.

    Args:
        model: with a `TextConditioner` and as many input channels as its autoencoder's latents have.
        settings: used where a call of the whole does not say otherwise.
    """

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


def _place(request: Request, maps: Tensor, holes: Tensor) -> Place | EmptyMask:
    for prompt, hole in zip(request.targets, holes, strict=True):
        if not hole.any():
            words = f"nothing of the picture differs between {request.source!r} and {prompt!r}"
            return EmptyMask(f"the inferred mask is empty: {words}", list(maps[:, 0]))
    return Place(list(maps[:, 0]), list(holes.split(1)))
