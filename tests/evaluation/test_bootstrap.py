import numpy as np
import pytest
import torch

from ldm.evaluation.bootstrap import Estimate, bootstrap, mean_estimate
from ldm.evaluation.metrics import pooled_psnr
from tests.refusals import refused


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_interval_of_a_mean_is_that_of_a_normal_distribution():
    values = 3 + 2 * noise(2000)
    estimate = mean_estimate(values)
    half = 1.96 * values.std().item() / 2000**0.5
    assert (estimate.value, estimate.n) == (pytest.approx(values.mean().item()), 2000)
    assert estimate.value - estimate.low == pytest.approx(half, rel=0.1)
    assert estimate.high - estimate.value == pytest.approx(half, rel=0.1)


def test_it_holds_the_true_figure_as_often_as_its_level_says():
    found = [mean_estimate(noise(60, seed=trial), resamples=300, level=0.8) for trial in range(200)]
    assert 0.72 < np.mean([estimate.low <= 0 <= estimate.high for estimate in found]) < 0.88


def test_a_share_of_answers():
    estimate = mean_estimate(torch.arange(400) < 300)
    assert estimate.value == 0.75
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * (0.75 * 0.25 / 400) ** 0.5, rel=0.1)


def test_paired_samples_tell_a_difference_that_either_one_hides():
    a = 10 * noise(100)
    b = a + 0.1 + 0.1 * noise(100, seed=1)
    alone, paired = mean_estimate(b), mean_estimate(b - a)
    assert alone.low < 0 < alone.high and 0 < paired.low < paired.high


def test_what_resampling_adds_to_every_figure_is_taken_away():
    """The number of different samples: a resample of n shows (1 - 1/e) n of them, none shows them all."""
    estimate = bootstrap(lambda i: len(i.unique()), 500)
    assert estimate.value == 500 and estimate.low < 500 < estimate.high
    assert estimate.high - estimate.low < 50


def test_the_same_seed_draws_the_same():
    values = noise(50)
    assert mean_estimate(values) == mean_estimate(values)
    assert mean_estimate(values, seed=1) != mean_estimate(values)
    drawn = []
    bootstrap(lambda i: drawn.append(i) or 0.0, 5, resamples=3)
    assert drawn[0].tolist() == [0, 1, 2, 3, 4]
    assert all(i.shape == (5,) and i.dtype == torch.int64 and 0 <= i.min() and i.max() < 5 for i in drawn)
    assert len(drawn) == 4


def test_one_sample_has_no_width_and_none_no_figure():
    one = mean_estimate(torch.tensor([2.5]))
    assert (one.value, one.low, one.high, one.n) == (2.5, 2.5, 2.5, 1)
    with refused():
        mean_estimate(torch.zeros(0))


def test_in_text():
    assert f"{Estimate(3.18, 3.02, 3.349, 5):.2f}" == "3.18 [3.02, 3.35]"


def test_what_is_no_number():
    values = torch.tensor([1.0, 2.0, 3.0, torch.nan])
    assert mean_estimate(values) == mean_estimate(values[:3]) and mean_estimate(values).n == 3
    assert mean_estimate(torch.tensor([1.0, torch.inf])) == Estimate(torch.inf, torch.inf, torch.inf, 2)
    equal = bootstrap(lambda i: pooled_psnr(torch.tensor([30.0, torch.inf])[i]), 2)  # some resamples differ in nothing
    assert equal.low <= equal.value <= equal.high < torch.inf
