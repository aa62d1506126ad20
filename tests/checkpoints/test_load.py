import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

import ldm
from ldm.checkpoints.io import save_tensors
from ldm.checkpoints.load import fill, fill_roots
from ldm.checkpoints.open import load
from ldm.config import build
from tests.checkpoints import official
from tests.refusals import assert_line, assert_mentions, refusal_of, refused

VISION = "cond_stage_model.transformer.vision_model."
BLOCK = VISION + "encoder.layers.1.self_attn."


def value(name, shape):
    return official.make(name, shape)


def check_networks(model, in_channels=9, sign=1):
    for root, network in ("model.diffusion_model.", model.unet), ("first_stage_model.", model.autoencoder):
        for name, tensor in network.state_dict().items():
            expected = value(root + name, tensor.shape) * (sign if root.startswith("model.") else 1)
            torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    assert model.unet.input_blocks[0][0].weight.shape[1] == in_channels


def check_exemplar(conditioner):
    w = official.WIDTH
    qkv = torch.cat([value(BLOCK + f"{part}_proj.weight", (w, w)) for part in "qkv"])
    expected = {
        "encoder.visual.transformer.resblocks.1.attn.in_proj_weight": qkv,
        "encoder.visual.class_embedding": value(VISION + "embeddings.class_embedding", (w,)),
        "encoder.visual.ln_post.weight": value(VISION + "post_layernorm.weight", (w,)),
        "mapper.resblocks.0.attn.c_qkv.weight": value(
            "cond_stage_model.mapper.resblocks.0.attn.c_qkv.weight", (3 * w, w)
        ),
        "final_ln.bias": value("cond_stage_model.final_ln.bias", (w,)),
        "proj_out.weight": value("proj_out.weight", (official.CONTEXT, w)),
        "learnable_vector": value("learnable_vector", (1, 1, official.CONTEXT)),
    }
    state = conditioner.state_dict()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


def refusal(*arguments, **options):
    return refusal_of(load, *arguments, **options)


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("level", [True, False])
@pytest.mark.parametrize("position_ids", [True, False])
def test_paint_by_example(tmp_path, suffix, level, position_ids):
    path = official.write(tmp_path / f"model{suffix}", official.paint_by_example(level, position_ids))
    model = ldm.load(official.model_config(), path)
    check_networks(model)
    check_exemplar(model.conditioner)
    assert not any(module.training for module in model.modules())
    for tensor in (*model.parameters(), *model.buffers()):
        assert tensor.device.type == "cpu" and tensor.dtype == torch.float32 and not tensor.requires_grad


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("level", [True, False])
@pytest.mark.parametrize("position_ids", [True, False])
def test_stable_diffusion(tmp_path, suffix, level, position_ids):
    path = official.write(tmp_path / f"sd{suffix}", official.stable_diffusion(level, position_ids))
    model = load(official.text_config(), path)
    check_networks(model, in_channels=4)
    table = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    assert torch.equal(model.conditioner.encoder.text.token_embedding.weight, value(table, (5, official.CONTEXT)))
    assert model.conditioner(["red blue"]).isfinite().all()  # no buffer is left without values


