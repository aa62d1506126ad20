"""The image tower and the exemplar bottleneck against the original code (Paint by Example on transformers' CLIP)."""

import copy

import pytest
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch.testing import assert_close

from ldm.config import build, load_config
from ldm.models.clip_image import ClipImageEncoder, ExemplarConditioner
from ldm.utils.clip import CLIP_MEAN, CLIP_STD
from tests.golden_weights import load_golden
from tests.models.official_clip import fill_official
from tests.refusals import refused


@pytest.fixture(scope="module")
def golden() -> dict:
    return load_golden("clip_image_embedder_small")


@pytest.fixture(scope="module")
def conditioner(golden) -> ExemplarConditioner:
    """Built on the meta device, then given the golden file's weights."""
    vision = golden["config"]["vision_config"]
    with torch.device("meta"):
        encoder = ClipImageEncoder(
            image_size=vision["image_size"],
            patch_size=vision["patch_size"],
            width=vision["hidden_size"],
            layers=vision["num_hidden_layers"],
            heads=vision["num_attention_heads"],
            mlp_ratio=vision["intermediate_size"] / vision["hidden_size"],
        )
        conditioner = ExemplarConditioner(
            encoder, golden["config"]["context_dim"], golden["config"]["mapper"]["layers"]
        )
    return fill_official(conditioner)


def small_conditioner() -> ExemplarConditioner:
    return ExemplarConditioner(ClipImageEncoder(16, 8, width=32, layers=2, heads=2), context_dim=24, mapper_layers=2)


@pytest.mark.parametrize("grad", [False, True])  # PyTorch's attention takes another path without gradients
def test_class_token_is_the_original(conditioner, golden, grad):
    with torch.set_grad_enabled(grad):
        assert_close(conditioner.encoder(golden["x"]).detach(), golden["pooled"], atol=5e-5, rtol=0)


def test_every_stage_of_the_bottleneck_is_the_original(conditioner, golden):
    with torch.no_grad():
        mapped = conditioner.mapper(golden["pooled"][:, None])
        assert_close(mapped, golden["mapped"], atol=5e-5, rtol=0)
        assert_close(conditioner.final_ln(golden["mapped"]), golden["learned_conditioning"], atol=5e-5, rtol=0)
        assert_close(conditioner.proj_out(golden["learned_conditioning"]), golden["context"], atol=5e-5, rtol=0)


def test_context_is_the_original(conditioner, golden):
    with torch.no_grad():
        assert_close(conditioner(golden["x"]), golden["context"], atol=5e-5, rtol=0)
        rounded = golden["x"].half().float()
        assert_close(conditioner(rounded), golden["context_from_fp16_rounded_input"], atol=5e-5, rtol=0)


def test_cached_class_tokens_give_the_same_context(conditioner, golden):
    with torch.no_grad():
        whole = conditioner(golden["x"])
        assert torch.equal(conditioner.bottleneck(conditioner.encode(golden["x"])), whole)


def test_all_tokens_are_the_class_token_and_one_of_each_patch():
    """A change of one patch's pixels reaches its token before any attention: with no layers, that token alone."""
    torch.manual_seed(0)
    conditioner = ExemplarConditioner(ClipImageEncoder(16, 8, 32, layers=0, heads=2), 24, mapper_layers=2, tokens="all")
    x = torch.randn(2, 3, 16, 16)
    other = x.clone()
    other[:, :, 8:, :8] += 1  # the third patch in reading order
    with torch.no_grad():
        tokens = conditioner.encode(x)
        assert tokens.shape == (2, 5, 32) and conditioner.length == 5
        assert torch.equal(tokens[:, 0], conditioner.encoder(x))
        assert (tokens != conditioner.encode(other)).any(2).all(0).tolist() == [False, False, False, True, False]
        assert conditioner(x).shape == conditioner.unconditional(2).shape == (2, 5, 24)


