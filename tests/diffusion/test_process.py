import pytest
import torch

from ldm.diffusion.process import (
    eps_from_v,
    eps_from_x0,
    posterior,
    q_sample,
    velocity,
    x0_from_eps,
    x0_from_v,
)
from ldm.diffusion.schedule import Schedule

SCHEDULE = Schedule.scaled_linear()


@pytest.mark.parametrize("level", [0.99915, 0.5, 0.0046, torch.tensor([0.9, 0.1], dtype=torch.float64).view(2, 1)])
def test_conversions_invert_each_other(level):
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, 5, generator=generator, dtype=torch.float64)
    x, v = q_sample(x0, noise, level), velocity(x0, noise, level)
    for found, expected in [
        (x0_from_eps(x, noise, level), x0),
        (eps_from_x0(x, x0, level), noise),
        (x0_from_v(x, v, level), x0),
        (eps_from_v(x, v, level), noise),
    ]:
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_q_sample_has_the_variance_of_its_level():
    noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = q_sample(torch.full_like(noise, 2.0), noise, 0.25)
    assert x.mean().item() == pytest.approx(1.0, abs=0.01)
    assert x.var().item() == pytest.approx(0.75, rel=0.02)


def test_posterior_between_neighbours_is_the_published_formula():
    t, betas, alphas_cumprod = 500, SCHEDULE.betas, SCHEDULE.alphas_cumprod
    beta, a, a_prev = betas[t].item(), alphas_cumprod[t].item(), alphas_cumprod[t - 1].item()
    mean, variance = posterior(*torch.tensor([2.0, 3.0], dtype=torch.float64), a, a_prev)
    assert variance == pytest.approx((1 - a_prev) / (1 - a) * beta, rel=1e-9)
    expected = a_prev**0.5 * beta / (1 - a) * 2 + (1 - beta) ** 0.5 * (1 - a_prev) / (1 - a) * 3
    assert mean.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("t, t_prev", [(900, 899), (901, 1), (300, 120)])
def test_posterior_continues_the_marginal(t, t_prev):
    """If x ~ q(x_t | x0), a draw from q(x_prev | x_t, x0) is distributed as q(x_prev | x0), exactly, on any grid."""
    a, a_prev = SCHEDULE.alphas_cumprod[[t, t_prev]].tolist()
    x0, centre = torch.tensor([1.3, 1.3 * a**0.5], dtype=torch.float64)
    mean, variance = posterior(x0, centre, a, a_prev)
    slope = (posterior(x0, centre + 1, a, a_prev)[0] - mean).item()
    assert mean.item() == pytest.approx(1.3 * a_prev**0.5, rel=1e-12)
    assert slope**2 * (1 - a) + variance == pytest.approx(1 - a_prev, rel=1e-12)


def test_posterior_of_the_clean_level_is_x0():
    x0 = torch.tensor([1.0, -2.0])
    mean, variance = posterior(x0, torch.tensor([9.0, 9.0]), 0.5, 1.0)
    assert torch.equal(mean, x0) and variance == 0
