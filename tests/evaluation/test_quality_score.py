import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture

from ldm.evaluation import quality_score as module
from ldm.evaluation.quality_score import Gmm, fit_gmm, quality_score
from tests.refusals import refused


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def gmm():
    k, d = 3, 5
    roots = torch.triu(noise(k, d, d), 1) + torch.diag_embed(noise(k, d, seed=1).abs() + 0.5)
    return Gmm(torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), 2 * noise(k, d, seed=2), roots)


def density(x: np.ndarray, gmm: Gmm) -> float:
    """Of one point, by the textbook's formula."""
    total = 0.0
    for weight, mean, root in zip(gmm.weights.numpy(), gmm.means.numpy(), gmm.precisions_cholesky.numpy(), strict=True):
        cov = np.linalg.inv(root @ root.T)
        exponent = -(x - mean) @ np.linalg.inv(cov) @ (x - mean) / 2
        total += weight * np.exp(exponent) / np.sqrt(np.linalg.det(2 * np.pi * cov))
    return total


def test_density_of_a_mixture(gmm, monkeypatch):
    x = 2 * noise(20, 5, seed=3)
    expected = [math.log(density(row, gmm)) for row in x.numpy()]
    assert gmm.log_likelihood(x).tolist() == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(module, "ROWS", 7)
    assert gmm.log_likelihood(x.float()).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_standard_normal_distribution_has_a_known_density():
    one = Gmm(*(torch.ones(shape, dtype=torch.float64) for shape in ((1,), (1, 1), (1, 1, 1))))
    assert one.log_likelihood(torch.tensor([[1.0], [3.0]])).tolist() == pytest.approx(
        [-0.5 * math.log(2 * math.pi), -0.5 * math.log(2 * math.pi) - 2]
    )


def test_a_fit_finds_the_mixture_it_was_drawn_from_and_agrees_with_scikit_learn():
    x = torch.cat([noise(700, 4), 0.5 * noise(300, 4, seed=1) + 8])
    gmm = fit_gmm(x, k=2)
    order = gmm.weights.argsort()
    assert gmm.weights[order].tolist() == pytest.approx([0.3, 0.7], abs=1e-3)
    torch.testing.assert_close(gmm.means[order], torch.tensor([[8.0] * 4, [0.0] * 4]).double(), atol=0.1, rtol=0)
    peer = GaussianMixture(2, random_state=0).fit(x.numpy())
    new = 5 * noise(50, 4, seed=5)
    assert gmm.log_likelihood(new).tolist() == pytest.approx(peer.score_samples(new.numpy()).tolist(), rel=1e-9)


def test_the_same_seed_fits_the_same():
    x = noise(300, 3)
    assert torch.equal(fit_gmm(x, 4).means, fit_gmm(x, 4).means)
    assert not torch.equal(fit_gmm(x, 4, seed=1).means, fit_gmm(x, 4).means)


def test_too_few_samples():
    with refused(80, 81, 20, 4):
        fit_gmm(noise(80, 4))
    assert fit_gmm(noise(80, 4), singular=True).means.shape == (20, 4)
    with refused(19, 20):
        fit_gmm(noise(19, 4), singular=True)
    with refused():
        fit_gmm(noise(200, 4) * math.nan)


def test_features_of_another_dimension(gmm):
    with refused("(2, 4)", 5):
        gmm.log_likelihood(noise(2, 4))


def test_score():
    assert quality_score(torch.tensor([-5.0, 0.0, 150.0, 240.0, 1000.0])).tolist() == [0, 0, 50, 80, 100]
    assert quality_score(torch.tensor([10.0]), scale=20).tolist() == [50]
