"""Orders of convergence of the ODE samplers towards the closed-form probability flow, from the true marginal at T."""

from itertools import pairwise

import pytest
import torch

from ldm.diffusion.schedule import sampling_timesteps
from ldm.samplers import SAMPLERS
from tests.samplers.gaussian import END, SCHEDULE, Gaussian

Z = torch.tensor([[-2.0], [-1.0], [0.5], [1.5]], dtype=torch.float64)
MIDDLE = 201  # a timestep of all the grids below, where nothing is singular


def errors(name: str, data: Gaussian, S: int) -> tuple[float, float]:
    """Largest error at t = MIDDLE and at the end, of a run of S steps."""
    timesteps, seen = sampling_timesteps(S), {}
    x = SAMPLERS[name](
        data.denoise,
        data.flow(Z, timesteps[0].item()),
        SCHEDULE,
        timesteps,
        callback=lambda i, t, x, x0: seen.update({i: x}),
    )
    middle = seen[timesteps.tolist().index(MIDDLE) - 1]
    return (middle - data.flow(Z, MIDDLE)).abs().max().item(), (x - data.flow(Z, END[name])).abs().max().item()


def falls(name: str, data: Gaussian, where: int) -> list[float]:
    """By how much the error falls at each doubling of 25 steps, up to 200."""
    return [coarse / fine for coarse, fine in pairwise(errors(name, data, S)[where] for S in (25, 50, 100, 200))]


@pytest.mark.parametrize("name, expected", [("ddim", 2), ("plms", 4), ("dpm_solver", 4)])
@pytest.mark.parametrize("data", [Gaussian(0.0, 1.0), Gaussian(0.5, 0.8)], ids=str)
def test_order_where_the_flow_is_smooth(name, expected, data):
    """First order halves the error when the steps double, second order quarters it (approached from either side)."""
    coarsest, *_, finest = falls(name, data, 0)
    assert finest == pytest.approx(expected, rel=0.05)
    assert coarsest == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("name, expected", [("ddim", [1.8, 1.8, 1.8]), ("dpm_solver", [1.8, 2.5, 3.8])])
def test_error_of_the_whole_run_falls(name, expected):
    """Down to the end, where even steps in t are large in log-SNR, the order shows late."""
    assert all(fall >= least for fall, least in zip(falls(name, Gaussian(0.7, 0.3), 1), expected, strict=True))


def test_plms_is_far_closer_than_ddim_at_the_same_steps():
    data = Gaussian(0.7, 0.3)
    for S in (25, 50):
        assert 5 * errors("plms", data, S)[1] < errors("ddim", data, S)[1]


@pytest.mark.parametrize("name", ["ddim", "plms", "dpm_solver"])
@pytest.mark.parametrize("S", [1, 2, 3, 7, 40, 1000])
def test_a_point_of_data_is_found_exactly_whatever_the_steps(name, S):
    """With the exact noise as eps every step is exact: only a wrong coefficient or a wrong time could miss."""
    data, timesteps = Gaussian(0.7, 0.0), sampling_timesteps(S)
    x = SAMPLERS[name](data.denoise, data.flow(Z, timesteps[0].item()), SCHEDULE, timesteps)
    torch.testing.assert_close(x, data.flow(Z, END[name]), rtol=0, atol=1e-9)
