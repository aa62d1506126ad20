"""DDPM with each kind of variance, and guided, against numpy written from the papers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ldm.diffusion.schedule import Schedule, strided_timesteps
from ldm.samplers import ddpm
from tests.refusals import refused
from tests.samplers.gaussian import Normal

SCHEDULE = Schedule.cosine()
STEPS = strided_timesteps(12)
X = torch.linspace(-2, 2, 10, dtype=torch.float64).view(5, 2)


def denoise(x: Tensor, t: Tensor) -> Tensor:
    """Noise, and a variance from beyond the lower bound to beyond the upper one."""
    return torch.cat([0.9 * x + 0.1 * x.sin(), 1.2 * (x / 3).cos()], dim=1)


def gradient(x: Tensor, t: Tensor) -> Tensor:
    return (1 - x) * (1 + t[:, None].double() / 1000)


def peer(x: np.ndarray, steps: list[int], variance: str, guided: bool, noises: list[np.ndarray]) -> np.ndarray:
    """Algorithm 1 of 2105.05233 on the betas of section 4 of 2102.09672, one timestep after the other."""
    kept = np.cumprod(1 - SCHEDULE.betas.numpy())[steps[::-1]]  # of the visited timesteps, upwards
    before = np.append(1.0, kept[:-1])
    betas = 1 - kept / before
    posterior = betas * (1 - before) / (1 - kept)
    for k in reversed(range(len(steps))):
        eps, predicted_variance = 0.9 * x + 0.1 * np.sin(x), 1.2 * np.cos(x / 3)
        x0 = x / np.sqrt(kept[k]) - np.sqrt(1 / kept[k] - 1) * eps
        mean = np.sqrt(before[k]) * betas[k] * x0 + np.sqrt(1 - betas[k]) * (1 - before[k]) * x
        mean /= 1 - kept[k]
        v = {
            "fixed_small": 0 * predicted_variance,
            "fixed_large": 0 * predicted_variance + 1,
            "learned_range": (predicted_variance + 1) / 2,
        }[variance]
        large = posterior[1] if variance == "fixed_large" and k == 0 else betas[k]  # as in the papers' code
        spread = np.exp(v * np.log(large) + (1 - v) * np.log(posterior[max(k, 1)]))
        if guided:
            mean = mean + spread * (1 - x) * (1 + steps[::-1][k] / 1000)
        x = mean + np.sqrt(spread) * noises.pop(0) if k else mean
    return x


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_every_step(variance, guided):
    noise, drawn = Normal(5), []

    def record(*shape: int) -> Tensor:
        drawn.append(noise(*shape))
        return drawn[-1]

    guide = gradient if guided else None
    x = ddpm(denoise, X, SCHEDULE, STEPS, variance=variance, gradient=guide, noise=record)
    assert len(drawn) == 11
    expected = peer(X.numpy(), STEPS.tolist(), variance, guided, [z.numpy() for z in drawn])
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-6, atol=1e-6)  # x0 is ill-conditioned at the top


def test_the_callback_sees_the_clean_sample_without_the_variance():
    shapes = []
    ddpm(
        denoise, X, SCHEDULE, STEPS, variance="learned_range", noise=Normal(5),
        callback=lambda i, t, x, x0: shapes.append((i, t, x.shape, x0.shape)),
    )  # fmt: skip
    assert shapes == [(i, t, X.shape, X.shape) for i, t in enumerate(STEPS.tolist())]


def test_a_learned_variance_that_the_network_does_not_predict_is_missed():
    with refused("learned_range", error=ValueError):
        ddpm(lambda x, t: x, X, SCHEDULE, STEPS, variance="learned_range", noise=Normal(5))
