from itertools import pairwise

import numpy as np
import pytest
import torch

from ldm.diffusion.schedule import Schedule, strided_timesteps
from ldm.samplers import repaint as sampler
from ldm.samplers.repaint import REVERSE, Known, StepDown
from tests.refusals import refused
from tests.samplers.gaussian import Normal
from tests.samplers.walks import walk

LINEAR = Schedule.linear()


# --- The loop, against one written for these tests: float64, from the paper and the original's order of operations


def repaint(denoise, x, schedule, timesteps, times, known, mask, *, noise=None, callback=None, **down):
    known, down = Known(known, mask), StepDown(**down)
    return sampler.repaint(denoise, x, schedule, timesteps, times, known, down, noise=noise, callback=callback)


def network(x, t, xp):
    """Any smooth function of both: noise, and a predicted variance."""
    s = xp.sin(t / 300.0).reshape(-1, 1, 1, 1)
    return xp.tanh(0.8 * x + s) + 0.1 * x, xp.sin(2 * x - s)


def denoise(learned: bool):
    return lambda x, t: torch.cat(network(x, t.to(x), torch), 1) if learned else network(x, t.to(x), torch)[0]


class Reference:
    """Reads the coefficients from their definitions, betas first."""

    def __init__(self, steps: int, T: int = 1000):
        stride = (T - 1) / (steps - 1)
        self.timestep_map = [round(stride * k) for k in range(steps)]
        betas = np.linspace(1e-4, 0.02, T)
        cumulated = np.cumprod(1 - betas)[self.timestep_map]
        self.before = np.append(1.0, cumulated[:-1])
        self.betas, self.cumulated = 1 - cumulated / self.before, cumulated

    def down(self, x, k, z, variance):
        t = np.full(len(x), float(self.timestep_map[k]))
        eps, predicted_variance = network(x, t, np)
        beta, a, prev = self.betas[k], self.cumulated[k], self.before[k]
        x0 = (x - np.sqrt(1 - a) * eps) / np.sqrt(a)
        mean = np.sqrt(prev) * beta / (1 - a) * x0 + np.sqrt(1 - beta) * (1 - prev) / (1 - a) * x
        smallest = beta * (1 - prev) / (1 - a)
        if variance == "learned_range":
            share = (predicted_variance + 1) / 2
            log_variance = share * np.log(beta) + (1 - share) * np.log(max(smallest, 1e-300))
        else:
            log_variance = np.log(beta if variance == "fixed_large" else max(smallest, 1e-300))
        return mean if k == 0 else mean + np.exp(0.5 * log_variance) * z

    def ddim(self, x, k, z, eta):
        eps, _ = network(x, np.full(len(x), float(self.timestep_map[k])), np)
        a, prev = self.cumulated[k], self.before[k]
        sigma = eta * np.sqrt((1 - prev) / (1 - a)) * np.sqrt(1 - a / prev)
        x = np.sqrt(prev) * (x - np.sqrt(1 - a) * eps) / np.sqrt(a) + np.sqrt(1 - prev - sigma**2) * eps
        return x + sigma * z if k else x

    def fill(self, x, times, known, keep, noise, down, noisy=True):
        first = True
        for now, then in pairwise(times):
            if then < now:
                z = noise() if noisy and now > 0 else 0.0
                if not first:
                    a = self.cumulated[now]
                    x = keep * (np.sqrt(a) * known + np.sqrt(1 - a) * noise()) + (1 - keep) * x
                x, first = down(x, now, z), False
            else:
                beta = self.betas[now + 1]
                x = np.sqrt(1 - beta) * x + np.sqrt(beta) * noise()
        return keep * known + (1 - keep) * x


def case(seed: int = 0):
    """Start, known pictures and mask (B, 3, 4, 4) float64, and two streams of the same noise."""
    generator = torch.Generator().manual_seed(seed)
    x, known = torch.randn(2, 2, 3, 4, 4, generator=generator, dtype=torch.float64).unbind()
    mask = (torch.rand(1, 1, 4, 4, generator=generator) < 0.5).double()
    streams = [Normal(2, seed) for _ in range(2)]
    return x, known.clamp(-1, 1), mask, streams[0], lambda: streams[1](3, 4, 4).numpy()


