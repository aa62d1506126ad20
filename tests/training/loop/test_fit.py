"""The trainings that ship, at their real entry point, a few steps long on a few drawn scenes."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from ldm.checkpoints.open import load
from ldm.config import build
from ldm.training.exemplar import one_token_dead_weights
from ldm.training.latent_cache import write_cache
from ldm.training.loop.checkpoint_folder import TRAINER, WEIGHTS
from ldm.training.loop.fit import fit
from ldm.training.loop.start import FROZEN, start
from ldm.utils.project import ROOT
from tests.refusals import assert_mentions, refused
from tests.training.shipped import autoencoder_config, exemplar_config, text_config
from tests.training.small import BASE, overrides


@pytest.mark.parametrize("name", ["exemplar", "text"])
def test_training_from_a_cache_to_a_model_that_loads(toyworld, frozen, tmp_path, name):
    cache, shipped = tmp_path / "latents", {"exemplar": "toyworld", "text": "toyworld_text"}[name]
    config = exemplar_config(toyworld, frozen, cache, 2) if name == "exemplar" else text_config(frozen, cache, 2)
    write_cache(config, cache, epochs=1, shard=5, part=(0, 1))
    config.panel_every = 2
    weights = fit(config, tmp_path / "run")

    saved = load_file(weights)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    assert not any(name.startswith(FROZEN) for name in saved)
    model = load(shipped, [weights, *frozen])
    before = load_file(frozen[0]) | load_file(frozen[1])
    assert torch.equal(model.autoencoder.quant_conv.weight, before["autoencoder.quant_conv.weight"])
    tower = {"exemplar": "image_encoder.visual.conv1.weight", "text": "text_encoder.text.token_embedding.weight"}[name]
    assert torch.equal(model.conditioner.encoder.get_parameter(tower.partition(".")[2]), before[tower])
    assert not torch.equal(model.unet.out[-1].weight, torch.zeros_like(model.unet.out[-1].weight))  # its start

    same = load(tmp_path / "run" / "config.yaml")  # knows where all its weights are
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in same.state_dict().items())
    for kept in ("last", "best"):
        load(shipped, [tmp_path / "run" / "checkpoints" / kept / WEIGHTS, *frozen])
    state = torch.load(tmp_path / "run" / "checkpoints" / "last" / TRAINER, weights_only=True)["state_dict"]
    assert state and not any(name.removeprefix("model.").startswith(FROZEN) for name in state)
    assert (tmp_path / "run" / "panel" / "step-000002.png").exists()


def test_the_dead_weights_have_no_gradient_and_are_not_optimised(toyworld, frozen, tmp_path):
    training = start(exemplar_config(toyworld, frozen, tmp_path, steps=1))
    unet = training.model.unet.requires_grad_(True)
    torch.nn.init.normal_(unet.out[-1].weight)
    for block in (m for m in unet.modules() if hasattr(m, "attn2")):
        torch.nn.init.normal_(block.attn2.to_out[0].weight)
    out = unet(torch.randn(2, 9, 16, 16), torch.tensor([3, 700]), torch.randn(2, 1, 160))
    out.square().mean().backward()
    dead = one_token_dead_weights(unet)
    assert dead
    for module in dead:
        for parameter in module.parameters():
            assert parameter.grad is None or parameter.grad.abs().max() < 1e-6


def test_a_run_from_published_weights_goes_on_without_them(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path / "latents", steps=2)
    write_cache(config, tmp_path / "latents", epochs=1, shard=12, part=(0, 1))
    four = build(OmegaConf.merge(config.model.params.unet, {"params": {"in_channels": 4}}))
    published = tmp_path / "published.safetensors"
    save_file(load_file(frozen[0]) | four.state_dict(prefix="unet."), published)

    config.frozen, config.pretrained_model, config.clip = None, str(published), str(frozen[1])
    model = start(config).model
    weight = model.unet.input_blocks[0][0].weight
    assert weight.requires_grad and torch.equal(weight[:, :4], four.input_blocks[0][0].weight)
    assert torch.count_nonzero(weight[:, 4:]) == 0
    assert not any(p.is_meta for p in model.parameters())
    assert not model.conditioner.encoder.visual.conv1.weight.requires_grad
    assert model.conditioner.learnable_vector.std() > 0.5

    config.validate_every = config.panel_every = config.monitor = None
    config.trainer.max_steps = 1
    fit(config, tmp_path / "run")
    published.unlink()
    config.trainer.max_steps, config.pretrained_model, config.clip = 2, None, None
    found = load_file(fit(config, tmp_path / "run", resume=True))
    assert found.keys() == model.state_dict().keys()  # the frozen networks too, which are nowhere else
    assert "published" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"clip": "{}/there"}, ("clip", "there")),
        ({"pretrained_model": "{}/there"}, "there"),
        ({"pretrained_model": "{}/absent"}, ("pretrained_model", "absent")),
        ({"frozen": ["{}/absent"]}, ("frozen", "absent")),
        ({"weights": "fp16"}, ("weights", "fp16", "float32", "float16", "bfloat16")),
        ({"ema": 1.5}, ("ema", 1.5)),
        ({"save_every": "soon"}, ("save_every", "soon")),
        ({"validate_every": 0}, ("validate_every", 0)),
        ({"monitor": {"metric": "val/psnr"}}, ("monitor", "metric", "mode")),
        ({"monitor": "val/psnr"}, ("monitor", "val/psnr", "metric", "mode")),
        ({"frozen": "{}/there"}, ("frozen", "there")),
        ({"ema": "high"}, ("ema", "high")),
        ({"monitr": 1}, ("monitr", "monitor")),
        ({"data": None}, "data"),
    ],
)
def test_what_cannot_work_is_refused_before_the_training(toyworld, tmp_path, change, wanted):
    (tmp_path / "there").touch()
    config = autoencoder_config(toyworld, 1)
    for key, value in change.items():
        config[key] = value.format(tmp_path) if isinstance(value, str) else value
        if isinstance(value, list):
            config[key] = [item.format(tmp_path) for item in value]
    with refused(wanted):
        fit(config, tmp_path / "run")
    assert not list(tmp_path.glob("run/*"))


def test_pictures_that_cannot_be_read_are_listed_in_the_run_folder(toyworld, frozen, tmp_path):
    """Also when a loading process finds them; more of them than the set rate stop the run."""
    shutil.copytree(toyworld, tmp_path / "world")
    broken = sorted((tmp_path / "world" / "images" / "train_0").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:300])
    config = exemplar_config(toyworld, frozen, tmp_path, steps=6)
    config.data.params.train = config.source
    config.data.params.train.params.root = str(tmp_path / "world")
    config.data.params.num_workers = 1
    fit(config, tmp_path / "run")
    assert_mentions((tmp_path / "run" / "log.txt").read_text(), broken)
    for file in broken.parent.iterdir():
        file.write_bytes(b"")
    with refused(5, "max_unreadable", 0.01):
        fit(config, tmp_path / "other")


def test_the_script_trains_on_two_devices(tmp_path):
    """Lightning starts the script again for the second device, when the first has written to --logdir already."""
    command = [sys.executable, "scripts/train.py", "-b", f"configs/{BASE}.yaml", "-l", tmp_path / "run"]
    changes = overrides(trainer__devices=2, trainer__max_steps=2)
    alone = {name: value for name, value in os.environ.items() if "RANK" not in name}
    done = subprocess.run([*command, *changes], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("weights written to") == done.stderr.count("batch 4 = 2 devices x 2 x 1") == 1
    assert torch.load(tmp_path / "run" / "checkpoints" / "last" / TRAINER, weights_only=True)["global_step"] == 2
    assert (tmp_path / "run" / WEIGHTS).exists()
