"""Text to image (Rombach et al., 2112.10752): pictures of any size from prompts."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ldm.editors.denoisers import prompt_denoiser
from ldm.editors.editor import Editor, Result, check_prompts, check_text_model
from ldm.models.latent_diffusion import LatentDiffusion
from ldm.presets import Sampling
from ldm.samplers.common import Callback
from ldm.utils.errors import UserError
from ldm.utils.image import to_pil
from ldm.utils.random import NoiseSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextToImageResult(Result[Sampling]):
    """Pictures and what each was made from: all samples of the first prompt, then all of the second.

    Attributes:
        images: RGB, all of one size.
        settings: how they were made.
        prompts, seeds: one for each picture; it alone is made again by `prompts[i], seed=seeds[i], n_samples=1`.
        negative: the prompt that they were guided away from.
    """

    prompts: list[str]
    seeds: list[int]
    negative: str


class TextToImage(Editor[Sampling]):
    """Sampler of pictures from prompts, with a text-to-image model such as Stable Diffusion v1.

    Args:
        model: with a `TextConditioner` and as many input channels as its autoencoder's latents have.
        settings, changes: see `Editor`; a preset of `configs/txt2img`.
    """

    kind = Sampling

    @staticmethod
    def check(model: LatentDiffusion) -> None:
        check_text_model(model, "text to image")

    @torch.no_grad()
    def __call__(
        self,
        prompts: str | Sequence[str],
        negative: str = "",
        *,
        height: int | None = None,
        width: int | None = None,
        callback: Callback | None = None,
        start_seeds: Sequence[int] | None = None,
        **changes: object,
    ) -> TextToImageResult:
        """Make `n_samples` pictures of each prompt, all in one batch.

        Sample k of every prompt draws its noise from a generator seeded `seed + k`: prompts are compared on the same
        noise, and a picture does not depend on what else is in the batch.

        Args:
            prompts: one or several; "" is the unconditional model.
            negative: what the pictures are guided away from, instead of the empty prompt.
            height, width: of the pictures, 1 or more; by default as the model was trained. What is no multiple of
                `model.multiple` is sampled at the next one, and the middle of it is cut out.
            callback: `(i, t, x, x0)` after each step; x0 is the latent predicted so far.
            start_seeds: take the start of sample k from `start_seeds[k]` instead.
            changes: fields of `Sampling`, e.g. `seed=3`; to another `sampler` belong other `steps`.

        Raises:
            UserError: no prompt, a prompt that the tokenizer refuses, a wrong size or setting.
        """
        settings, model = self.changed(changes), self.model
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not prompts:
            raise UserError("prompts: the list is empty, expected one or more")
        check_prompts(model, [*prompts, negative])
        height, width = (model.image_size if side is None else side for side in (height, width))
        for name, side in (("height", height), ("width", width)):
            if not isinstance(side, int) or side < 1:
                raise UserError(f"{name} {side!r}: expected a whole number, 1 or more")
        if max(height, width) > 2 * model.image_size:
            log.warning("picture %dx%d, model trained at %d: things may repeat", width, height, model.image_size)
        if negative and settings.guidance_scale == 1:
            log.warning("negative prompt %r: without effect at guidance scale 1", negative)

        seeds = [settings.seed + k for k in range(settings.n_samples)] * len(prompts)
        start = None if start_seeds is None else NoiseSource([*start_seeds] * len(prompts))
        each = [prompt for prompt in prompts for _ in range(settings.n_samples)]
        size = tuple(-(-side // model.multiple) * model.multiple for side in (height, width))
        with self.progress_bar(settings.steps, "step", callback) as bar:
            step = callback or (lambda *_: bar.update())
            z = self.sample(each, negative, size, NoiseSource(seeds), settings, step, start)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        pictures = self.decode(z)[..., top : top + height, left : left + width]
        images = [to_pil(picture, settings.rounding) for picture in pictures]
        return TextToImageResult(images, settings, each, seeds, negative)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        negative: str,
        size: tuple[int, int],
        noise: NoiseSource,
        settings: Sampling,
        callback: Callback | None = None,
        start: NoiseSource | None = None,
    ) -> Tensor:
        """Sample the latents (B, c, h, w) float32 of B prompts.

        Args:
            size: (height, width) in pixels, multiples of `model.multiple`.
            noise: draws B rows: first the start, then the noise of each step.
            settings: sampler, steps, eta and guidance scale are read.
            start: draw the start from here instead; noise's own is drawn all the same.
        """
        model, shape = self.model, self.model.latent_shape(*size)
        x = noise.randn(*shape)
        if start is not None:
            x = start.randn(*shape)
        denoise = prompt_denoiser(model, prompts, [negative] * len(prompts), settings.guidance_scale)
        return self.run_sampler(denoise, x, settings, noise, callback)
