"""guided-diffusion's files: recognised, with the options of their network and the config for it."""

import pytest
import torch
from omegaconf import OmegaConf

from ldm.checkpoints.manifest import read_manifest
from ldm.config import build, load_config
from ldm.doctor.file import known_models, nearest_model
from ldm.doctor.options import options, own_options
from tests.checkpoints import guided
from tests.refusals import assert_mentions


def empty(shapes):
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def examined(tensors, known):
    found, model = nearest_model(tensors, known + own_options(tensors))
    return model, *options(tensors, found)


@pytest.mark.parametrize(
    "manifest, config, said",
    [
        ("guided_256", "celeba256", ("num_classes", "none")),
        ("guided_256_class", "imagenet256", ("num_classes", 1000)),
        ("guided_256_classifier", "imagenet256_classifier", ("num_classes", 1000)),
    ],
)
def test_published_files(known, manifest, config, said):
    model, told = examined(empty(read_manifest(manifest)), known)
    assert (model.status, told.status) == ("ok", "ok")
    assert_mentions(told.text, said, config)


def test_a_file_of_ones_own_training_comes_with_its_config(tmp_path, known):
    config = guided.config(out_channels=3, num_classes=5, channel_mult=[1, 1.5, 3], model_channels=64)
    model, told = examined(guided.bare(config), known)
    assert (model.status, told.status) == ("ok", "note") and "options of its own" in model.text
    assert "out_channels 3, " in told.text and "channel_mult [1, 1.5, 3]" in told.text
    node = OmegaConf.create("\n".join(told.table)).model
    assert node["params"]["variance"] == "fixed_large"
    (tmp_path / "own.yaml").write_text("\n".join(told.table).replace("num_head_channels: 64", "num_head_channels: 32"))
    with torch.device("meta"):
        built = build(load_config(tmp_path / "own.yaml").model)
    expected = {f"unet.{name}": tensor.shape for name, tensor in guided.bare(config).items()}
    assert {name: tensor.shape for name, tensor in built.state_dict().items()} == expected


def test_what_a_file_lacks_of_its_own_network_is_named(known):
    tensors = guided.bare(guided.config())
    del tensors["middle_block.1.qkv.bias"]
    model, _ = examined(tensors, known)
    assert model.status == "PROBLEM"
    assert_mentions(model.text, 1, "middle_block.1.qkv.bias")
    damaged = empty(read_manifest("guided_256"))
    del damaged["out.2.bias"]
    model, told = examined(damaged, known)
    assert "most similar to guided-diffusion 256x256" in model.text and told.status == "ok"


def test_nothing_is_said_of_other_files(known, toyworld):
    assert own_options(toyworld) == options(toyworld, known[0]) == []
    nonsense = {"input_blocks.0.0.weight": torch.empty(0), "out.2.weight": torch.empty(0)}
    assert own_options(nonsense) == []


def test_a_config_that_was_named_is_compared_with(tmp_path):
    OmegaConf.save(guided.config(), tmp_path / "tiny.yaml")
    tensors = guided.bare(guided.config(num_classes=5))
    found, model = nearest_model(tensors, known_models(tmp_path / "tiny.yaml"))
    (told,) = options(tensors, found)
    assert (model.status, told.status) == ("PROBLEM", "note")
    assert_mentions(told.text, "num_classes", 5, "none")


@pytest.mark.parametrize("classes", [None, 5])
def test_networks_of_pictures_are_tried(tmp_path, run_script, fp32_only, classes):
    config = guided.config(num_classes=classes)
    OmegaConf.save(config, tmp_path / "tiny.yaml")
    torch.save(guided.bare(config), tmp_path / "model.pt")
    done = run_script("doctor.py", tmp_path / "model.pt", "--config", tmp_path / "tiny.yaml", "--device", "cpu")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == "verdict: broken: the UNet does not denoise"
    assert "UNet step     ok" in done.stdout and "options" in done.stdout


def test_a_classifier_is_recognised_and_not_run(tmp_path, run_script):
    OmegaConf.save(guided.classifier(), tmp_path / "tiny.yaml")
    torch.save(guided.bare(guided.classifier()), tmp_path / "model.pt")
    done = run_script("doctor.py", tmp_path / "model.pt", "--config", tmp_path / "tiny.yaml")
    assert done.returncode == 0, done.stdout
    assert "not run: not a diffusion model" in done.stdout and "verdict: fine" in done.stdout
