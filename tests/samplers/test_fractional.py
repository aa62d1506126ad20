"""Grids off the whole timesteps, and ends above 0: against closed forms, and against the whole way."""

from itertools import pairwise

import pytest
import torch

from ldm.diffusion.denoiser import Denoiser
from ldm.diffusion.process import velocity
from ldm.diffusion.schedule import levels_at, sampling_timesteps
from ldm.samplers import SAMPLERS, ddim, ddpm, dpm_solver
from ldm.samplers.ddim import ddim_invert
from tests.refusals import refused
from tests.samplers.gaussian import END, SCHEDULE, Gaussian, Normal, level

ALL = sorted(SAMPLERS)
ODE = ["ddim", "dpm_solver", "plms"]
Z = torch.tensor([[-2.0], [-1.0], [0.5], [1.5]], dtype=torch.float64)
DATA = Gaussian(0.5, 0.8)
START, MIDDLE = 900.25, 300.5


def grid(S: int, top: float = START, end: float = MIDDLE) -> list[float]:
    """S timesteps from `top` down, evenly spaced, such that the next would be `end`."""
    return [top + (end - top) * i / S for i in range(S)]


def run(name, timesteps, x, data=DATA, **options):
    return SAMPLERS[name](data.denoise, x, SCHEDULE, timesteps, noise=Normal(len(x)), **options)


def test_levels_between_timesteps_are_linear_in_the_log_snr_and_exact_at_them():
    table = SCHEDULE.alphas_cumprod
    t = torch.tensor([0.0, 0.25, 499.5, 500.0, 998.75, 999.0], dtype=torch.float64)
    expected = torch.tensor([level(value) for value in t.tolist()], dtype=torch.float64)
    torch.testing.assert_close(levels_at(table, t), expected, rtol=1e-12, atol=0)
    whole = torch.arange(1000)
    assert torch.equal(levels_at(table, whole), table) and torch.equal(levels_at(table, whole.double()), table)
    assert (levels_at(table, torch.linspace(0, 999, 5000, dtype=torch.float64)).diff() < 0).all()


