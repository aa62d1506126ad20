"""Checkpoints of LDM's autoencoder training, which hold its losses' networks too."""

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.load import build_empty, fill_roots
from ldm.checkpoints.open import load
from ldm.config import build
from ldm.models.discriminator import PatchDiscriminator
from tests.checkpoints import official
from tests.golden_weights import make
from tests.refusals import refused

CONFIG = OmegaConf.create({"model": official.AUTOENCODER})


@pytest.fixture(params=[".ckpt", ".safetensors"])
def file(request, tmp_path):
    return official.write(tmp_path / f"kl-f8{request.param}", tensors())


def weights():
    return {name: make(name, tensor.shape) for name, tensor in build_empty(CONFIG.model).state_dict().items()}


def tensors(root=""):
    """Its own and those below `loss.`: the log variance, LPIPS, the discriminator."""
    loss = {f"discriminator.{name}": tensor for name, tensor in PatchDiscriminator(ndf=4).state_dict().items()}
    loss |= {"logvar": torch.tensor(0.0), "perceptual_loss.lin0.model.1.weight": torch.ones(1, 64, 1, 1)}
    loss |= {"perceptual_loss.net.slice1.0.weight": torch.ones(64, 3, 3, 3)}
    found = {root + name: tensor for name, tensor in weights().items()}
    return found | {f"{root}loss.{name}": tensor for name, tensor in loss.items()}


@pytest.mark.parametrize("root", [None, "autoencoder"])
def test_an_autoencoder_with_its_losses_loads(file, root):
    found = load(CONFIG, file, root=root).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights().items())


def test_it_serves_a_diffusion_model_as_its_frozen_part(file):
    model = build(official.model_config().model)
    fill_roots(model, ("autoencoder.",), [file])
    assert all(torch.equal(model.autoencoder.state_dict()[name], tensor) for name, tensor in weights().items())


def test_losses_inside_a_diffusion_models_file_are_left_out(tmp_path):
    whole = official.paint_by_example() | tensors("first_stage_model.")
    model = load(official.model_config(), official.write(tmp_path / "model.ckpt", whole))
    assert all(torch.equal(model.autoencoder.state_dict()[name], tensor) for name, tensor in weights().items())


def test_nothing_else_may_be_left_over(tmp_path):
    path = official.write(tmp_path / "kl-f8.ckpt", tensors() | {"losses.x": torch.ones(1)})
    for root in (None, "autoencoder"):
        with refused(path, "losses.x", 1):
            load(CONFIG, path, root=root)


def test_the_discriminator_goes_on_from_it():
    prefix = "loss.discriminator."
    found = {name.removeprefix(prefix): tensor for name, tensor in tensors().items() if name.startswith(prefix)}
    PatchDiscriminator(ndf=4).load_state_dict(found)
