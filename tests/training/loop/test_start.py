"""The weights that a training begins with, network by network."""

import torch
from safetensors.torch import load_file, save_file

from ldm.checkpoints.io import save_tensors
from ldm.training.exemplar import one_token_dead_weights
from ldm.training.loop.start import FROZEN, start
from tests.refusals import refused
from tests.training.shipped import autoencoder_config, exemplar_config, text_config


def test_no_frozen_network_keeps_random_values(toyworld, frozen, tmp_path):
    config = exemplar_config(toyworld, frozen, tmp_path, steps=1)
    training = start(config)
    files = load_file(frozen[0]) | load_file(frozen[1])
    dead = {id(p) for module in one_token_dead_weights(training.model.unet) for p in module.parameters()}
    untrained = {n: p for n, p in training.model.named_parameters() if not p.requires_grad and id(p) not in dead}
    assert {name.partition(".")[0] for name in untrained} == {"autoencoder", "conditioner"}
    for name, parameter in untrained.items():
        assert torch.equal(parameter, files[name.replace("conditioner.encoder.", "image_encoder.")]), name
    del config.frozen
    with refused("--pretrained_model"):
        start(config)


def test_an_incomplete_frozen_network_is_refused(toyworld, frozen, tmp_path):
    tensors = load_file(frozen[0])
    del tensors["autoencoder.quant_conv.bias"]
    save_file(tensors, tmp_path / "less.safetensors")
    config = exemplar_config(toyworld, [tmp_path / "less.safetensors", frozen[1]], tmp_path, steps=1)
    with refused(1, "autoencoder.quant_conv.bias"):
        start(config)


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
    with refused(tmp_path / "less", 1):
        start(config)


def test_the_exemplar_model_starts_as_the_text_model(toyworld, frozen, tmp_path, caplog):
    """As Paint by Example from SD v1-4: whatever the new input channels show, nothing has changed for the UNet yet."""
    text = start(text_config(frozen, tmp_path, steps=1))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in text.model.unet.parameters():  # as trained: none of those that begin at 0 is 0
            parameter.copy_((parameter + 0.02 * torch.randn(parameter.shape, generator=draw)).half())
    rest = {name: tensor for name, tensor in text.weights().items() if not name.startswith(FROZEN)}
    save_tensors(tmp_path / "text.safetensors", rest, {}, torch.float16)  # as a run writes it

    config = exemplar_config(toyworld, frozen, tmp_path, steps=1)
    config.pretrained_model = str(tmp_path / "text.safetensors")
    caplog.set_level("INFO", logger="ldm")
    model = start(config).model
    assert "from 4 to 9 input channels" in caplog.text and "initialised at random" in caplog.text
    for length in (1, 24):
        x, extra = torch.randn(2, 4, 16, 16, generator=draw), 10 * torch.randn(2, 5, 16, 16, generator=draw)
        t, context = torch.tensor([3, 700]), torch.randn(2, length, 160, generator=draw)
        with torch.no_grad():
            expected = text.model.unet(x, t, context)
            found = model.unet(torch.cat([x, extra], 1), t, context)
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())

    files = load_file(frozen[0]) | load_file(frozen[1])
    for name, tensor in model.state_dict().items():
        if name.startswith(FROZEN):
            assert torch.equal(tensor, files[name.replace("conditioner.encoder.", "image_encoder.")]), name
    assert model.conditioner.learnable_vector.requires_grad and model.conditioner.learnable_vector.std() > 0.5
    assert model.unet.input_blocks[0][0].weight.requires_grad
