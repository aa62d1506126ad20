"""The trainings that ship, at their real entry point, a few steps long on a few drawn scenes."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from ldm.checkpoints.load import load
from ldm.config import ROOT, build, load_config
from ldm.data.toyworld_files import write_split
from ldm.training.checkpoint_folder import TRAINER, WEIGHTS
from ldm.training.exemplar import one_token_dead_weights
from ldm.training.fit import fit
from ldm.training.latent_cache import write_cache
from ldm.training.start import FROZEN, start
from ldm.utils.errors import UserError
from tests.training.small import BASE, overrides

SMALL = ("data.params.batch_size=4", "validate_every=2", "trainer.limit_val_batches=1")


@pytest.fixture(scope="module")
def toyworld(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toyworld"
    for split in ("train", "validation"):
        write_split(root, split, 12, seed=3, size=64, workers=1)
    return root


def settings(name, steps, *overrides):
    common = ["trainer.precision=32-true", f"trainer.max_steps={steps}", "trainer.enable_progress_bar=false",
              "trainer.num_sanity_val_steps=0"]  # fmt: skip
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
        fit(autoencoder_config(toyworld, 2), folder / "autoencoder"),
        fit(clip_config(toyworld, 2), folder / "clip"),
    ]


def exemplar_config(toyworld, frozen, folder, steps):
    return settings(
        "exemplar",
        steps,
        f"frozen=[{','.join(map(str, frozen))}]",
        f"source.params.root={toyworld}",
        f"data.params.train.params.folder={folder}",
        f"data.params.validation.params.root={toyworld}",
        *SMALL,
    )


def test_exemplar_training_from_a_cache_to_a_model_that_loads(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path / "latents", steps=2)
    write_cache(config, tmp_path / "latents", epochs=1, shard=5, part=(0, 1))
    config.panel_every = 2
    weights = fit(config, tmp_path / "run")

    saved = load_file(weights)
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    assert not any(name.startswith(FROZEN) for name in saved)
    model = load("toyworld", [weights, *frozen])
    before = load_file(frozen[0]) | load_file(frozen[1])
    assert torch.equal(model.autoencoder.quant_conv.weight, before["autoencoder.quant_conv.weight"])
    assert torch.equal(model.conditioner.encoder.visual.conv1.weight, before["image_encoder.visual.conv1.weight"])
    assert not torch.equal(model.unet.out[-1].weight, torch.zeros_like(model.unet.out[-1].weight))  # its start

    same = load(tmp_path / "run" / "config.yaml")  # knows where all its weights are
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in same.state_dict().items())
    for kept in ("last", "best"):
        load("toyworld", [tmp_path / "run" / "checkpoints" / kept / WEIGHTS, *frozen])
    state = torch.load(tmp_path / "run" / "checkpoints" / "last" / TRAINER, weights_only=True)["state_dict"]
    assert state and not any(name.removeprefix("model.").startswith(FROZEN) for name in state)
    assert (tmp_path / "run" / "panel" / "step-000002.png").exists()


def test_a_cached_item_is_what_the_frozen_networks_make_of_the_source(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path, steps=1)
    training, source = start(config), build(config.source)
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
    source.recipe.params.jitter = 0
    scale.model.params.scale_factor *= 2
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
    training = start(config)
    files = load_file(frozen[0]) | load_file(frozen[1])
    dead = {id(p) for module in one_token_dead_weights(training.model.unet) for p in module.parameters()}
    for name, parameter in training.model.named_parameters():
        if not parameter.requires_grad and id(parameter) not in dead:
            source = name.replace("conditioner.encoder.", "image_encoder.")
            assert torch.equal(parameter, files[source]), name
    del config.frozen
    with pytest.raises(UserError, match="--pretrained_model"):
        start(config)


def test_an_incomplete_frozen_network_is_refused(toyworld, frozen, tmp_path):
    tensors = load_file(frozen[0])
    del tensors["autoencoder.quant_conv.bias"]
    save_file(tensors, tmp_path / "less.safetensors")
    config = exemplar_config(toyworld, [tmp_path / "less.safetensors", frozen[1]], tmp_path, steps=1)
    with pytest.raises(UserError, match="1 missing: autoencoder.quant_conv.bias"):
        start(config)


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
    four = build(config.model.params.unet | {"params": config.model.params.unet.params | {"in_channels": 4}})
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


def test_a_trained_model_is_trained_on(toyworld, frozen, tmp_path):
    """Fine-tuning starts from its weights, which are in other files than the frozen networks'."""
    config = exemplar_config(toyworld, frozen, tmp_path, steps=1)
    model = start(config).model
    rest = {name: tensor + 1 for name, tensor in model.state_dict().items() if not name.startswith(FROZEN)}
    save_file(rest, tmp_path / "trained.safetensors")
    config.pretrained_model = str(tmp_path / "trained.safetensors")
    tuned = start(config).model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tuned[name], tensor + 1 if name in rest else tensor), name


