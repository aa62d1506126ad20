"""The samplers against diffusers' schedulers, with a small random network and the same timesteps and noise."""

import pytest
import torch
from torch import nn

from ldm.diffusion.schedule import Schedule, sampling_timesteps
from ldm.samplers import ddim, ddpm, dpm_solver, plms

diffusers = pytest.importorskip("diffusers")

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
LATENT_DIFFUSION = {**BETAS, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
SHAPE = (2, 4, 8, 8)


class Network(nn.Module):
    """A random convolution that depends on x and, strongly, on t."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = nn.Parameter(0.25 * torch.randn(4, 4, 3, 3, generator=generator), requires_grad=False)

    def forward(self, x, t):
        scale = 1 + 0.5 * torch.sin(t.float() / 200).view(-1, 1, 1, 1)
        return torch.tanh(nn.functional.conv2d(x, self.kernel, padding=1)) * scale + 0.3 * x


NETWORK = Network()


def start():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))


def theirs(scheduler, noise=None, **options):
    x = start()
    for t in scheduler.timesteps:
        eps = NETWORK(x, t.expand(len(x)))
        if noise is not None:
            options["variance_noise"] = noise(*x.shape[1:])
        x = scheduler.step(eps, t, x, **options).prev_sample
    return x


def noise_source():
    generator = torch.Generator().manual_seed(2)
    return lambda *shape: torch.randn(SHAPE[0], *shape, generator=generator)


def assert_close(ours, reference):
    assert (ours - reference).abs().max() <= 3e-5 * reference.abs().max()


@pytest.mark.parametrize("S", [1, 4, 10, 50])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(S, eta):
    scheduler = diffusers.DDIMScheduler(**LATENT_DIFFUSION)
    scheduler.set_timesteps(S)
    timesteps = sampling_timesteps(S)
    assert scheduler.timesteps.tolist() == timesteps.tolist()
    ours = ddim(NETWORK, start(), Schedule.scaled_linear(), timesteps, eta=eta, noise=noise_source())
    assert_close(ours, theirs(scheduler, noise_source() if eta else None, eta=eta))


@pytest.mark.parametrize("S", [2, 4, 10, 50])  # at S = 1 theirs makes no second call
def test_plms(S):
    options = {**LATENT_DIFFUSION, "skip_prk_steps": True}
    del options["clip_sample"]
    scheduler = diffusers.PNDMScheduler(**options)
    scheduler.set_timesteps(S)
    assert_close(plms(NETWORK, start(), Schedule.scaled_linear(), sampling_timesteps(S)), theirs(scheduler))


@pytest.mark.parametrize("S", [1, 2, 5, 17, 50])
def test_dpm_solver(S):
    scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS)
    timesteps = sampling_timesteps(S)
    scheduler.set_timesteps(timesteps=timesteps.tolist())
    assert_close(dpm_solver(NETWORK, start(), Schedule.scaled_linear(), timesteps), theirs(scheduler))


@pytest.mark.parametrize("S", [4, 10, 50])
def test_ddpm(S):
    scheduler = diffusers.DDPMScheduler(**BETAS, clip_sample=False, timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(S)
    timesteps = sampling_timesteps(S)
    assert scheduler.timesteps.tolist() == timesteps.tolist()
    reference = theirs(scheduler, generator=torch.Generator().manual_seed(2))
    assert_close(ddpm(NETWORK, start(), Schedule.scaled_linear(), timesteps, noise=noise_source()), reference)
