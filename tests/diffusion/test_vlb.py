"""The variational bound: its terms against numpy written from the papers, the whole of it against a known entropy."""

import math

import numpy as np
import pytest
import torch

from ldm.diffusion.schedule import Schedule, strided_timesteps
from ldm.diffusion.variance import variance_bounds
from ldm.diffusion.vlb import bound, bound_term, log_likelihood, normal_kl, prior_term

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def peer_term(x0, x0_predicted, x, predicted_variance, t, betas, variance) -> float:
    """One picture's term at t, all in numpy: equations 5, 6, 7 and 13 of 2006.11239, 15 of 2102.09672."""
    kept = np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    posterior = betas * (1 - before) / (1 - kept)
    clipped = np.append(posterior[1], posterior[1:])
    to_x0 = betas[t] * np.sqrt(before[t]) / (1 - kept[t])
    to_x = (1 - before[t]) * np.sqrt(1 - betas[t]) / (1 - kept[t])
    mean, other = (to_x0 * guess + to_x * x for guess in (x0, x0_predicted))
    if variance == "learned_range":
        v = (predicted_variance + 1) / 2
        log_variance = v * np.log(betas[t]) + (1 - v) * np.log(clipped[t])
    else:
        large = np.append(posterior[1], betas[1:])  # the original's, at t = 0
        log_variance = np.full_like(x0, np.log({"fixed_small": clipped, "fixed_large": large}[variance][t]))
    if t == 0:
        sigma = np.exp(log_variance / 2)
        above = np.where(x0 > 0.999, 1.0, normal_cdf((x0 + 1 / 255 - other) / sigma))
        below = np.where(x0 < -0.999, 0.0, normal_cdf((x0 - 1 / 255 - other) / sigma))
        nats = -np.log(np.maximum(above - below, 1e-12))
    else:
        ratio = clipped[t] / np.exp(log_variance)
        nats = 0.5 * (ratio - 1 - np.log(ratio) + (mean - other) ** 2 / np.exp(log_variance))
    return nats.mean() / math.log(2)