def test_an_autoencoder_goes_on_from_its_own_file_and_from_a_whole_models(toyworld, frozen, tmp_path):
    config = autoencoder_config(toyworld, 1)
    own = load_file(frozen[0])
    rest = "first_stage_model."
    save_file(
        {n.replace("autoencoder.", rest): t for n, t in own.items()} | {"model.x": torch.ones(1)}, tmp_path / "sd"
    )
    for file in (frozen[0], tmp_path / "sd"):
        config.pretrained_model = str(file)
        found = start(config).weights()
        assert found.keys() == own.keys() and all(torch.equal(found[name], own[name].float()) for name in own)
    save_file({name: own[name] for name in list(own)[1:]}, tmp_path / "less")
    config.pretrained_model = str(tmp_path / "less")
    with pytest.raises(UserError, match="less: does not fit the model: 1 missing"):
        start(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip": "{}/there"}, "clip .*/there: of use with pretrained_model only"),
        ({"pretrained_model": "{}/there"}, "checkpoint .*/there: the file is empty"),
        ({"pretrained_model": "{}/absent"}, "pretrained_model .*/absent: no such file"),
        ({"frozen": ["{}/absent"]}, "frozen .*/absent: no such file"),
        ({"weights": "fp16"}, "weights fp16: expected one of float32, float16, bfloat16"),
        ({"ema": 1.5}, "ema 1.5: expected a decay"),
        ({"save_every": "soon"}, "save_every soon: expected minutes"),
        ({"validate_every": 0}, "validate_every 0: expected a positive number of steps"),
        ({"monitor": {"metric": "val/psnr"}}, "monitor .*: expected {metric: NAME, mode: min or max}"),
        ({"monitr": 1}, "monitr: unknown key at the top level of a training config; did you mean monitor?"),
        ({"data": None}, "data: missing, the config describes no training"),
    ],
)
def test_what_cannot_work_is_refused_before_the_training(toyworld, tmp_path, change, message):
    (tmp_path / "there").touch()
    config = autoencoder_config(toyworld, 1)
    for key, value in change.items():
        config[key] = value.format(tmp_path) if isinstance(value, str) else value
        if isinstance(value, list):
            config[key] = [item.format(tmp_path) for item in value]
    with pytest.raises(UserError, match=message):
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
    assert f"{broken}: cannot be read" in (tmp_path / "run" / "log.txt").read_text()
    for file in broken.parent.iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        UserError, match=r"^5 of 5 pictures unreadable .limit max_unreadable = 0.01., the last one: [^\n]+$"
    ):
        fit(config, tmp_path / "other")


def test_the_script_trains_on_two_devices(tmp_path):
    """Lightning starts the script again for the second device, when the first has written to --logdir already."""
    command = [sys.executable, "scripts/train.py", "-b", f"configs/{BASE}.yaml", "-l", tmp_path / "run"]
    changes = overrides(trainer__devices=2, trainer__max_steps=2)
    alone = {name: value for name, value in os.environ.items() if "RANK" not in name}
    done = subprocess.run([*command, *changes], cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("weights written to") == done.stdout.count("batch 4 = 2 devices x 2 x 1") == 1
    assert torch.load(tmp_path / "run" / "checkpoints" / "last" / TRAINER, weights_only=True)["global_step"] == 2
    assert (tmp_path / "run" / WEIGHTS).exists()
