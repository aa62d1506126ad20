"""SDEdit (Meng et al., 2108.01073) in the terms of DiffEdit: pictures go up to noise by noise, not by inversion."""

from dataclasses import replace

from torch import Tensor

from ldm.diffusion.process import q_sample
from ldm.diffusion.schedule import Schedule
from ldm.editors.diffedit_steps import Inversion


def noised(inversion: Inversion, schedule: Schedule, noise: Tensor) -> Inversion:
    """The pictures of an inversion at the same levels, but with one noise each, (B, c, h, w), added to their latents.

    `DiffEdit.edit` of it is SDEdit where the mask is 1 everywhere; elsewhere it is decoding inside a mask without
    inversion: blended latent diffusion (Avrahami et al., 2206.02779), but for the noise, which stays the same.
    """
    z = inversion.latents[0]
    levels = {t: q_sample(z, noise, schedule.alphas_cumprod[t].item()) for t in inversion.latents if t > 0}
    return replace(inversion, latents={0: z, **levels})
