from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.diffusion.schedule import Schedule, sampling_timesteps, strided_timesteps
from tests.refusals import refused

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "schedules.npz")
REPAINT = np.load(Path(__file__).parents[1] / "golden" / "repaint_schedules.npz")


@pytest.mark.parametrize(
    "schedule, name",
    [
        (Schedule.scaled_linear(), "betas_linear_f64"),  # names of the original code, which calls sqrt-space "linear"
        (Schedule.scaled_linear(start=1e-4, end=0.02), "betas_linear_default_f64"),
        (Schedule.linear(start=0.00085, end=0.012), "betas_sqrt_linear_f64"),
        (Schedule.cosine(), "betas_cosine_f64"),
    ],
)
def test_betas_equal_the_original(schedule, name):
    np.testing.assert_allclose(schedule.betas.numpy(), GOLDEN[name], rtol=1e-12, atol=0)


def test_alphas_cumprod_equal_the_original():
    np.testing.assert_allclose(
        Schedule.scaled_linear().alphas_cumprod.numpy(), GOLDEN["alphas_cumprod_f64"], rtol=1e-12, atol=0
    )


def test_stays_in_float64_on_the_cpu_when_a_model_is_built_on_meta():
    with torch.device("meta"):
        for schedule in (Schedule.scaled_linear(), Schedule.linear(), Schedule.cosine()):
            assert schedule.alphas_cumprod.device.type == "cpu" and schedule.alphas_cumprod.dtype == torch.float64
        assert sampling_timesteps(2).tolist() == [501, 1]


def test_impossible_betas_are_refused():
    with refused("betas", 0.1, 2):
        Schedule.linear(start=0.1, end=2)


def test_timesteps_are_exactly_s_for_every_s():
    for S in range(1, 1001):
        steps = sampling_timesteps(S).tolist()
        assert len(steps) == S == len(set(steps))
        assert steps == sorted(steps, reverse=True)
        assert 0 <= steps[-1] and steps[0] <= 999
        assert steps[::-1] == ([1000 * i // S + 1 for i in range(S)] if S < 1000 else list(range(1000)))


def test_timesteps_equal_the_original_where_s_divides_1000():
    divisors = [S for S in range(1, 1000) if 1000 % S == 0]
    assert len(divisors) == 15
    for S in divisors:
        assert sampling_timesteps(S).flip(0).tolist() == [t + 1 for t in range(0, 1000, 1000 // S)]
    for S in (10, 20, 50, 100, 250):
        assert sampling_timesteps(S).flip(0).tolist() == GOLDEN[f"ddim_S{S}_timesteps"].tolist()


@pytest.mark.parametrize("T", [1, 2, 7, 100])
def test_timesteps_of_other_lengths_stay_inside(T):
    for S in range(1, T + 1):
        steps = sampling_timesteps(S, T).tolist()
        assert len(set(steps)) == S and min(steps) >= 0 and max(steps) < T


@pytest.mark.parametrize("S", [0, -3, 1001, 2.5, True, "20", None])
def test_timesteps_refuse_other_numbers(S):
    for grid in (sampling_timesteps, strided_timesteps):
        with refused("steps", repr(S), 1, 1000):
            grid(S)


@pytest.mark.parametrize("name, S, T", [("space_0", 250, 1000), ("space_1", 20, 1000), ("space_5", 100, 4000)])
def test_strided_timesteps_equal_the_original(name, S, T):
    assert strided_timesteps(S, T).flip(0).tolist() == REPAINT[name].tolist()


@pytest.mark.parametrize("T", [1, 2, 7, 100, 1000])
def test_strided_timesteps_reach_both_ends_at_even_distances(T):
    assert strided_timesteps(1, T).tolist() == [T - 1]
    for S in range(2, T + 1):
        steps = strided_timesteps(S, T)
        assert len(steps) == S and steps.dtype == torch.int64 and (steps[0], steps[-1]) == (T - 1, 0)
        even = torch.linspace(T - 1, 0, S, dtype=torch.float64)
        assert (steps - even).abs().max() <= 0.5 + 1e-9 and (steps.diff() < 0).all()


def test_a_place_between_two_timesteps_goes_where_the_originals_sum_goes():
    place, expected = 0.0, []
    for _ in range(21):
        expected.append(round(place))
        place += 999 / 20
    assert strided_timesteps(21).flip(0).tolist() == expected
    assert expected != [round(999 / 20 * i) for i in range(21)]  # 499.5 is 500, but for the errors of the sum


@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine(), Schedule.scaled_linear()])
def test_respaced_schedules_have_the_noise_of_their_timesteps(schedule):
    steps = strided_timesteps(20)
    grid = schedule.respaced(steps)
    kept = schedule.alphas_cumprod.numpy()[steps.flip(0).numpy()]
    np.testing.assert_allclose(grid.alphas_cumprod.numpy(), kept, rtol=1e-9)
    np.testing.assert_allclose(grid.betas.numpy(), 1 - kept / np.concatenate([[1.0], kept[:-1]]), rtol=1e-12)
    assert torch.equal(grid.betas, schedule.respaced(steps.flip(0).tolist()).betas)  # in any order
    np.testing.assert_allclose(schedule.respaced(range(1000)).betas.numpy(), schedule.betas.numpy(), rtol=1e-9)


def test_a_timestep_twice_is_refused():
    with refused("betas", 0):
        Schedule.linear().respaced([5, 9, 9])
