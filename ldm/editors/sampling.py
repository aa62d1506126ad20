"""The sampler that the settings name, from noise to latents."""

from torch import Tensor

from ldm.diffusion.schedule import Schedule, sampling_timesteps
from ldm.editors.settings import Sampling
from ldm.samplers import SAMPLERS
from ldm.samplers.common import Callback, Denoise
from ldm.utils.random import NoiseSource


def run_sampler(
    denoise: Denoise,
    x: Tensor,
    schedule: Schedule,
    settings: Sampling,
    noise: NoiseSource,
    callback: Callback | None = None,
) -> Tensor:
    """Pure noise x (B, ...) to a sample, on the default grid; sampler, steps and eta are read from the settings."""
    timesteps = sampling_timesteps(settings.steps, schedule.num_timesteps)
    eta = {"eta": settings.eta} if settings.sampler == "ddim" else {}
    sampler = SAMPLERS[settings.sampler]
    return sampler(denoise, x, schedule, timesteps, noise=noise.randn, callback=callback, **eta)
