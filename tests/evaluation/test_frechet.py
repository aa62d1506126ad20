import numpy as np
import pytest
import torch

from ldm.evaluation.frechet import (
    class_frechet,
    fit,
    frechet,
    frechet_distance,
    frechet_estimate,
    simplified_frechet,
)
from tests.refusals import refused


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gaussians_with_diagonal_covariances_have_a_closed_form():
    """sum of (difference of means)^2 + (difference of standard deviations)^2"""
    means, deviations = noise(2, 40), noise(2, 40, seed=1).abs()
    deviations[0, :5] = 0
    expected = (means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    a, b = (deviations.square()[i].diag() for i in range(2))
    assert frechet(means[0], a, means[1], b) == pytest.approx(expected.item(), abs=1e-10)


def test_a_common_rotation_changes_nothing():
    turn = torch.linalg.qr(noise(24, 24))[0]
    mean_a, mean_b = noise(2, 24, seed=1)
    a, b = noise(2, 24, seed=2).square()
    turned = frechet(turn @ mean_a, turn * a @ turn.T, turn @ mean_b, turn * b @ turn.T)
    assert turned == pytest.approx(frechet(mean_a, a.diag(), mean_b, b.diag()), abs=1e-10)


def test_covariances_that_do_not_commute():
    """In two dimensions tr (ab)^1/2 = (tr(ab) + 2 (det a det b)^1/2)^1/2."""
    a, b = (x @ x.T for x in noise(2, 2, 2))
    root = ((a @ b).trace() + 2 * (a.det() * b.det()).sqrt()).sqrt()
    zero = torch.zeros(2)
    assert frechet(zero, a, zero, b) == pytest.approx((a.trace() + b.trace() - 2 * root).item(), abs=1e-12)


@pytest.mark.parametrize("count", [20, 500])  # fewer than dimensions, and more
def test_features_have_no_distance_from_themselves(count):
    features = 10 * noise(count, 128) @ noise(128, 128, seed=1)
    assert abs(frechet(*fit(features), *fit(features))) < 1e-6
    assert frechet(*fit(features), *fit(features + 1)) == pytest.approx(128, abs=1e-6)


def test_mean_and_covariance_of_features():
    features = noise(50, 6).float()
    mean, cov = fit(features)
    assert mean.dtype == cov.dtype == torch.float64
    torch.testing.assert_close(cov, torch.cov(features.double().T))
    torch.testing.assert_close(mean, features.double().mean(0))


def by_numpy(a: np.ndarray, b: np.ndarray) -> float:
    """FID as it is usually written: by a root of the product of the covariances."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    eigenvalues = np.linalg.eigvals(cov_a @ cov_b)
    root = np.sqrt(eigenvalues.real.clip(0)).sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root


def test_distance_of_features():
    a, b = noise(200, 30) @ noise(30, 30, seed=1), 1 + noise(90, 30, seed=2)
    assert frechet_distance(a, b) == pytest.approx(by_numpy(a.numpy(), b.numpy()), rel=1e-9)
    assert abs(frechet_distance(a.float(), a.float())) < 1e-6
    assert frechet_distance(a, a + 2) == pytest.approx(4 * 30, abs=1e-6)


def test_samples_of_known_gaussians_come_near_the_closed_form():
    a, b = noise(20_000, 8), 0.5 + 3 * noise(20_000, 8, seed=1)
    assert frechet_distance(a, b) == pytest.approx(8 * (0.5**2 + (3 - 1) ** 2), rel=0.02)


def test_too_few_samples_for_a_covariance():
    few, many = noise(30, 30), noise(31, 30, seed=1)
    with refused("first", 30):
        frechet_distance(few, many)
    with refused("second", 30):
        frechet_distance(many, few)
    assert frechet_distance(few, many, singular=True) > 0
    with refused("second", 1, 2):
        frechet_distance(few, many[:1], singular=True)
    with refused(30, 5):
        frechet_distance(many, noise(31, 5))


def test_interval_of_a_distance():
    b = noise(3000, 10, seed=1)
    estimate = frechet_estimate(noise(300, 10) + 0.5, b)
    assert estimate.value == frechet_distance(noise(300, 10) + 0.5, b) and estimate.n == 300
    others = [frechet_distance(noise(300, 10, seed=seed) + 0.5, b) for seed in range(2, 102)]  # what it foretells
    low, high = np.quantile(others, [0.025, 0.975])
    assert estimate.high - estimate.low == pytest.approx(high - low, rel=0.3)
    assert estimate.low < np.mean(others) < estimate.high
    same = frechet_estimate(b, b, resamples=20)
    assert abs(same.value) < 1e-6 and same.high < estimate.low


def test_without_correlations():
    a, b = noise(50, 4).numpy() * 3, noise(7, 4, seed=1).numpy() + 1
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + ((a.std(0, ddof=1) - b.std(0, ddof=1)) ** 2).sum()
    assert simplified_frechet(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-12)


def test_distance_class_by_class():
    features, real = noise(40, 3), noise(60, 3, seed=1)
    classes, real_classes = torch.arange(40) % 4 * 10, torch.arange(60) % 6 * 10
    found = class_frechet(features, classes, real, real_classes)
    expected = [simplified_frechet(features[k::4], real[k::6]) for k in range(4)]
    assert found.tolist() == expected
    shifted = class_frechet(real + 2, real_classes, real, real_classes, frechet_distance)
    torch.testing.assert_close(shifted, torch.full((6,), 12.0, dtype=torch.float64))
    with refused("second", 30, 0):
        class_frechet(features, classes, real[real_classes < 30], real_classes[real_classes < 30])


def test_features_that_are_no_numbers():
    features = torch.randn(9, 3)
    features[4, 1] = torch.nan
    with refused("second", 1, 9):
        frechet_distance(torch.randn(9, 3), features)
