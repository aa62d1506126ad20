"""The variance of reverse steps, against numpy written from the papers."""

import numpy as np
import pytest
import torch

from ldm.diffusion.schedule import Schedule, strided_timesteps
from ldm.diffusion.variance import check_variance, reverse_sigma, split, variance_bounds, variance_fraction
from tests.refusals import refused

SCHEDULES = [Schedule.linear(), Schedule.cosine(), Schedule.cosine().respaced(strided_timesteps(50))]


def peer(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Posterior variances with the first replaced by the second, and betas: (2006.11239, equation 7)."""
    betas = schedule.betas.numpy().copy()
    kept = np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    posterior = betas * (1 - before) / (1 - kept)
    return np.append(posterior[1], posterior[1:]), betas


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range", "learned_clipped"])
def test_bounds(schedule, variance):
    small, large = variance_bounds(schedule, variance)
    expected = peer(schedule)
    if variance == "fixed_large":  # at t = 0 the papers' code has no larger one
        expected[1][0] = expected[0][1]
    np.testing.assert_allclose(small.numpy(), expected[0], rtol=1e-9)
    np.testing.assert_allclose(large.numpy(), expected[1], rtol=1e-12)
    assert (small <= large * (1 + 1e-12)).all() and (small > 0).all()


def test_a_single_step_has_a_variance_too():
    for variance in ("learned_range", "fixed_large"):
        small, large = variance_bounds(Schedule.linear().respaced([999]), variance)
        assert torch.equal(small, large)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_learned_variance_lies_between_the_bounds_in_the_logarithm(schedule):
    """exp(v log beta + (1 - v) log beta~), equation 15 of 2102.09672, where the network predicts 2 v - 1."""
    small, large = peer(schedule)
    predicted_variance = torch.linspace(-1.2, 1.2, 7, dtype=torch.float64)
    fraction = variance_fraction("learned_range", predicted_variance)
    for t in (0, 1, schedule.num_timesteps // 2, schedule.num_timesteps - 1):
        v = (predicted_variance.numpy() + 1) / 2
        expected = np.exp(0.5 * (v * np.log(large[t]) + (1 - v) * np.log(small[t])))
        np.testing.assert_allclose(reverse_sigma(fraction, small[t], large[t]).numpy(), expected, rtol=1e-12)


def test_what_lies_beyond_the_bounds_is_cut_if_wanted():
    predicted_variance = torch.tensor([-9.0, -1.0, 0.0, 1.0, 9.0], dtype=torch.float64)
    sigma = reverse_sigma(variance_fraction("learned_clipped", predicted_variance), 0.01, 0.09)
    np.testing.assert_allclose(sigma.numpy(), [0.1, 0.1, 0.03**0.5, 0.3, 0.3], rtol=1e-12)


@pytest.mark.parametrize("variance, expected", [("fixed_small", 0.1), ("fixed_large", 0.3)])
def test_a_fixed_variance_is_a_bound_whatever_the_network_predicts(variance, expected):
    for predicted_variance in (None, torch.ones(2)):
        assert reverse_sigma(variance_fraction(variance, predicted_variance), 0.01, 0.09) == pytest.approx(expected)


def test_a_predicted_variance_is_behind_the_prediction():
    output = torch.randn(2, 6, 4, 4)
    prediction, predicted_variance = split(output, 3)
    assert (
        torch.equal(torch.cat([prediction, predicted_variance], 1), output)
        and prediction.shape == predicted_variance.shape
    )
    prediction, predicted_variance = split(output[:, :3], 3)
    assert torch.equal(prediction, output[:, :3]) and predicted_variance is None


def test_what_is_wrong_is_said():
    with refused("variance", "learned", "fixed_small", "fixed_large", "learned_range"):
        check_variance("learned")
    with refused("variance", "learned"):
        variance_bounds(SCHEDULES[0], "learned")
    with refused("learned_range", error=ValueError):
        variance_fraction("learned_range", None)
