"""Fréchet distance between Gaussians fitted to features, as in FID (Heusel et al., 1706.08500, equation 6)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.evaluation.bootstrap import Estimate, bootstrap
from ldm.utils.errors import UserError


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


def check_count(features: Tensor, name: str, singular: bool = False) -> None:
    """Refuse features (N, d) too few for a covariance, or, if `singular`, for a variance; `name` says whose they are.

    Raises:
        UserError: N is d or less, or below 2; or they are not all finite numbers.
    """
    count, dimensions = features.shape
    if wrong := (~features.isfinite().all(1)).sum().item():
        raise UserError(f"{name}: {wrong} of {count} samples have features that are no finite numbers")
    if singular and count < 2:
        raise UserError(f"{name}: {count} samples, expected 2 or more for a variance")
    if not singular and count <= dimensions:
        raise UserError(f"{name}: {count} samples, expected more than {dimensions} (their dimension) for a covariance")


def frechet_distance(a: Tensor, b: Tensor, *, singular: bool = False) -> float:
    """Fréchet distance between features (N, d) and (M, d).

    It depends on N: few samples look farther away than many of the same distribution.

    Args:
        singular: allow N or M of d or less (but 2 at least), whose covariance is singular.

    Raises:
        UserError: too few samples for a covariance, or sets of different dimensions.
    """
    check_count(a, "Fréchet distance, first set", singular)
    check_count(b, "Fréchet distance, second set", singular)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"Fréchet distance: features of {a.shape[1]} and of {b.shape[1]} dimensions, expected the same")
    return frechet(*fit(a), *fit(b))


def frechet_estimate(
    a: Tensor, b: Tensor, *, seed: int = 0, resamples: int = 200, level: float = 0.95, singular: bool = False
) -> Estimate:
    """`frechet_distance` with its interval over the samples of `a`; `b`, the reference, stays as it is.

    Resamples are told apart by eigenvalues of `cov_b^1/2 cov_a cov_b^1/2`, whose error, near 1e-8 of the covariance's
    largest, is nothing beside their spread, and which are five times faster than `frechet` (0.1 s each at d = 512).
    """
    value = frechet_distance(a, b, singular=singular)
    mean_b, cov_b = fit(b)
    root_b = _square_root(cov_b)

    def resampled(indices: Tensor) -> float:
        mean, cov = fit(a[indices])
        roots = torch.linalg.eigvalsh(root_b @ cov @ root_b).clamp(min=0).sqrt()
        return ((mean - mean_b).square().sum() + cov.trace() + cov_b.trace() - 2 * roots.sum()).item()

    spread = bootstrap(resampled, len(a), seed=seed, resamples=resamples, level=level)
    return Estimate(value, value + spread.low - spread.value, value + spread.high - spread.value, len(a))


def simplified_frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between features (N, d) and (M, d) that takes their dimensions for independent of each other.

    `|mean_a - mean_b|^2 + |std_a - std_b|^2`, for which two samples are enough (simplified FID, Kim et al. 2020).

    Raises:
        UserError: fewer than two samples.
    """
    check_count(a, "Fréchet distance, first set", singular=True)
    check_count(b, "Fréchet distance, second set", singular=True)
    a, b = a.double(), b.double()
    return ((a.mean(0) - b.mean(0)).square().sum() + (a.std(0) - b.std(0)).square().sum()).item()


def class_frechet(
    features: Tensor,
    classes: Tensor,
    real: Tensor,
    real_classes: Tensor,
    distance: Callable[[Tensor, Tensor], float] = simplified_frechet,
) -> Tensor:
    """Distance of the pictures of each class to real pictures of it, (C,) float64, by rising class.

    Its mean is CSFID, the measure of DiffEdit (2210.11427, section 4.1), which has it from FlexIT (2203.04705);
    `mean_estimate` gives the interval over classes.

    Args:
        features, classes: (N, d) and (N,) int64, of edited pictures and the class each was to become.
        real, real_classes: (M, d) and (M,), of real pictures.

    Raises:
        UserError: too few samples of a class, named.
    """
    distances = []
    for which in classes.unique().tolist():
        try:
            distances.append(distance(features[classes == which], real[real_classes == which]))
        except UserError as error:
            raise UserError(f"class {which}: {error}") from error
    return torch.tensor(distances, dtype=torch.float64)


def _square_root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T
