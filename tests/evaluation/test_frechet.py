import pytest
import torch

from ldm.evaluation.frechet import fit, frechet


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
