"""guided-diffusion's files: found under their bare names, told apart by their tensors, and computing the same."""

import math

import pytest
import torch
from omegaconf import OmegaConf

import ldm
from ldm.checkpoints.guided import differences, in_words, infer_classifier, infer_unet
from ldm.checkpoints.keymaps import guided
from ldm.checkpoints.load import build_empty, take
from ldm.checkpoints.manifest import read_manifest
from ldm.config import load_config
from ldm.models.unet import UNet
from tests.checkpoints.guided import TINY, bare, classifier, config
from tests.golden_weights import fill, load_golden
from tests.refusals import assert_mentions, refusal_of


def write(path, tensors):
    torch.save(tensors, path)
    return path


def refusal(config, path) -> str:
    message = refusal_of(ldm.load, config, path)
    assert_mentions(message, path)
    return message


@pytest.mark.parametrize(
    "name, manifest, numbers",
    [
        ("celeba256", "guided_256", 552_814_086),
        ("imagenet256", "guided_256_class", 553_838_086),
        ("imagenet256_classifier", "guided_256_classifier", 54_096_360),
    ],
)
def test_published_files_fit_their_configs(name, manifest, numbers):
    """Names, shapes, order and the number of weights; all of the file is taken, and nothing else."""
    published = read_manifest(manifest)
    ours = {key: tensor.shape for key, tensor in build_empty(load_config(name).model).state_dict().items()}
    assert [(*guided(key), tuple(shape)) for key, shape in ours.items()] == list(published.items())
    assert sum(math.prod(shape) for shape in published.values()) == numbers
    tensors = {key: torch.empty(shape, device="meta") for key, shape in published.items()}
    assert take(ours, tensors, "FILE", device="meta").keys() == ours.keys()


def test_places_is_the_network_of_celeba():
    assert load_config("places256").model == load_config("celeba256").model


@pytest.mark.parametrize("name", ["guided_unet_small", "guided_unet_small_classcond"])
def test_a_loaded_file_computes_what_the_original_computes(tmp_path, name):
    golden = load_golden(name)
    settings, options = golden["config"], golden["config"]["cfg"]
    ours = config(
        in_channels=settings["in_channels"],
        out_channels=settings["out_channels"],
        num_classes=settings["num_classes"],
        channel_mult=[1, 2, 2],
        attention_resolutions=[2, 4],
        num_res_blocks=options["num_res_blocks"],
        num_head_channels=options["num_head_channels"],
    )
    model = ldm.load(ours, write(tmp_path / "model.pt", bare(ours)))
    assert model.num_classes == settings["num_classes"]
    out = model.unet(golden["x"], golden["t"], y=golden["y"] if model.num_classes else None)
    torch.testing.assert_close(out, golden["out"], atol=5e-5, rtol=0)


def test_a_loaded_classifier(tmp_path):
    tensors = bare(classifier())
    model = ldm.load(classifier(), write(tmp_path / "classifier.pt", tensors))
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in model.state_dict().items())
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


def test_the_unet_alone(tmp_path):
    path = write(tmp_path / "model.pt", bare(config()))
    unet = OmegaConf.create({"model": config().model.params.unet})
    for root in (None, "unet"):
        loaded = ldm.load(unet, path, root=root)
        assert torch.equal(loaded.out[2].bias, bare(config())["out.2.bias"])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"in_channels": 1, "out_channels": 1, "use_scale_shift_norm": False},
        {"resblock_updown": False, "num_classes": 7, "num_res_blocks": 2},
        {"channel_mult": [1, 1, 1.5, 3], "attention_resolutions": [1, 4, 8], "model_channels": 64},
        {"channel_mult": [0.5, 1], "model_channels": 64, "attention_resolutions": []},
        {"context_dim": 24, "transformer_depth": 2, "channel_mult": [2, 2, 2], "num_res_blocks": 3},
        {"channel_mult": [1, 1, 2, 2, 2, 4], "attention_resolutions": [8, 32]},
    ],
)
def test_the_architecture_is_told_from_the_tensors(options):
    with torch.device("meta"):
        unet = UNet(**{**TINY, **options}, num_heads=2)
    shapes = {name: tensor.shape for name, tensor in unet.state_dict().items()}
    assert infer_unet(shapes) == {**TINY, **options}
    assert infer_classifier(shapes) == {}


