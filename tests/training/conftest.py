"""Drawn scenes, and the frozen networks that the trainings of diffusion models start from."""

import pytest

from ldm.toyworld.files import write_split
from ldm.training.loop.fit import fit
from tests.training.shipped import autoencoder_config, clip_config


@pytest.fixture(scope="session")
def toyworld(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toyworld"
    for split in ("train", "validation"):
        write_split(root, split, 12, seed=3, size=64, workers=1)
    return root


@pytest.fixture(scope="session")
def frozen(toyworld, tmp_path_factory):
    """Autoencoder and CLIP, by the trainings that make them."""
    folder = tmp_path_factory.mktemp("frozen")
    return [
        fit(autoencoder_config(toyworld, 2), folder / "autoencoder"),
        fit(clip_config(toyworld, 2), folder / "clip"),
    ]