def test_the_image_tower_computes_what_transformers_computes(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    options = dict(image_size=32, patch_size=16, hidden_size=official.WIDTH, intermediate_size=4 * official.WIDTH)
    torch.manual_seed(0)
    peer = CLIPVisionModel(CLIPVisionConfig(**options, num_hidden_layers=official.LAYERS, num_attention_heads=2)).eval()
    tensors = {
        n: t for n, t in official.paint_by_example().items() if not n.startswith("cond_stage_model.transformer.")
    }
    tensors |= {"cond_stage_model.transformer." + name: tensor for name, tensor in peer.state_dict().items()}
    model = load(official.model_config(), official.write(tmp_path / "model.ckpt", tensors))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        seen, encoder = peer(pixels), model.conditioner.encoder
        torch.testing.assert_close(encoder(pixels), seen.pooler_output, atol=2e-6, rtol=0)
        patches = peer.post_layernorm(seen.last_hidden_state)
        torch.testing.assert_close(encoder.tokens(pixels), patches, atol=2e-6, rtol=0)


def test_precision_is_cast_while_reading(tmp_path):
    path = official.write(tmp_path / "model.ckpt", official.paint_by_example())
    model = load(official.model_config(), path, precision="bf16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    name = "input_blocks.0.0.weight"
    expected = value("model.diffusion_model." + name, (32, 9, 3, 3)).bfloat16()
    assert torch.equal(model.unet.get_parameter(name), expected)
    assert model.schedule.alphas_cumprod.dtype == torch.float64


def test_half_precision_files_become_float32(tmp_path):
    halves = {name: t.half() for name, t in official.paint_by_example(position_ids=False).items()}
    model = load(official.model_config(), official.write(tmp_path / "model.safetensors", halves))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.conditioner.learnable_vector, halves["learnable_vector"].float())


def test_the_file_may_change_after_loading(tmp_path):
    path = official.write(tmp_path / "model.ckpt", official.paint_by_example())
    model = load(official.model_config(), path)
    with open(path, "r+b") as file:
        file.write(bytes(path.stat().st_size))
    check_exemplar(model.conditioner)


def test_moving_averages_are_preferred(tmp_path, caplog):
    caplog.set_level("INFO", logger="ldm")
    path = official.write(tmp_path / "full.ckpt", official.averages(official.stable_diffusion()))
    check_networks(load(official.text_config(), path), in_channels=4, sign=-1)
    assert_line(caplog.messages[0], path, "model_ema")
    assert len(caplog.messages) == 1


def test_missing_surplus_and_misshapen_tensors_are_counted_and_named(tmp_path):
    tensors = official.paint_by_example()
    gone = [name for name in tensors if name.startswith("first_stage_model.decoder.conv_out")]
    gone += [BLOCK + "k_proj.weight", "learnable_vector", "proj_out.bias"]
    for name in gone:
        del tensors[name]
    tensors |= {"extra.b": torch.ones(1), "extra.a": torch.ones(1)}
    tensors["proj_out.weight"] = torch.ones(3, 3)
    message = refusal(official.model_config(), official.write(tmp_path / "model.ckpt", tensors))
    assert_mentions(message, tmp_path / "model.ckpt", 5, gone[0], gone[1], "learnable_vector", 2, "extra.a", "extra.b")
    assert_mentions(message, 1, "proj_out.weight", "(3, 3)", f"({official.CONTEXT}, {official.WIDTH})")


@pytest.mark.parametrize(
    "name", [VISION + "encoder.layers.2.layer_norm1.bias", "cond_stage_model.x", "unet.x", "model_ema.x0weight"]
)
def test_one_surplus_tensor_is_refused(tmp_path, name):
    tensors = official.paint_by_example() | {name: torch.ones(32)}
    assert name in refusal(official.model_config(), official.write(tmp_path / "model.ckpt", tensors))


@pytest.mark.parametrize("part", ["learnable_vector", BLOCK + "k_proj.weight", "proj_out.bias"])
def test_whole_numbers_are_no_weights(tmp_path, part):
    tensors = official.paint_by_example()
    tensors[part] = torch.ones_like(tensors[part], dtype=torch.int32)
    message = refusal(official.model_config(), official.write(tmp_path / "model.ckpt", tensors))
    assert_mentions(message, 1, part, "int32")


def test_q_k_v_of_unlike_sizes(tmp_path):
    tensors = official.paint_by_example()
    for part, size in ("q", 16), ("k", 32), ("v", 40):
        tensors[BLOCK + f"{part}_proj.weight"] = torch.ones(size, 30 + size)
    message = refusal(official.model_config(), official.write(tmp_path / "model.ckpt", tensors))
    assert_mentions(message, 1, f"{BLOCK}q_proj.weight")


def test_too_few_input_channels_say_what_to_do(tmp_path):
    tensors = official.paint_by_example() | {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(32, 4, 3, 3)}
    message = refusal(official.model_config(), official.write(tmp_path / "model.ckpt", tensors))
    assert_mentions(message, "(32, 4, 3, 3)", "(32, 9, 3, 3)", "modify-checkpoints")
    message = refusal(official.model_config(in_channels=3), tmp_path / "model.ckpt")
    assert_mentions(message, "(32, 4, 3, 3)", "(32, 3, 3, 3)")
    assert "modify-checkpoints" not in message


def test_an_exemplar_checkpoint_for_a_text_model_is_called_so(tmp_path):
    path = official.write(tmp_path / "model.ckpt", official.paint_by_example())
    message = refusal(official.text_config(), path)
    assert_mentions(message, "(32, 9, 3, 3)", "(32, 4, 3, 3)", "9-channel", 4)


def test_a_file_of_something_else(tmp_path):
    message = refusal(
        official.model_config(), official.write(tmp_path / "vgg.ckpt", {"features.0.weight": torch.ones(1)})
    )
    assert_mentions(message, "features.0.weight")
    assert "autoencoder" not in message and "model." not in message


@pytest.fixture
def own_files(tmp_path):
    """As this package ships a model: half precision, in several files, named in the config."""
    model = load(official.model_config(), official.write(tmp_path / "model.ckpt", official.paint_by_example()))
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    parts = {"autoencoder": {n: t for n, t in state.items() if n.startswith("autoencoder.")}}
    parts["exemplar"] = {name: tensor for name, tensor in state.items() if name not in parts["autoencoder"]}
    for part, tensors in parts.items():
        save_tensors(tmp_path / f"{part}.safetensors", tensors)
    config = official.model_config()
    config.checkpoint = [str(tmp_path / f"{part}.safetensors") for part in parts]
    return config, state


def test_own_files_named_in_the_config(tmp_path, own_files):
    config, state = own_files
    OmegaConf.save(config, tmp_path / "world.yaml")
    for given in (config, str(tmp_path / "world.yaml"), tmp_path / "world.yaml"):
        model = load(given)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[name].float())