def test_unknown_tokens_are_refused():
    with refused("tokens", "patch", "class", "all"):
        ExemplarConditioner(ClipImageEncoder(16, 8, 32, layers=1, heads=2), 24, tokens="patch")


def test_unconditional_is_the_raw_learnable_vector(conditioner, golden):
    tokens = conditioner.unconditional(3)
    assert tokens.shape == (3, 1, golden["config"]["context_dim"])
    assert torch.equal(tokens[2:], golden["learnable_vector"])


def test_mapper_attends_with_scaled_dot_products_from_fused_q_k_v():
    """The golden data has one token, where q and k do not matter: here the formula, on three tokens."""
    torch.manual_seed(0)
    attention = small_conditioner().mapper.resblocks[0].attn.double()
    x = torch.randn(2, 3, 32, dtype=torch.float64)
    with torch.no_grad():
        projected = x @ attention.c_qkv.weight.T + attention.c_qkv.bias
        q, k, v = projected[..., :32], projected[..., 32:64], projected[..., 64:]
        expected = attention.c_proj(torch.softmax(q @ k.transpose(1, 2) / 32**0.5, dim=-1) @ v)
        assert_close(attention(x), expected)


def test_parameter_names_are_a_contract():
    names = {name for name in small_conditioner().state_dict() if ".1." not in name}
    linear = ("weight", "bias")
    tower = ["conv1.weight", "class_embedding", "positional_embedding"]
    tower += [f"{norm}.{p}" for norm in ("ln_pre", "ln_post") for p in linear]
    block = ["attn.in_proj_weight", "attn.in_proj_bias"]
    block += [f"{part}.{p}" for part in ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj") for p in linear]
    mapper = ("ln_1", "attn.c_qkv", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    expected = {f"encoder.visual.{name}" for name in tower}
    expected |= {f"encoder.visual.transformer.resblocks.0.{name}" for name in block}
    expected |= {f"mapper.resblocks.0.{part}.{p}" for part in mapper for p in linear}
    expected |= {f"{part}.{p}" for part in ("final_ln", "proj_out") for p in linear} | {"learnable_vector"}
    assert names == expected


def test_official_size_on_the_meta_device():
    with torch.device("meta"):
        encoder = build(load_config("models/clip_image_vit_l14"))
        conditioner = ExemplarConditioner(encoder, context_dim=768)
    assert all(tensor.is_meta for tensor in conditioner.state_dict().values())
    assert sum(p.numel() for p in encoder.parameters()) == 303_179_776  # as transformers' CLIPVisionModel
    assert conditioner.image_size == 224
    assert len(conditioner.mapper.resblocks) == 5
    assert conditioner.mapper.resblocks[4].attn.c_qkv.weight.shape == (3072, 1024)
    assert conditioner.proj_out.weight.shape == (768, 1024)


def test_frozen_encoder_records_no_graph_and_the_rest_trains():
    torch.manual_seed(0)
    conditioner = small_conditioner()
    conditioner.encoder.requires_grad_(False)
    pixels = torch.randn(2, 3, 16, 16)
    assert not conditioner.encoder(pixels).requires_grad
    (conditioner(pixels).square().sum() + conditioner.unconditional(2).sum()).backward()
    with_grad = {name for name, p in conditioner.named_parameters() if p.grad is not None}
    assert with_grad == {name for name, _ in conditioner.named_parameters() if not name.startswith("encoder.")}


def test_bfloat16_stays_close_to_float32(conditioner, golden):
    with torch.no_grad():
        context = copy.deepcopy(conditioner).bfloat16()(golden["x"].bfloat16())
    assert context.dtype == torch.bfloat16
    assert_close(context.float(), golden["context"], atol=0.05 * golden["context"].abs().max().item(), rtol=0)


def test_pixels_are_normalised_as_open_clip_does():
    assert (CLIP_MEAN, CLIP_STD) == (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)
