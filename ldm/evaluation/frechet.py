"""Fréchet distance between Gaussians fitted to features, as in FID (Heusel et al., 1706.08500, equation 6)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ldm.evaluation.bootstrap import Estimate, bootstrap
from ldm.utils.errors import UserError


def fit(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean (d,) and unbiased covariance (d, d), both float64, of features (N, d), N >= 2."""
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """Compute `|mean_a - mean_b|^2 + tr(cov_a + cov_b - 2 (cov_a cov_b)^1/2)` in float64.

    The trace of the root is the sum of the singular values of `cov_a^1/2 cov_b^1/2`: nothing is inverted, so singular
    covariances are allowed, and no accuracy is lost to the root of a product.

    Args:
        mean_a, mean_b: (d,).
        cov_a, cov_b: (d, d), symmetric and positive semidefinite.
    """
    mean_a, cov_a, mean_b, cov_b = (x.double() for x in (mean_a, cov_a, mean_b, cov_b))
    root = torch.linalg.svdvals(_square_root(cov_a) @ _square_root(cov_b)).sum()
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root).item()


def check_count(features: Tensor, name: str, singular: bool = False) -> None:
    """Check that features (N, d) are finite and enough for a covariance or, if `singular`, for a variance.

    Args:
        name: of the features, for messages.

    Raises:
        UserError: N is d or less, or with `singular` below 2; or some features are not finite.
    """
    count, dimensions = features.shape
    if wrong := (~features.isfinite().all(1)).sum().item():
        raise UserError(f"{name}: {wrong} of {count} samples have features that are not finite")
    if singular and count < 2:
        raise UserError(f"{name}: {count} samples, expected 2 or more for a variance")
    if not singular and count <= dimensions:
        raise UserError(f"{name}: {count} samples, expected more than {dimensions} (their dimension) for a covariance")


def frechet_distance(a: Tensor, b: Tensor, *, singular: bool = False) -> float:
    """Compute the Fréchet distance between features (N, d) and (M, d).

    It depends on N: few samples are farther away than many of the same distribution.

    Args:
        singular: allow N or M of d or less (at least 2), whose covariance is singular.

    Raises:
        UserError: too few samples for a covariance, or sets of different dimensions.
    """
    check_count(a, "Fréchet distance, first set", singular)
    check_count(b, "Fréchet distance, second set", singular)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"Fréchet distance: features of {a.shape[1]} and {b.shape[1]} dimensions, expected the same")
    return frechet(*fit(a), *fit(b))


def frechet_estimate(
    a: Tensor, b: Tensor, *, seed: int = 0, resamples: int = 200, level: float = 0.95, singular: bool = False
) -> Estimate:
    """Estimate `frechet_distance` with its interval over the samples of `a`; the reference `b` is not resampled.

    Resamples use the eigenvalues of `cov_b^1/2 cov_a cov_b^1/2`, five times faster than `frechet` (0.1 s at d = 512);
    their error, near 1e-8 of the largest eigenvalue, is negligible compared with the spread.
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
    """Compute the Fréchet distance between features (N, d) and (M, d), assuming independent dimensions.

    It is `|mean_a - mean_b|^2 + |std_a - std_b|^2` and needs only two samples (simplified FID, Kim et al. 2020).

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
    """Compute the distance between edited and real pictures of each class, (C,) float64, by ascending class.

    Its mean is CSFID, the metric of DiffEdit (2210.11427, section 4.1), introduced by FlexIT (2203.04705);
    `mean_estimate` gives the interval over classes.

    Args:
        features, classes: (N, d) and (N,) int64, of edited pictures and their target classes.
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