@pytest.mark.parametrize("name", ODE)
@pytest.mark.parametrize("end", [MIDDLE, 0.5, 0, None])
def test_a_point_of_data_is_found_exactly(name, end):
    """With the exact noise as eps every step is exact, whatever the grid: only a wrong level could miss."""
    data, timesteps = Gaussian(0.7, 0.0), grid(7)
    x = run(name, timesteps, data.flow(Z, START), data, end=end)
    torch.testing.assert_close(x, data.flow(Z, -1 if end is None else end), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name, order", [("ddim", 2), ("plms", 4), ("dpm_solver", 4)])
def test_the_order_of_convergence_is_that_of_whole_timesteps(name, order):
    errors = []
    for S in (40, 80, 160):
        x = run(name, grid(S), DATA.flow(Z, START), end=MIDDLE)
        errors.append((x - DATA.flow(Z, MIDDLE)).abs().max().item())
    assert all(coarse / fine == pytest.approx(order, rel=0.2) for coarse, fine in pairwise(errors))


@pytest.mark.parametrize("name", ODE)
def test_a_fractional_grid_finds_what_a_whole_one_finds(name):
    found = []
    for timesteps in (sampling_timesteps(500), [t - 0.37 for t in sampling_timesteps(500).tolist()]):
        x = run(name, timesteps, DATA.flow(Z, float(timesteps[0])))
        found.append(x)
        assert (x - DATA.flow(Z, END[name])).abs().max() < 0.02
    assert (found[0] - found[1]).abs().max() < 1e-3


def test_ancestral_steps_have_the_marginals_of_fractional_levels():
    data, B = Gaussian(0.7, 0.0), 20_000
    for sampler, knobs in ((ddpm, {}), (ddim, {"eta": 1.0})):
        start = data.flow(Normal(B, seed=1)(1), START)
        x = sampler(data.denoise, start, SCHEDULE, grid(10), end=MIDDLE, noise=Normal(B), **knobs)
        mean, std = data.marginal(MIDDLE)
        assert x.mean().item() == pytest.approx(mean, abs=4 * std / B**0.5)
        assert x.std().item() == pytest.approx(std, rel=4 / (2 * B) ** 0.5)


@pytest.mark.parametrize("name, knobs", [("ddim", {}), ("ddim", {"eta": 0.7}), ("ddpm", {})])
@pytest.mark.parametrize("timesteps", [sampling_timesteps(20).tolist(), grid(20, end=0.25)])
def test_stopping_and_going_on_is_the_whole_way(name, knobs, timesteps):
    x, noise = DATA.flow(Z, timesteps[0]), Normal(len(Z))
    whole = run(name, timesteps, x, **knobs)
    first, rest = timesteps[:8], timesteps[8:]
    half = SAMPLERS[name](DATA.denoise, x, SCHEDULE, first, end=rest[0], noise=noise, **knobs)
    done = SAMPLERS[name](DATA.denoise, half, SCHEDULE, rest, noise=noise, **knobs)
    torch.testing.assert_close(done, whole, rtol=0, atol=0 if name == "ddim" else 1e-9)


@pytest.mark.parametrize("refine", [0, 30])
def test_inversion_from_an_end_above_0(refine):
    x = DATA.flow(Z, 20.5)
    record = ddim_invert(DATA.denoise, x, SCHEDULE, grid(50, end=20.5), end=20.5, refine=refine)
    assert sorted(record) == sorted([20.5, *grid(50, end=20.5)]) and record[20.5] is x
    top = record[START]
    assert (top - DATA.flow(Z, START)).abs().max() < 0.1
    back = ddim(DATA.denoise, top, SCHEDULE, grid(50, end=20.5), end=20.5)
    assert (back - x).abs().max() < (1e-12 if refine else 0.1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_network_gets_whole_timesteps_as_int64_and_fractional_ones_as_floats(name, dtype):
    seen, levels = [], []

    def denoise(x, t):
        seen.append(t)
        return x * 0.1

    x = torch.ones(2, 1, dtype=dtype)
    SAMPLERS[name](denoise, x, SCHEDULE, torch.tensor([900.0, 401.0]), end=100, noise=Normal(2))
    assert {t.dtype for t in seen} == {torch.int64}
    seen.clear()
    SAMPLERS[name](
        denoise, x, SCHEDULE, [900, 401.25], end=100.5, noise=Normal(2), hook=lambda x, t: (levels.append(t), x)[1]
    )
    assert {t.dtype for t in seen} == {torch.promote_types(dtype, torch.float32)}
    assert (seen[0].tolist(), seen[-1].tolist()) == ([900.0] * 2, [401.25] * 2) and levels == [401.25, 100.5]


@pytest.mark.parametrize("name", ALL)
def test_wrong_ends_and_timesteps_are_refused(name):
    for end in (500.5, -1, float("nan")):
        with refused("end", end):
            run(name, [700.5, 500.25], Z, end=end)
    for timesteps in ([999.5, 1], [5.5, 5.5], [3, -0.5], [float("nan")]):
        with refused("timesteps", str([float(t) for t in timesteps])):
            run(name, timesteps, Z)


def test_a_step_from_the_end_to_itself_stays_there_or_is_refused():
    x = torch.randn(4, 1, dtype=torch.float64)
    torch.testing.assert_close(dpm_solver(DATA.denoise, x, SCHEDULE, [300.5], end=300.5), x, rtol=0, atol=0)
    torch.testing.assert_close(ddim(DATA.denoise, x, SCHEDULE, [300.5], end=300.5), x)
    with refused("end", 300.5):
        ddpm(DATA.denoise, x, SCHEDULE, [300.5], end=300.5, noise=Normal(4))


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_a_v_prediction_is_read_at_fractional_timesteps(dtype, atol):
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 4, 2, 2, generator=generator, dtype=dtype)
    t = torch.tensor([0.5, 500.25, 999.0], dtype=dtype)
    a = torch.tensor([level(value) for value in t.tolist()], dtype=dtype).view(3, 1, 1, 1)
    x = a.sqrt() * x0 + (1 - a).sqrt() * noise
    eps = Denoiser(lambda x, t, context: velocity(x0, noise, a), SCHEDULE, prediction="v")(x, t)
    torch.testing.assert_close(eps, noise, rtol=0, atol=atol)