def test_the_architecture_of_the_published_files():
    params = load_config("imagenet256").model.params.unet.params
    told = infer_unet(read_manifest("guided_256_class"))
    assert {name: told[name] for name in params if name != "num_head_channels"} == {
        name: value for name, value in params.items() if name != "num_head_channels"
    }
    told = infer_classifier(read_manifest("guided_256_classifier"))
    assert told == {name: load_config("models/classifier_adm_256").params[name] for name in told}
    assert infer_unet(read_manifest("guided_256_classifier")) == {}


def test_whatever_a_file_holds_is_no_crash():
    """Names that look like a U-Net's with nothing behind them, and shapes that no network has."""
    whole = {name: tensor.shape for name, tensor in fill(UNet(**TINY, num_heads=2)).state_dict().items()}
    for name in whole:
        infer_unet({**whole, name: ()})
        infer_unet({key: shape for key, shape in whole.items() if key != name})
        infer_unet({**whole, name: (0,) * len(whole[name])})
    assert infer_unet({}) == infer_classifier({}) == infer_unet({"out.2.weight": (1,)}) == {}
    assert infer_unet({"input_blocks.0.0.weight": (), "out.2.weight": ()})["channel_mult"] == []
    assert in_words(differences(whole, {"a": (1,)})) == ""


@pytest.mark.parametrize(
    "file, wanted, said",
    [
        ({"out_channels": 3}, {}, ("out_channels", 3, 6)),
        ({"num_classes": 5}, {}, ("num_classes", 5, "none")),
        ({}, {"num_classes": 5}, ("num_classes", "none", 5)),
        ({"num_classes": 4}, {"num_classes": 5}, ("num_classes", 4, 5)),
        ({"in_channels": 1, "out_channels": 2}, {}, ("in_channels", 1, 3, "out_channels", 2, 6)),
        ({"resblock_updown": False}, {}, ("resblock_updown", "false", "true")),
        ({"use_scale_shift_norm": False}, {}, ("use_scale_shift_norm", "false", "true")),
        ({"model_channels": 64}, {}, ("model_channels", 64, 32)),
        ({"channel_mult": [1, 1, 2]}, {}, ("channel_mult", "[1, 1, 2]", "[1, 2]")),
        ({"num_res_blocks": 2}, {}, ("num_res_blocks", 2, 1)),
        ({"attention_resolutions": [1, 2]}, {}, ("attention_resolutions", "[1, 2]", "[2]")),
    ],
)
def test_a_misfit_names_the_options_that_differ(tmp_path, file, wanted, said):
    path = write(tmp_path / "model.pt", bare(config(**file)))
    assert_mentions(refusal(config(**wanted), path), said)


def test_a_classifier_that_does_not_fit(tmp_path):
    path = write(tmp_path / "classifier.pt", bare(classifier(num_classes=4)))
    assert_mentions(refusal(classifier(), path), "num_classes", 4, 5)
    assert_mentions(refusal(config(), path), "classifier", "U-Net")
    path = write(tmp_path / "model.pt", bare(config()))
    assert_mentions(refusal(classifier(), path), "classifier", "U-Net")


def test_one_tensor_too_many_or_too_few(tmp_path):
    tensors = bare(config())
    assert_mentions(refusal(config(), write(tmp_path / "a.pt", {**tensors, "extra": torch.ones(1)})), 1, "extra")
    del tensors["middle_block.1.qkv.bias"]
    assert_mentions(refusal(config(), write(tmp_path / "b.pt", tensors)), 1, "middle_block.1.qkv.bias")
