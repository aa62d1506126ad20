"""The steps of DiffEdit (Couairon et al., 2210.11427, section 3.2): infer the mask, invert the picture, decode it anew
inside the mask. `ldm.editors.diffedit` puts them together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.guidance import classifier_free_guidance
from ldm.diffusion.schedule import sampling_timesteps
from ldm.editors.editor import Editor, check_text_model
from ldm.editors.mask_inference import InferredMask, infer_mask
from ldm.editors.settings import DiffEditSettings, Encoding, MaskInference, encoded_steps
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.samplers.ddim import ddim, ddim_invert

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


class DiffEditSteps(Editor[DiffEditSettings]):
    """The three steps, for batches of pictures of the model's own sizes.

    Args:
        model: with a `TextConditioner` and as many input channels as its autoencoder's latents have.
        settings: used where a call of the whole does not say otherwise.
    """

    def __init__(self, model: LatentDiffusion, settings: DiffEditSettings):
        check_text_model(model, "DiffEdit")
        super().__init__(model, settings)
        self.denoise = Denoiser(model.unet, model.schedule, model.prediction)

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
