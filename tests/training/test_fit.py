"""The trainings that ship, at their real entry point, a few steps long on a few drawn scenes."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm.checkpoints.load import load
from ldm.config import ROOT, build, load_config
from ldm.data.toyworld_files import write_split
from ldm.training import fit as fitting
from ldm.training.autoencoder import AutoencoderTraining
from ldm.training.latent_cache import write_cache
from ldm.training.latent_diffusion import one_token_dead_weights
from ldm.utils.errors import UserError

SMALL = ("data.params.batch_size=4", "trainer.val_check_interval=2", "trainer.limit_val_batches=1")


@pytest.fixture(scope="module")
def toyworld(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toyworld"
    for split in ("train", "validation"):
        write_split(root, split, 12, seed=3, size=64, workers=1)
    return root


def settings(name, steps, *overrides):
    common = ["trainer.precision=32-true", f"trainer.max_steps={steps}", "trainer.enable_progress_bar=false"]
    return load_config(f"train/toyworld_{name}", overrides=[*common, *overrides])


def autoencoder_config(toyworld, steps):
    pictures = (f"data.params.{part}.params.root={toyworld}/images" for part in ("train", "validation"))
    return settings("autoencoder", steps, *pictures, *SMALL)


def clip_config(toyworld, steps):
    roots = (f"data.params.{part}.params.root={toyworld}" for part in ("train", "validation"))
    return settings("clip", steps, *roots, *SMALL)


@pytest.fixture(scope="module")
def frozen(toyworld, tmp_path_factory):
    """The weights that the exemplar training starts from, by the trainings that make them."""
    folder = tmp_path_factory.mktemp("frozen")
    return [
        fitting.fit(autoencoder_config(toyworld, 2), folder / "autoencoder"),
        fitting.fit(clip_config(toyworld, 2), folder / "clip"),
    ]


def exemplar_config(toyworld, frozen, folder, steps):
    return settings(
        "exemplar",
        steps,
        f"frozen=[{','.join(map(str, frozen))}]",
        f"source.params.root={toyworld}",
        f"data.params.train.params.folder={folder}",
        "data.params.batch_size=4",
    )


def test_an_interrupted_training_continues_bitwise(toyworld, tmp_path, monkeypatch):
    whole = fitting.fit(autoencoder_config(toyworld, 7), tmp_path / "whole")

    monkeypatch.setattr(fitting, "SAVE_EVERY", timedelta(0))
    step = AutoencoderTraining.training_step

    def fails_at_the_fifth(self, batch, index):
        if self.global_step == 4:
            raise RuntimeError("power cut")
        return step(self, batch, index)

    monkeypatch.setattr(AutoencoderTraining, "training_step", fails_at_the_fifth)
    with pytest.raises(RuntimeError, match="power cut"):
        fitting.fit(autoencoder_config(toyworld, 7), tmp_path / "cut")
    monkeypatch.undo()
    resumed = fitting.fit(autoencoder_config(toyworld, 7), tmp_path / "cut", resume=True)

    expected, found = load_file(whole), load_file(resumed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_finished_training_is_prolonged_bitwise(toyworld, tmp_path):
    def train(steps, folder, resume=False):  # 6 steps an epoch
        config = autoencoder_config(toyworld, steps)
        config.training.params.optimisation.params.cooldown = (
            0.0  # the one thing that depends on how many steps are to come
        )
        return load_file(fitting.fit(config, tmp_path / folder, resume))

    short, whole = train(4, "run"), train(8, "whole")
    again, longer = train(4, "run", resume=True), train(8, "run", resume=True)
    assert all(torch.equal(short[name], again[name]) for name in short)  # nothing left to do
    assert all(torch.equal(whole[name], longer[name]) for name in whole)
    assert not all(torch.equal(short[name], longer[name]) for name in short)


def test_a_moved_run_goes_on_with_its_one_checkpoint(toyworld, tmp_path):
    fitting.fit(autoencoder_config(toyworld, 1), tmp_path / "run")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    fitting.fit(autoencoder_config(toyworld, 2), moved, resume=True)
    (last,) = (moved / "checkpoints").iterdir()
    assert torch.load(last, weights_only=True)["global_step"] == 2


def test_a_used_folder_is_refused_without_resume(toyworld, frozen):
    with pytest.raises(UserError, match="holds a run already"):
        fitting.fit(autoencoder_config(toyworld, 2), frozen[0].parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("trainer.max_steps=-1", "trainer.max_steps -1: expected a positive number"),
        ("trainer.max_steps=null", "trainer.max_steps None: expected a positive number"),
        ("weights=fp16", "weights fp16: expected one of float32, float16, bfloat16"),
    ],
)
def test_bad_settings_are_refused_before_the_training(toyworld, tmp_path, change, message):
    config = settings("autoencoder", 2, change)
    with pytest.raises(UserError, match=message):
        fitting.fit(config, tmp_path / "run")
    del config.trainer.max_steps
    with pytest.raises(UserError, match="trainer.max_steps None"):
        fitting.fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_to_start_from_that_are_of_no_use_are_refused(toyworld, tmp_path):
    config = autoencoder_config(toyworld, 1)
    with pytest.raises(UserError, match="--clip clip.pt: of use with --pretrained_model only"):
        fitting.start(config, clip=Path("clip.pt"))
    with pytest.raises(UserError, match="--pretrained_model: AutoencoderTraining trains its network from the start"):
        fitting.start(config, Path("sd.ckpt"))


def test_the_micro_batches_of_one_step_draw_differently(toyworld, monkeypatch):
    training = fitting.start(autoencoder_config(toyworld, 1))
    monkeypatch.setattr(training, "report", lambda **values: None)
    torch.nn.init.constant_(training.autoencoder.quant_conv.bias, 1.0)  # a posterior far from a point
    batch = {"image": torch.zeros(1, 3, 64, 64)}
    losses = [float(training.training_step(batch, index)) for index in (0, 1, 0)]
    assert losses[0] == losses[2] != losses[1]


def test_exemplar_training_from_a_cache_to_a_model_that_loads(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path / "latents", steps=2)
    write_cache(config, tmp_path / "latents", epochs=1, shard=5, part=(0, 1))
    weights = fitting.fit(config, tmp_path / "run")

    saved = load_file(weights)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    assert not any(name.startswith(fitting.FROZEN) for name in saved)
    model = load("toyworld", [weights, *frozen])
    before = load_file(frozen[0]) | load_file(frozen[1])
    assert torch.equal(model.autoencoder.quant_conv.weight, before["autoencoder.quant_conv.weight"])
    assert torch.equal(model.conditioner.encoder.visual.conv1.weight, before["image_encoder.visual.conv1.weight"])
    assert not torch.equal(model.unet.out[-1].weight, torch.zeros_like(model.unet.out[-1].weight))  # its start


def test_a_cached_item_is_what_the_frozen_networks_make_of_the_source(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path, steps=1)
    training, source = fitting.start(config), build(config.source)
    write_cache(config, tmp_path, epochs=1, shard=12, part=(0, 1))
    cached = build(config.data.params.train)[5]
    item = source[5]
    keep = 1 - item["mask"][:, 2::4, 2::4]  # bilinear between the two middle pixels of four, without antialiasing
    near = (cached["concat"][4:] - keep).abs()
    assert near.max() <= 1 and near.mean() < 0.1
    with torch.no_grad():
        token = training.model.conditioner.encoder(item["exemplar"][None])[0]
    torch.testing.assert_close(cached["class_token"].float(), token, atol=0.1, rtol=0.05)  # the cache is made in bf16


def test_a_cache_of_something_else_is_not_kept(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path / "latents", steps=1)

    def write(config, shard=12):
        write_cache(config, tmp_path / "latents", epochs=1, shard=shard, part=(0, 1))

    write(config)
    (shard,) = (tmp_path / "latents").iterdir()
    made = shard.stat().st_mtime_ns
    write(config)
    assert shard.stat().st_mtime_ns == made

    source, scale, weights = config.copy(), config.copy(), config.copy()
    source.source.params.jitter = 0
    scale.training.params.model.params.scale_factor *= 2
    other = load_file(frozen[0])
    other["autoencoder.quant_conv.bias"] += 1
    save_file(other, tmp_path / "other.safetensors")
    weights.frozen[0] = str(tmp_path / "other.safetensors")
    for changed in ((config, 6), (source,), (scale,), (weights,)):
        with pytest.raises(UserError, match="latents: 00000.safetensors is of other frozen weights, source or shard"):
            write(*changed)
    save_file(load_file(shard), shard)  # nothing says what this one is of
    with pytest.raises(UserError, match="latents: 00000"):
        write(config)


def test_no_frozen_network_keeps_random_values(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path, steps=1)
    training = fitting.start(config)
    files = load_file(frozen[0]) | load_file(frozen[1])
    dead = {id(p) for module in one_token_dead_weights(training.model.unet) for p in module.parameters()}
    for name, parameter in training.model.named_parameters():
        if not parameter.requires_grad and id(parameter) not in dead:
            source = name.replace("conditioner.encoder.", "image_encoder.")
            assert torch.equal(parameter, files[source]), name
    del config.frozen
    with pytest.raises(UserError, match="--pretrained_model"):
        fitting.start(config)


def test_a_warm_start_extends_the_unet_and_leaves_nothing_empty(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path, steps=1)
    del config.frozen
    config.training.params.model.params.unet.params.in_channels = 4
    four = build(config.training.params.model.params.unet)
    config.training.params.model.params.unet.params.in_channels = 9
    save_file(load_file(frozen[0]) | four.state_dict(prefix="unet."), tmp_path / "four.safetensors")
    model = fitting.start(config, tmp_path / "four.safetensors", frozen[1]).model

    weight = model.unet.input_blocks[0][0].weight
    assert weight.requires_grad and torch.equal(weight[:, :4], four.input_blocks[0][0].weight)
    assert torch.count_nonzero(weight[:, 4:]) == 0
    assert not any(p.is_meta for p in model.parameters())
    assert not model.conditioner.encoder.visual.conv1.weight.requires_grad
    assert model.conditioner.learnable_vector.std() > 0.5


def test_an_incomplete_frozen_network_is_refused(toyworld, frozen, tmp_path):
    tensors = load_file(frozen[0])
    del tensors["autoencoder.quant_conv.bias"]
    save_file(tensors, tmp_path / "less.safetensors")
    config = exemplar_config(toyworld, [tmp_path / "less.safetensors", frozen[1]], tmp_path, steps=1)
    with pytest.raises(UserError, match="1 missing: autoencoder.quant_conv.bias"):
        fitting.start(config)


def test_the_dead_weights_have_no_gradient_and_are_not_optimised(toyworld, frozen, tmp_path):
    training = fitting.start(exemplar_config(toyworld, frozen, tmp_path, steps=1))
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


def test_the_script_trains_on_two_devices(tmp_path):
    """Lightning starts the script again for the second device, when the first has written to --logdir already."""
    changes = {
        "trainer.max_steps": 2,
        "trainer.devices": 2,
        "trainer.enable_progress_bar": "false",
        "training.params.judge.params.size": 16,
        "data.params.train.params.length": 16,
        "data.params.validation": "null",
        "data.params.batch_size": 4,
        "data.params.num_workers": 0,
    }
    command = [sys.executable, "scripts/train.py", "-b", "configs/train/toyworld_judge.yaml", "-l", tmp_path / "run"]
    overrides = [f"{key}={value}" for key, value in changes.items()]
    alone = {name: value for name, value in os.environ.items() if "RANK" not in name}
    done = subprocess.run([*command, *overrides], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 2 and (tmp_path / "run" / "weights.safetensors").exists()
