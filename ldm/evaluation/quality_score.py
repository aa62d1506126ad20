"""Quality Score: the likelihood of pictures under a mixture of Gaussians fitted to features of real ones.

It is the metric of Paint by Example (2211.13227, section 5.1), introduced by GIQA (Gu et al., 2003.08932).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ldm.checkpoints.gmm import read_gmm, write_gmm
from ldm.evaluation.extractors import ClipFeatures, Extractor
from ldm.utils.errors import UserError
from ldm.utils.extras import require

ROWS = 4096  # number of pictures whose densities are computed at a time


@dataclass(frozen=True)
class Gmm:
    """A mixture of k Gaussians in d dimensions, float64.

    Attributes:
        weights: (k,), with sum 1.
        means: (k, d).
        precisions_cholesky: (k, d, d), upper triangular U of each inverse covariance `U U^T`, as in scikit-learn.
    """

    weights: Tensor
    means: Tensor
    precisions_cholesky: Tensor

    def log_likelihood(self, features: Tensor) -> Tensor:
        """Compute the natural logarithm of the density at each row of features (N, d): (N,) float64.

        Raises:
            UserError: the features have another dimension.
        """
        dimensions = self.means.shape[1]
        if features.ndim != 2 or features.shape[1] != dimensions:
            raise UserError(f"Quality Score: features {tuple(features.shape)}, expected (N, {dimensions}), the GMM's")
        return torch.cat([self._log_likelihood(rows.double()) for rows in features.split(ROWS)])

    def _log_likelihood(self, x: Tensor) -> Tensor:
        logs = []
        for weight, mean, root in zip(self.weights, self.means, self.precisions_cholesky, strict=True):
            squares = ((x - mean) @ root).square().sum(1)
            normaliser = root.diagonal().log().sum() - len(mean) / 2 * math.log(2 * math.pi)
            logs.append(weight.log() + normaliser - squares / 2)
        return torch.stack(logs).logsumexp(0)


def fit_gmm(features: Tensor, k: int = 20, seed: int = 0, *, singular: bool = False) -> Gmm:
    """Fit a mixture of k Gaussians with full covariances to features (N, d), by scikit-learn's EM from k-means.

    Args:
        singular: allow N of k d or less (at least k): scikit-learn's floor of 1e-6 then replaces missing variance, and
            densities of other pictures mean little.

    Raises:
        UserError: there are too few samples, a component collapsed, or scikit-learn is not installed.
    """
    require("sklearn")
    from sklearn.mixture import GaussianMixture

    count, dimensions = features.shape
    needed = k if singular else k * dimensions + 1
    if count < needed:
        raise UserError(
            f"GMM: {count} samples, expected at least {needed} for {k} components of {dimensions} dimensions"
        )
    try:
        fitted = GaussianMixture(k, covariance_type="full", random_state=seed).fit(features.double().cpu().numpy())
    except ValueError as error:
        raise UserError(f"GMM: cannot be fitted ({' '.join(str(error).split())[:200]})") from error
    return Gmm(*(torch.from_numpy(x) for x in (fitted.weights_, fitted.means_, fitted.precisions_cholesky_)))


def quality_score(log_likelihood: Tensor, scale: float = 300.0) -> Tensor:
    """Convert log-likelihoods s, (N,) float64, to scores from 0 to 100: `100 clip(s / scale, 0, 1)`."""
    return 100 * (log_likelihood.double() / scale).clamp(0, 1)


ORIGIN = (
    "Paint by Example's README links the published one, coco2017_gmm_k20, and ldm fit-gmm fits one to a folder "
    "of real pictures"
)


def open_gmm(file: str | Path, extractor: Extractor) -> Gmm:
    """Read the mixture in a file, for features of the extractor.

    Published pickles do not record the extractor: they are taken for Paint by Example's, of CLIP ViT-B/32.

    Raises:
        UserError: there is no such file, or it contains no mixture, or one fitted to features of another kind.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"GMM {file}: no such file; {ORIGIN}")
    arrays, record = read_gmm(file)
    record = {"extractor": ClipFeatures.name} if record is None else record
    for key, value in extractor.about.items():
        if record.get(key, value) != value:
            raise UserError(f"GMM {file}: fitted to features of {key} {record[key]!r}, expected {value!r}")
    return Gmm(**arrays)


def save_gmm(file: str | Path, gmm: Gmm, extractor: Extractor, about: Mapping[str, str]) -> None:
    """Write a mixture for `open_gmm`, with a record of what it was fitted to.

    Raises:
        UserError: the file cannot be written.
    """
    write_gmm(file, vars(gmm), {**about, **extractor.about})
