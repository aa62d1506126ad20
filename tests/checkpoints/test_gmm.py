"""Mixtures of Gaussians from scikit-learn's own pickles, hostile ones included, and from ours."""

import builtins
import os
import pickle

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from sklearn.tree import DecisionTreeClassifier

from ldm.checkpoints.gmm import NAMES, read_gmm, write_gmm
from ldm.checkpoints.io import save_tensors
from ldm.evaluation.quality_score import Gmm
from tests.refusals import assert_mentions, refusal_of, refused

PROTOCOLS = range(2, pickle.HIGHEST_PROTOCOL + 1)


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(0).normal(size=(300, 3)) * (1, 2, 3)


@pytest.fixture
def mixture(samples):
    return GaussianMixture(4, random_state=0).fit(samples)


@pytest.fixture
def refusal(tmp_path):
    """The one line with which the bytes of a file are refused."""

    def refusal(content: bytes) -> str:
        (tmp_path / "gmm.pkl").write_bytes(content)
        message = refusal_of(read_gmm, tmp_path / "gmm.pkl")
        assert_mentions(message, tmp_path / "gmm.pkl")
        return message

    return refusal


def same(arrays: dict[str, torch.Tensor], mixture: GaussianMixture) -> None:
    assert list(arrays) == list(NAMES)
    for name, array in arrays.items():
        assert array.dtype == torch.float64
        np.testing.assert_array_equal(array.numpy(), getattr(mixture, f"{name}_"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("random_state", [0, None, np.random.RandomState(1)], ids=["number", "none", "generator"])
def test_pickles_of_scikit_learn(tmp_path, samples, protocol, random_state):
    mixture = GaussianMixture(4, random_state=random_state).fit(samples)
    (tmp_path / "gmm").write_bytes(pickle.dumps(mixture, protocol))
    arrays, told = read_gmm(tmp_path / "gmm")
    assert told is None
    same(arrays, mixture)
    found = Gmm(**arrays).log_likelihood(torch.from_numpy(samples))
    np.testing.assert_allclose(found.numpy(), mixture.score_samples(samples), rtol=1e-10)


def test_pickles_of_older_versions(tmp_path, mixture):
    """They name the same classes elsewhere; and arrays may be big-endian, or lie in memory by columns."""
    mixture.means_ = np.asfortranarray(mixture.means_)
    mixture.weights_ = mixture.weights_.astype(">f8")
    content = pickle.dumps(mixture, 2)
    for new, old in ((b"numpy._core.", b"numpy.core."), (b"mixture._gaussian", b"mixture.gaussian")):
        assert new in content
        content = content.replace(new, old)
    (tmp_path / "gmm").write_bytes(content)
    same(read_gmm(tmp_path / "gmm")[0], mixture)


def test_ours(tmp_path, mixture):
    arrays = {name: torch.from_numpy(getattr(mixture, f"{name}_")) for name in NAMES}
    write_gmm(tmp_path / "gmm.safetensors", arrays, {"extractor": "of a test"})
    kept, told = read_gmm(tmp_path / "gmm.safetensors")
    same(kept, mixture)
    assert told["extractor"] == "of a test"


class Detonator:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "inside a mixture"])
def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(tmp_path, mixture, refusal, protocol, beside):
    victim = tmp_path / "victim"
    for function, argument in ((os.mkdir, str(victim)), (builtins.eval, f"__import__('os').mkdir({str(victim)!r})")):
        mixture.converged_ = Detonator(function, argument)
        content = pickle.dumps(mixture if beside else mixture.converged_, protocol)
        name = {os.mkdir: f"{os.name}.mkdir", builtins.eval: "__builtin__.eval" if protocol == 2 else "builtins.eval"}[
            function
        ]
        assert_mentions(refusal(content), name)
        assert not victim.exists()
        pickle.loads(content)  # the trap is a real one
        assert victim.exists()
        victim.rmdir()