def test_own_files_are_strict_together(own_files):
    config, _ = own_files
    first, second = config.checkpoint
    assert_mentions(refusal(config, first), first)
    assert_mentions(refusal(config, [first, second, first]), first)


def test_a_part_alone(tmp_path, own_files):
    config, state = own_files
    part = OmegaConf.create({"model": official.AUTOENCODER})
    for file in (config.checkpoint[0], tmp_path / "model.ckpt"):
        autoencoder = load(part, file, root="autoencoder")
        weight = state["autoencoder.quant_conv.weight"].float()
        torch.testing.assert_close(autoencoder.quant_conv.weight, weight, atol=1e-3, rtol=0)
    tensors = official.paint_by_example() | {"first_stage_model.extra": torch.ones(1)}
    official.write(tmp_path / "more.ckpt", tensors)
    assert "first_stage_model.extra" in refusal(part, tmp_path / "more.ckpt", root="autoencoder")


@pytest.fixture
def clip_apart(tmp_path, own_files):
    """The model with its image tower in the file of a contrastively trained CLIP, which holds more than that."""
    _, state = own_files
    tower = {name: tensor for name, tensor in state.items() if name.startswith("conditioner.encoder.")}
    rest = {name: tensor for name, tensor in state.items() if name not in tower}
    clip = {name.replace("conditioner.encoder.", "image_encoder."): tensor for name, tensor in tower.items()}
    clip |= {"text_encoder.text.ln_final.weight": torch.ones(3), "image_projection.weight": torch.ones(3, 32)}
    clip |= {"text_projection.weight": torch.ones(3, 3), "logit_scale": torch.ones(1)}
    save_tensors(tmp_path / "rest.safetensors", rest)
    save_tensors(tmp_path / "clip.safetensors", clip)
    return [tmp_path / "rest.safetensors", tmp_path / "clip.safetensors"], clip, state


def test_clip_in_a_file_of_its_own(clip_apart):
    files, _, state = clip_apart
    for name, tensor in load(official.model_config(), files).state_dict().items():
        assert torch.equal(tensor, state[name].float()), name


def test_the_tower_in_use_is_strict(clip_apart):
    files, clip, _ = clip_apart
    block = "image_encoder.visual.transformer.resblocks."
    save_tensors(files[1], {**clip, block + "9.ln_1.bias": torch.ones(32)})
    assert_mentions(refusal(official.model_config(), files), 1, f"{block}9.ln_1.bias")
    save_tensors(files[1], {name: tensor for name, tensor in clip.items() if name != block + "1.ln_1.bias"})
    assert_mentions(refusal(official.model_config(), files), 1, f"{block}1.ln_1.bias")


def test_frozen_networks_alone(clip_apart):
    """Training fills what is frozen from files, and leaves the rest as it was built."""
    files, clip, state = clip_apart
    roots = ("autoencoder.", "conditioner.encoder.")
    frozen = {name: tensor for name, tensor in state.items() if name.startswith("autoencoder.")}
    save_tensors(files[0], frozen)
    model = build(official.model_config().model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fill_roots(model, roots, files)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name].float() if name.startswith(roots) else before[name]), name
    with refused(files[1], "autoencoder"):
        fill_roots(model, roots, files[1:])


def test_configs_without_a_model_or_weights(tmp_path):
    refusal(official.model_config())
    assert_mentions(refusal(OmegaConf.create({"data": {}}), tmp_path / "x.ckpt"), "model")
    assert_mentions(refusal("nowhere"), "nowhere")


def test_a_buffer_that_no_file_can_hold_is_a_bug():
    with torch.device("meta"):
        model = nn.Linear(2, 2)
        model.register_buffer("table", torch.zeros(3), persistent=False)
    with pytest.raises(RuntimeError, match="table"):
        fill(model, {"weight": torch.ones(2, 2), "bias": torch.ones(2)})


def test_the_package_is_imported_fast_and_loads_on_demand():
    code = (
        "import sys, ldm; assert not {'torch', 'omegaconf'} & set(sys.modules); ldm.load; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="nonsense"):
        ldm.nonsense  # noqa: B018
