import pytest
import torch

from ldm.checkpoints.io import read_tensors
from ldm.doctor.file import known_models
from ldm.utils.project import ROOT

TOYWORLD = [ROOT / f"pretrained_models/toyworld/{name}.safetensors" for name in ("exemplar", "autoencoder", "clip")]


@pytest.fixture(scope="package")
def known():
    return known_models()


@pytest.fixture(scope="package")
def toyworld():
    return {name: tensor.float() for file in TOYWORLD for name, tensor in read_tensors(file).items()}


@pytest.fixture
def fp32_only(monkeypatch):
    """Networks run once, not in every precision: for tests that are about something else."""
    monkeypatch.setattr("ldm.doctor.networks.PRECISIONS", {"fp32": torch.float32})