def test_other_objects_are_refused_by_name(samples, refusal):
    tree = DecisionTreeClassifier().fit(samples, samples[:, 0] > 0)
    assert_mentions(refusal(pickle.dumps(tree)), "sklearn.tree._classes.DecisionTreeClassifier")


def test_a_file_of_joblib_is_refused_by_name(refusal):
    content = b"\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81."
    assert_mentions(refusal(content), "joblib.numpy_pickle.NumpyArrayWrapper")


def test_a_pickle_cannot_change_what_it_can_reach(tmp_path, mixture, refusal):
    """BUILD sets attributes of whatever a global stands for: from a dict in its `__dict__`, from a pair one by one."""
    names = [b"sklearn.mixture._gaussian_mixture\nGaussianMixture", b"numpy\ndtype", b"numpy\nndarray"]
    names += [b"numpy.core.multiarray\n_reconstruct", b"_codecs\nencode"]
    state = b"}X\x05\x00\x00\x00stateX\x01\x00\x00\x001s"
    for name in names:
        for build in (state + b"b", b"(N" + state + b"tb", b")R" + state + b"b", b")\x81(N" + state + b"tb"):
            refusal(b"\x80\x02c" + name + b"\n" + build + b".")
    (tmp_path / "gmm").write_bytes(pickle.dumps(mixture))
    same(read_gmm(tmp_path / "gmm")[0], mixture)


def test_a_file_that_is_cut_short(mixture, refusal):
    content = pickle.dumps(mixture)
    for size in range(1, len(content) - 1, 97):
        refusal(content[:size])


@pytest.mark.parametrize("memo", [b"r\xff\xff\xff\x3f", b"p1000000000\n"])
def test_a_file_that_would_fill_the_memory(refusal, memo):
    """Python's unpickler makes room for a memo of 2^30 entries, 8 GB."""
    refusal(b"\x80\x04]" + memo + b".")


def test_names_that_are_no_names(refusal):
    error = refusal(b"\x80\x04\x8c\x04\x1b[1m\x8c\x05x\ny\nz\x93.")
    assert "\\x1b[1m.x\\ny\\nz" in error and error.isprintable()


def test_what_is_no_mixture_with_full_covariances(tmp_path, samples, mixture, refusal):
    dumps = pickle.dumps
    for kind in ("diag", "tied", "spherical"):
        other = GaussianMixture(2, covariance_type=kind).fit(samples)
        assert_mentions(refusal(dumps(other)), "covariance_type", kind)
    assert_mentions(refusal(dumps({"weights_": 1})), "dict", "GaussianMixture")
    assert_mentions(refusal(dumps(GaussianMixture(2))), "weights", "means", "precisions_cholesky")
    mixture.means_ = np.array([[object()] * 3] * 4)
    assert_mentions(refusal(dumps(mixture)), "O8")
    mixture.means_ = np.array([["a"] * 3] * 4)
    assert_mentions(refusal(dumps(mixture)), "U1")
    mixture.means_ = np.zeros((4, 2))
    assert_mentions(refusal(dumps(mixture)), "(4,)", "(4, 2)", "(4, 3, 3)")
    mixture.means_ = np.full((4, 3), np.nan)
    refusal(dumps(mixture))
    mixture.means_, mixture.precisions_cholesky_ = np.zeros((4, 3)), -mixture.precisions_cholesky_
    refusal(dumps(mixture))


def test_what_is_no_gmm_file(tmp_path, refusal):
    assert_mentions(refusal(b"<!DOCTYPE html><title>Google Drive - Virus scan warning"), "web page")
    with refused(tmp_path / "none"):
        read_gmm(tmp_path / "none")
    save_tensors(tmp_path / "other.safetensors", {"weights": torch.ones(2)})
    with refused("other.safetensors", "means", "precisions_cholesky"):
        read_gmm(tmp_path / "other.safetensors")