@pytest.mark.parametrize("variance", ["learned_range", "fixed_small", "fixed_large"])
@pytest.mark.parametrize("params", [(20, 5, 3), (50, 10, 4), (7, 1, 1)])
def test_against_an_implementation_of_its_own(params, variance):
    x, known, mask, noise, same = case()
    times, reference = walk(*params), Reference(params[0])
    timesteps = strided_timesteps(params[0])
    found = repaint(
        denoise(variance == "learned_range"), x, LINEAR, timesteps, times, known, mask, variance=variance, noise=noise
    )
    expected = reference.fill(
        x.numpy(), times, known.numpy(), 1 - mask.numpy(), same, lambda *a: reference.down(*a, variance)
    )
    assert np.abs(found.numpy() - expected).max() < 1e-9
    single = repaint(
        denoise(variance == "learned_range"),
        x.float(),
        LINEAR,
        timesteps,
        times,
        known.float(),
        mask.float(),
        variance=variance,
        noise=Normal(2, 0),
    )
    assert single.dtype == torch.float32
    assert np.abs(single.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_against_an_implementation_of_its_own(eta):
    x, known, mask, noise, same = case(1)
    times, reference = walk(20, 5, 3), Reference(20)
    found = repaint(
        denoise(False), x, LINEAR, strided_timesteps(20), times, known, mask, reverse="ddim", eta=eta, noise=noise
    )
    expected = reference.fill(
        x.numpy(),
        times,
        known.numpy(),
        1 - mask.numpy(),
        same,
        lambda *a: reference.ddim(*a, eta),
        noisy=eta > 0,
    )
    assert np.abs(found.numpy() - expected).max() < 1e-9


def test_dpm_solver_is_ddim_where_it_has_no_history():
    """Of first order both are the same step: with jumps up after every single step down, until the last steps."""
    x, known, mask, _, _ = case(2)
    times = [3, 2, 3, 2, 1, 2, 1, 0, 1, 0, -1]
    by = {}
    for reverse in ("ddim", "dpm_solver"):
        by[reverse] = []
        repaint(
            denoise(False),
            x,
            LINEAR,
            [900, 600, 300, 0],
            times,
            known,
            mask,
            reverse=reverse,
            noise=Normal(2),
            callback=lambda i, t, x, x0, into=by[reverse]: into.append(x),
        )
    assert torch.allclose(by["ddim"][1], by["dpm_solver"][1], atol=1e-12)
    assert not torch.allclose(by["ddim"][2], by["dpm_solver"][2], atol=1e-6)  # the second step down in a row


# --- What holds at every step


def oracle(mean: float, std: float):
    """E[eps | x_t] of data N(mean, std^2)."""

    def at(x, t):
        a = LINEAR.alphas_cumprod[t].to(x).view(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * std**2 + 1 - a)

    return at


@pytest.mark.parametrize("reverse", REVERSE)
def test_the_marginals_at_every_step(reverse):
    """What is known comes to the network with mean sqrt(a) x0 and variance 1 - a, the hole as noised data.

    Of data with variance 1 a reverse step's true variance is beta: ancestral steps keep the hole's marginal exactly.
    Deterministic steps of this size lose some variance, which is left out here.
    """
    mean, value, n = 0.4, -0.7, 20_000
    seen, times = [], walk(50, 5, 3)

    def watching(x, t):
        seen.append((int(t[0]), x.clone()))
        return oracle(mean, 1.0)(x, t)

    x = torch.randn(1, 2, 1, n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mask = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)  # the first channel is known
    known, grid = torch.full_like(x, value), strided_timesteps(50)
    options = {"reverse": reverse, "variance": "fixed_large", "noise": Normal(1)}
    filled = repaint(watching, x, LINEAR, grid, times, known, mask, **options)

    error = 5 / n**0.5  # of a mean of n standard normals, five standard errors
    for t, state in seen[1:]:
        a = LINEAR.alphas_cumprod[t].item()
        assert abs(state[0, 0].mean().item() - a**0.5 * value) < error * (1 - a) ** 0.5
        assert state[0, 0].var().item() == pytest.approx(1 - a, rel=2**0.5 * error)
        if reverse == "ddpm":
            assert abs(state[0, 1].mean().item() - a**0.5 * mean) < error
            assert state[0, 1].var().item() == pytest.approx(1, rel=2**0.5 * error)
    assert (filled[0, 0] == value).all()
    assert abs(filled[0, 1].mean().item() - mean) < 0.05


def test_the_network_sees_each_time_of_the_walk():
    x, known, mask, noise, _ = case()
    calls, times = [], walk(250, 10, 10)
    repaint(
        denoise(False),
        x[:1, :, :1, :1],
        LINEAR,
        strided_timesteps(250),
        times,
        known[:1, :, :1, :1],
        mask[..., :1, :1],
        noise=Normal(1),
        callback=lambda i, t, x, x0: calls.append((i, t)),
    )
    grid = strided_timesteps(250).flip(0).tolist()
    assert len(calls) == 2410 and calls[0] == (0, 999)
    assert [t for _, t in calls] == [grid[now] for now, then in pairwise(times) if then < now]


def test_rows_do_not_know_of_each_other():
    x, known, mask, _, _ = case()
    times = walk(10, 3, 2)

    def fill(rows):
        streams = [Normal(1, k) for k in rows]
        return repaint(
            denoise(False),
            x[rows],
            LINEAR,
            strided_timesteps(10),
            times,
            known[rows],
            mask,
            noise=lambda *shape: torch.cat([stream(*shape) for stream in streams]),
        )

    assert torch.equal(fill([0, 1])[1:], fill([1]))


def test_what_the_hole_of_the_known_holds_does_not_matter():
    x, known, mask, _, _ = case()
    other = torch.where(mask > 0, torch.full_like(known, 9.0), known)
    filled = [
        repaint(denoise(False), x, LINEAR, [700, 400, 0], [2, 1, 0, -1], k, mask, noise=Normal(2, 5))
        for k in (known, other)
    ]
    assert torch.equal(*filled)
    assert torch.equal(filled[0].masked_select(mask == 0), known.masked_select(mask == 0))


def test_a_gradient_moves_the_mean_by_the_variance():
    """Data N(0, 1): every x_t is N(0, 1), a classifier with a log-probability linear in x shifts it by a known way."""
    grid, slope = [999, 500, 100], 0.8
    schedule = LINEAR.respaced(grid)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)

    def silent(*shape):
        return torch.zeros(1, *shape, dtype=torch.float64)

    mask = torch.ones(1, 1, 1, 1)
    filled = repaint(
        oracle(0.0, 1.0), x, LINEAR, grid, [2, 1, 0, -1], x, mask, gradient=lambda x, t: slope + 0 * x, noise=silent
    )
    expected = 0.0
    small = schedule.posterior_variance.tolist()
    for k in (2, 1, 0):
        expected = (1 - schedule.betas[k].item()) ** 0.5 * expected + slope * (small[k] or small[1])
    assert filled.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("times", [[2, 1, 0], [3, 2, 1, 0, -1], [2, 0, -1], [2, 1, 2, 3, 2, 1, 0, -1]])
def test_a_walk_has_to_fit_the_grid(times):
    x = torch.zeros(1, 1, 2, 2)
    with refused(2, -1, error=ValueError):
        repaint(denoise(False), x, LINEAR, [700, 400, 0], times, x, x + 1, noise=Normal(1))


@pytest.mark.parametrize(
    "wrong, wanted",
    [
        ({"reverse": "plms"}, ("plms", "ddpm", "ddim", "dpm_solver")),
        ({"eta": 2}, ("eta", 2)),
    ],
)
def test_wrong_options(wrong, wanted):
    x = torch.zeros(1, 1, 2, 2)
    with refused(wanted):
        repaint(denoise(False), x, LINEAR, [0], [0, -1], x, x + 1, noise=Normal(1), **wrong)
