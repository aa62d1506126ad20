"""The samplers that add noise: their distributions, against closed forms."""

import math

import numpy as np
import pytest
import torch

from ldm.diffusion.schedule import sampling_timesteps
from ldm.samplers import ddim, ddpm
from ldm.samplers.common import time_grid
from ldm.samplers.ddim import ddim_sigma
from tests.diffusion.test_schedule import GOLDEN
from tests.refusals import refused
from tests.samplers.gaussian import SCHEDULE, Gaussian, Normal, level

B = 20_000


def assert_normal(x: torch.Tensor, mean: float, std: float) -> None:
    """Sample mean and standard deviation within four of their standard errors."""
    assert abs(x.mean().item() - mean) <= 4 * std / math.sqrt(B) + 1e-12
    assert abs(x.std().item() - std) <= 4 * std / math.sqrt(2 * B) + 1e-12


def start(data: Gaussian, t: int) -> torch.Tensor:
    return data.flow(Normal(B, seed=1)(1), t)


@pytest.mark.parametrize("S", [10, 200])
@pytest.mark.parametrize("sampler, knobs", [(ddpm, {}), (ddim, {"eta": 1.0}), (ddim, {"eta": 0.5})])
def test_every_level_has_its_marginal(sampler, knobs, S):
    """For a point of data the steps are exact on any grid, so x_t ~ N(sqrt(a) x0, 1 - a) at every level on the way."""
    data, timesteps, levels = Gaussian(0.7, 0.0), sampling_timesteps(S), []

    def check(x, t):
        levels.append(t)
        if len(levels) % (S // 10) == 0:
            assert_normal(x, *data.marginal(t))
        return x

    sampler(data.denoise, start(data, timesteps[0].item()), SCHEDULE, timesteps, noise=Normal(B), hook=check, **knobs)
    assert levels == [*timesteps[1:].tolist(), -1 if sampler is ddpm else 0]


@pytest.mark.parametrize("S", [20, 1000])
def test_ddpm_of_gaussian_data(S):
    """Every step is x' = k x + c + noise, so the mean and variance of the result follow by hand."""
    data, timesteps = Gaussian(0.7, 0.3), sampling_timesteps(S)
    mean, std = data.marginal(timesteps[0].item())
    variance = std**2
    for t, t_prev in zip(timesteps.tolist(), [*timesteps[1:].tolist(), -1], strict=True):
        a, a_prev = level(t), level(t_prev)
        gain = a**0.5 * data.std**2 / (a * data.std**2 + 1 - a)  # x0 = data.mean + gain (x - sqrt(a) data.mean)
        beta = 1 - a / a_prev
        k = a_prev**0.5 * beta / (1 - a) * gain + (a / a_prev) ** 0.5 * (1 - a_prev) / (1 - a)
        mean = a_prev**0.5 * data.mean + k * (mean - a**0.5 * data.mean)
        variance = k**2 * variance + beta * (1 - a_prev) / (1 - a)
    x = ddpm(data.denoise, start(data, timesteps[0].item()), SCHEDULE, timesteps, noise=Normal(B))
    assert_normal(x, mean, variance**0.5)
    if S == 1000:  # and with all the steps they are nearly the data's own
        assert mean == pytest.approx(0.7, rel=1e-3) and variance**0.5 == pytest.approx(0.3, rel=0.03)


def test_ddpm_ends_clean_and_draws_once_per_step_but_the_last():
    data, noise = Gaussian(0.7, 0.0), Normal(3)
    x = ddpm(data.denoise, torch.randn(3, 1).double(), SCHEDULE, sampling_timesteps(5), noise=noise)
    torch.testing.assert_close(x, torch.full_like(x, 0.7))
    assert noise.draws == 4


def test_ddim_draws_once_per_step_and_never_at_eta_0():
    data, x = Gaussian(0.7, 0.3), torch.randn(3, 1).double()
    for eta, draws in ((0.0, 0), (0.5, 5)):
        noise = Normal(3)
        ddim(data.denoise, x, SCHEDULE, sampling_timesteps(5), eta=eta, noise=noise)
        assert noise.draws == draws


def test_noise_is_asked_for_by_its_shape_without_the_batch_and_moved_to_x():
    shapes = []

    def noise(*shape):
        shapes.append(shape)
        return torch.zeros(2, *shape, dtype=torch.float32)

    x = ddpm(lambda x, t: x, torch.zeros(2, 4, 3, 5, dtype=torch.float64), SCHEDULE, [500, 1], noise=noise)
    assert shapes == [(4, 3, 5)] and x.dtype == torch.float64


@pytest.mark.parametrize(
    "S, eta", [(S, eta) for S in (7, 10, 20, 30, 50, 100, 250) for eta in (0.0, 1.0)] + [(10, 0.5)]
)
def test_ddim_tables_equal_the_original(S, eta):
    timesteps = GOLDEN[f"ddim_S{S}_timesteps"][::-1].tolist()
    grid = time_grid(timesteps, SCHEDULE, torch.zeros(1), end=0)
    columns = {
        "alphas": [step.alpha for step in grid],
        "alphas_prev": [step.alpha_prev for step in grid],
        "sigmas": [ddim_sigma(step.alpha, step.alpha_prev, eta) for step in grid],
    }
    for column, ours in columns.items():
        golden = GOLDEN[f"ddim_S{S}_eta{eta}_{column}_f64"]
        np.testing.assert_allclose(ours[::-1], golden, rtol=1e-5, atol=0)


@pytest.mark.parametrize("eta", [-0.1, 1.5, float("nan")])
def test_eta_outside_0_to_1_is_refused(eta):
    with refused("eta", eta):
        ddim(lambda x, t: x, torch.zeros(1, 1), SCHEDULE, [1], eta=eta)


@pytest.mark.parametrize("sampler, knobs", [(ddpm, {}), (ddim, {"eta": 1.0})])
def test_missing_noise_is_refused(sampler, knobs):
    with refused("noise"):
        sampler(lambda x, t: x, torch.zeros(1, 1), SCHEDULE, [500, 1], **knobs)
