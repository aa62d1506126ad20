"""DiffEdit (Couairon et al., 2210.11427): change what a prompt names, where the model itself sees that it is.

Three steps (section 3.2), each a method of its own: infer the mask, invert the picture, decode it anew inside the mask.
"""

from collections.abc import Callable, Sequence
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

    @torch.no_grad()
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
            image: of any size.
            target: what it is to show; with several prompts, each makes a picture of its own.
            source: what it shows, for the mask; may be empty.
            negative: what the edit is guided away from, in the place of the empty prompt.
            mask: what to edit, instead of what is inferred: a picture (white = edit, see `ldm.utils.mask`) or
                (1, 1, H, W) of zeros and ones.
            changes: fields of `DiffEditSettings`, e.g. `encode_ratio=0.6`.

        Raises:
            UserError: an empty target, an empty or ill-fitting mask, or a wrong setting.
            EmptyMask: nothing is found to edit, for one of the targets; then none is edited.
        """
        settings = replace(self.settings, **changes)
        targets = [target] if isinstance(target, str) else list(target)
        if not targets or not all(prompt.strip() for prompt in targets):
            raise UserError("target prompt: is empty, expected what the picture is to show")
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        scene, model = to_tensor(image), self.model

        if mask is None:
            view = compose.fitted(scene, model.image_size) if settings.crop == "auto" else compose.whole(scene)
            found = self.infer_mask(
                view.to_model(scene, model.multiple),
                [source],
                targets,
                n=settings.n_maps,
                strength=settings.strength,
                threshold=settings.threshold,
                clamp=settings.clamp,
                seed=settings.seed,
                inside=view.inside(model.multiple),
                callback=callback,
            )
            maps = list(view.mask_from_model(F.interpolate(found.map, found.mask.shape[-2:], mode="nearest"))[:, 0])
            holes = view.mask_from_model(found.mask).split(1)
            for prompt, hole in zip(targets, holes, strict=True):
                if not hole.any():
                    message = (
                        f"the inferred mask is empty: nothing of the picture differs between {source!r} and {prompt!r}"
                    )
                    raise EmptyMask(message, maps)
        else:
            maps, holes = [], [fit_mask(mask, image.size, settings.mask_rule, resize=False)] * len(targets)

        images, inversions = [image] * len(targets), [None] * len(targets)
        views = [compose.choose_view(hole, settings, model.image_size) for hole in holes]
        for view in dict.fromkeys(views):  # the same for all, unless each is cut out around its own mask
            rows = [row for row, other in enumerate(views) if other == view]
            inversion = self.invert(
                view.to_model(view.cut(scene), model.multiple),
                ratio=settings.encode_ratio,
                steps=settings.steps,
                refine=settings.refine,
                callback=callback,
            )
            cells = [self.to_cells(view.mask_to_model(view.cut(holes[row]), model.multiple)) for row in rows]
            z = self.edit(
                inversion,
                torch.cat(cells),
                [targets[row] for row in rows],
                negative,
                guidance_scale=settings.guidance_scale,
                callback=callback,
            )
            for row, edited in zip(rows, view.from_model(self.decode(z)).split(1), strict=True):
                (images[row],) = compose.lay_in(edited, image, holes[row], view, settings)
                inversions[row] = inversion
        return DiffEditResult(images, [mask_picture(hole) for hole in holes], maps, inversions, settings)

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
        seed: int = 0,
        inside: Tensor | None = None,
        callback: Progress | None = None,
    ) -> InferredMask:
        """Step 1: where the noise that the model sees in the pictures differs between two prompts.

        Map j is made with noise of its own, a function of (seed, j): every picture of a batch meets the same ones.

        Args:
            image: (B, 3, H, W) in [-1, 1], sides multiples of `model.multiple`.
            source: B prompts, "" for none.
            target: B prompts, or any number for B = 1.
            n: noises over which the map is averaged.
            strength: noise level, as a share of the schedule's timesteps, in (0, 1].
            threshold, clamp: see `scale_map`; what is above the threshold is in the mask.
            inside: (1, 1, H, W), 1 where the map counts, if not everywhere: padding would shift its mean.
        """
        MaskInference(n, strength, threshold, clamp, seed)  # refuses what is out of range
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
            seed=seed,
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
