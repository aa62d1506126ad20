"""Files of Gaussian mixtures: safetensors of this package, and scikit-learn's pickles, read without executing them.

Paint by Example publishes the mixture of its Quality Score, `coco2017_gmm_k20`, as a pickled `GaussianMixture`.
"""

import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.checkpoints.io import read_metadata, read_tensors, save_tensors
from ldm.checkpoints.safe_pickle import Inert, check_memo, unreadable
from ldm.utils.errors import UserError, reason

NAMES = ("weights", "means", "precisions_cholesky")
DTYPES = {"f8", "f4", "i8", "i4", "u4", "b1"}  # of numbers; no arrays of objects


def read_gmm(file: str | Path) -> tuple[dict[str, Tensor], dict[str, str] | None]:
    """Read a mixture of k Gaussians in d dimensions.

    Returns:
        `weights` (k,), `means` (k, d), `precisions_cholesky` (k, d, d), float64; and the text that `write_gmm` wrote
        about them, None for a pickle.

    Raises:
        UserError: there is no such file, it holds no mixture with full covariances, or its pickle names anything else.
    """
    file = Path(file)
    try:
        with open(file, "rb") as opened:
            pickled = opened.read(1) == b"\x80"
    except OSError as error:
        raise UserError(f"GMM {file}: {reason(error)}") from error
    tensors = _read_pickle(file) if pickled else read_tensors(file)
    if missing := [name for name in NAMES if name not in tensors]:
        raise UserError(f"GMM {file}: {', '.join(missing)} missing, expected {', '.join(NAMES)}")
    arrays = {name: tensors[name].double() for name in NAMES}
    _check(file, **arrays)
    return arrays, None if pickled else read_metadata(file)


def write_gmm(file: str | Path, arrays: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write a mixture as safetensors, with text about it as metadata.

    Raises:
        UserError: the file cannot be written.
    """
    save_tensors(file, {name: arrays[name].double() for name in NAMES}, about)


def _check(file: Path, weights: Tensor, means: Tensor, precisions_cholesky: Tensor) -> None:
    shapes = [tuple(x.shape) for x in (weights, means, precisions_cholesky)]
    k, d = shapes[1] if len(shapes[1]) == 2 else (0, 0)
    if 0 in (k, d) or shapes != [(k,), (k, d), (k, d, d)]:
        raise UserError(f"GMM {file}: shapes {shapes}, expected (k,), (k, d) and (k, d, d)")
    finite = all(x.isfinite().all() for x in (weights, means, precisions_cholesky))
    if not finite or weights.min() < 0 or not math.isclose(weights.sum(), 1, rel_tol=1e-3):
        raise UserError(f"GMM {file}: not a mixture, expected finite numbers and weights that sum to 1")
    if precisions_cholesky.diagonal(dim1=1, dim2=2).min() <= 0 or precisions_cholesky.tril(-1).any():
        raise UserError(
            f"GMM {file}: precisions_cholesky not triangular, expected upper triangles with a positive diagonal"
        )


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        content = file.read_bytes()
        check_memo(content)
        mixture = _GmmUnpickler(file, io.BytesIO(content)).load()
        state = mixture.state if isinstance(mixture, _Mixture) else None
        if state is None or state.get("covariance_type") != "full":
            found = type(mixture).__name__ if state is None else f"covariance_type {state.get('covariance_type')!r:.80}"
            raise UserError(f"GMM {file}: holds {found}, expected a fitted GaussianMixture of covariance_type 'full'")
        arrays = {name: state.get(f"{name}_") for name in NAMES}
        return {name: torch.from_numpy(x.values) for name, x in arrays.items() if isinstance(x, _Array)}
    except UserError:
        raise
    except Exception as error:
        raise unreadable(file, error) from error


class _Mixture(Inert):
    """Stand-in for scikit-learn's `GaussianMixture`; the attributes pickled are in `state`."""


class _Dtype(Inert):
    """Stand-in for numpy's `dtype`."""

    def __init__(self, name: str, *rest: Any):
        if name not in DTYPES:
            raise pickle.UnpicklingError(f"an array of {name!r:.80}, expected numbers")
        self.numpy = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array(Inert):
    """Stand-in for numpy's array."""

    values = np.zeros(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, raw = state
        self.fill(raw, dtype, shape, "F" if fortran else "C")

    def fill(self, raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> "_Array":
        """Copy the values out of raw bytes, and return the array."""
        values = np.frombuffer(raw, dtype.numpy).reshape(shape, order=order)
        self.values = np.array(values, dtype.numpy.newbyteorder("="), order="C")
        return self


class _GmmUnpickler(pickle.Unpickler):
    """Unpickler that can reach only the classes below, each made anew: a pickle's changes to them stay local."""

    def __init__(self, path: Path, file: Any):
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a class or function, by name.

        Raises:
            UserError: no mixture needs it.
        """
        match f"{module}.{name}".replace("numpy._core.", "numpy.core."):  # its name from numpy 2.0 on
            case (
                "sklearn.mixture._gaussian_mixture.GaussianMixture" | "sklearn.mixture.gaussian_mixture.GaussianMixture"
            ):
                return type(name, (_Mixture,), {})
            case "numpy.dtype":
                return type(name, (_Dtype,), {})
            case "numpy.ndarray" | "numpy.random._mt19937.MT19937":
                return type(name, (Inert,), {})
            case "numpy.core.multiarray._reconstruct":
                return lambda *arguments: _Array()
            case "numpy.core.numeric._frombuffer":
                return lambda raw, dtype, shape, order: _Array().fill(raw, dtype, shape, order)
            case "_codecs.encode":  # bytes in protocol 2
                return lambda text, encoding: text.encode("latin1")
            case (
                "numpy.core.multiarray.scalar"
                | "numpy.random._pickle.__randomstate_ctor"
                | "numpy.random._pickle.__bit_generator_ctor"
            ):
                return lambda *arguments: Inert()  # not part of the mixture
        shown = f"{module}.{name}".encode("unicode_escape").decode()[:80]
        raise UserError(f"GMM {self.path}: refused, its pickle names {shown}, which no mixture needs (nothing was run)")