@pytest.mark.parametrize("dtype, rtol", [(torch.float64, 1e-9), (torch.float32, 2e-4)])
@pytest.mark.parametrize("variance", ["learned_range", "fixed_small", "fixed_large"])
@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine().respaced(strided_timesteps(50))])
def test_terms(schedule, variance, dtype, rtol):
    draw, last = torch.Generator().manual_seed(0), schedule.num_timesteps - 1
    t = torch.tensor([0, 1, last // 2, last])
    x0 = LEVELS[torch.randint(256, (4, 3, 5, 5), generator=draw)]
    x0[:, 0, 0, :2] = torch.tensor([1.0, -1.0])  # open ends
    spread = torch.tensor([0.003, 0.01, 0.1, 0.5], dtype=torch.float64).view(4, 1, 1, 1)
    predicted, x, predicted_variance = torch.randn(3, 4, 3, 5, 5, generator=draw, dtype=torch.float64)
    predicted = x0 + spread * predicted
    found = bound_term(*(v.to(dtype) for v in (x0, predicted, predicted_variance)), t, schedule, variance)
    rows = zip(*(v.numpy() for v in (x0, predicted, x, predicted_variance)), t.tolist(), strict=True)
    expected = [peer_term(*row, schedule.betas.numpy(), variance) for row in rows]
    assert found.dtype == dtype and found.shape == (4,)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=rtol)


@pytest.mark.parametrize("mean, sigma", [(0.1, 0.3), (0.1, 0.004), (-0.95, 0.05), (3.0, 0.5)])
def test_the_masses_of_all_levels_are_one(mean, sigma):
    masses = log_likelihood(LEVELS, torch.tensor(mean).double(), torch.tensor(sigma).double().log()).exp()
    assert masses.sum().item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("dtype, rtol", [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("sign", [1, -1])
def test_masses_in_the_tails(sign, dtype, rtol):
    """By the complementary error function, which keeps its digits there; 6.5 standard deviations away it is 4e-11."""
    sigma, x = 1 / 16, torch.zeros(27, dtype=dtype)  # of which float32 loses nothing
    distance = torch.arange(27, dtype=dtype) / 64  # up to 6.5 sigma
    found = log_likelihood(x, sign * distance, torch.full_like(x, sigma).log())
    ends = [[(d + s / 255) / sigma / math.sqrt(2) for s in (-1, 1)] for d in distance.tolist()]
    expected = [math.log((math.erfc(near) - math.erfc(far)) / 2) for near, far in ends]
    assert found.dtype == dtype
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=rtol)
    assert torch.equal(found, log_likelihood(x, -sign * distance, torch.full_like(x, sigma).log()))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_open_ends_in_their_tails(sign):
    """Of white and black, far from the mean and near it; and nothing of them is lost in the gradient."""
    x, sigma = torch.full((2,), sign), 0.1
    mean = torch.tensor([sign * 0.5, sign * 1.3], requires_grad=True)
    found = log_likelihood(x, mean, torch.full((2,), sigma).log())
    expected = [math.log(math.erfc((1 - 1 / 255 - m) / sigma / math.sqrt(2)) / 2) for m in (0.5, 1.3)]
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5)
    found.sum().backward()
    assert mean.grad.isfinite().all() and (mean.grad * sign > 0).all()


def test_the_kl_of_normals():
    p, q = torch.distributions.Normal(0.3, 0.7), torch.distributions.Normal(-0.2, 1.9)
    terms = [torch.tensor(value) for value in (0.3, 2 * math.log(0.7), -0.2, 2 * math.log(1.9))]
    assert normal_kl(*terms).item() == pytest.approx(torch.distributions.kl_divergence(p, q).item(), rel=1e-5)
    assert normal_kl(*terms[:2], *terms[:2]).item() == 0


def test_the_prior_term_is_what_the_schedule_leaves_of_the_data():
    x0 = torch.full((2, 3, 4, 4), 0.5)
    assert prior_term(x0, Schedule.linear()).max() < 1e-4
    short = Schedule.linear().respaced(range(100))
    a = short.alphas_cumprod[-1].item()
    expected = 0.5 * (1 - a + a * 0.25 - 1 - math.log(1 - a)) / math.log(2)
    torch.testing.assert_close(prior_term(x0, short), torch.full((2,), expected))


def test_the_exact_prediction_costs_the_bits_of_the_decoder_alone():
    """With the posterior's own variance every term above t = 0 is zero, and below it one level is all but certain."""
    x0, schedule = LEVELS[::16].view(1, 1, 4, 4), Schedule.cosine()
    for t in (1, 500, 999):
        assert bound_term(x0, x0, None, torch.tensor([t]), schedule, "fixed_small").abs() < 1e-12
    sigma = schedule.posterior_variance[1].sqrt().item()
    inside = torch.full((1,), math.erf(1 / 255 / sigma / math.sqrt(2)))
    found = bound_term(x0, x0, None, torch.tensor([0]), schedule, "fixed_small")
    ends = torch.tensor([1 / 16 * math.log2((1 + inside.item()) / 2)])  # the black pixel's interval is open
    torch.testing.assert_close(found.float(), -inside.log2() * 15 / 16 - ends, rtol=1e-5, atol=0)


S = 60  # steps


def exact(mean: float, std: float, schedule: Schedule, steps: torch.Tensor):
    """The best model of data N(mean, std^2): E[eps | x], and the variance of x_prev given x as `learned_range` says."""
    grid = schedule.respaced(steps)
    small, large = variance_bounds(grid, "learned_range")
    place = {int(t): k for k, t in enumerate(steps.flip(0))}

    def denoise(x, t):
        k = place[t[0].item()]
        a, before, beta = (v[k].item() for v in (grid.alphas_cumprod, grid.alphas_cumprod_prev, grid.betas))
        left = std**2 * (1 - a) / (a * std**2 + 1 - a)  # the variance of x0 given x
        eps = (1 - a) ** 0.5 * (x - a**0.5 * mean) / (a * std**2 + 1 - a)
        variance = beta * (1 - before) / (1 - a) + (before**0.5 * beta / (1 - a)) ** 2 * left
        low, high = small[k].log().item(), large[k].log().item()
        predicted_variance = 2 * (math.log(variance) - low) / (high - low) - 1
        return torch.cat([eps, torch.full_like(eps, predicted_variance)], dim=1)

    return denoise


def test_the_bound_of_an_exact_model_is_the_likelihood_of_the_data():
    """Of normal data, whose reverse steps are normal: -log2 of its density times one level, and not a bit more."""
    draw, mean, std = torch.Generator().manual_seed(0), 0.1, 0.2
    schedule, steps = Schedule.linear(), strided_timesteps(S)
    x0 = mean + std * torch.randn(10, 1, 20, 20, generator=draw, dtype=torch.float64)
    denoise, calls = exact(mean, std, schedule, steps), []

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(10, *shape, generator=draw)

    found = bound(denoise, x0, schedule, steps, "learned_range", noise, lambda: calls.append(1))
    assert found.terms.shape == (10, S) and len(calls) == S
    assert torch.equal(found.decoder, found.terms[:, 0])
    torch.testing.assert_close(found.total, found.terms.sum(1) + found.prior)
    density = torch.distributions.Normal(mean, std).log_prob(x0).flatten(1).mean(1)
    expected = -density / math.log(2) + math.log2(127.5)
    assert (found.total - expected).mean().item() == pytest.approx(0, abs=0.03)

    fixed = bound(lambda x, t: denoise(x, t)[:, :1], x0, schedule, steps, "fixed_large", noise)
    assert (fixed.total - expected).mean() > 0.1
