"""Fréchet distance between Gaussians fitted to features, as in FID (Heusel et al., 1706.08500, equation 6)."""

import torch
from torch import Tensor


def fit(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d), both float64, of features (N, d), N >= 2."""
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """`|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^1/2)`, in float64.

    The trace of the root is the sum of the singular values of `cov_a^1/2 cov_b^1/2`: nothing is inverted, so that
    covariances of fewer features than dimensions will do, and no accuracy is lost to the root of a product.

    Args:
        mean_a, mean_b: (d,).
        cov_a, cov_b: (d, d), symmetric and positive semidefinite.
    """
    mean_a, cov_a, mean_b, cov_b = (x.double() for x in (mean_a, cov_a, mean_b, cov_b))
    root = torch.linalg.svdvals(_square_root(cov_a) @ _square_root(cov_b)).sum()
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()


def _square_root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
