"""The text tower against transformers' CLIPTextModel, and the pooled vector."""

import pytest
import torch
from torch.testing import assert_close

from ldm.config import build, load_config
from ldm.models.clip_text import ClipTextEncoder, TextConditioner
from ldm.models.tokenizer import WordTokenizer
from tests.golden_weights import load_golden
from tests.models.official_clip import fill_official
from tests.refusals import refused


@pytest.fixture(scope="module")
def golden() -> dict:
    return load_golden("clip_text_small")


@pytest.fixture(scope="module")
def conditioner(golden) -> TextConditioner:
    """Built on the meta device, then given the golden file's weights. Its tokenizer only has the right sizes."""
    text = golden["config"]["text_config"]
    vocab_size, length = text["vocab_size"], text["max_position_embeddings"]
    tokenizer = WordTokenizer([f"word{i}" for i in range(vocab_size - 2)], length)
    with torch.device("meta"):
        conditioner = TextConditioner(
            ClipTextEncoder(
                vocab_size,
                length,
                width=text["hidden_size"],
                layers=text["num_hidden_layers"],
                heads=text["num_attention_heads"],
                tokenizer=tokenizer,
            )
        )
    return fill_official(conditioner)


def toy_encoder(context_length: int = 6) -> ClipTextEncoder:
    tokenizer = WordTokenizer(["a", "red", "cube"], context_length)
    torch.manual_seed(0)
    return ClipTextEncoder(5, context_length, width=32, layers=2, heads=2, tokenizer=tokenizer)


@pytest.mark.parametrize("grad", [False, True])
def test_last_hidden_state_is_the_original(conditioner, golden, grad):
    with torch.set_grad_enabled(grad):
        tokens = conditioner.encoder(golden["input_ids"]).detach()
    assert_close(tokens, golden["last_hidden_state"], atol=5e-5, rtol=0)


def test_bfloat16_stays_close_to_float32():
    encoder = toy_encoder()
    ids = encoder.tokenizer(["a red cube"])
    with torch.no_grad():
        expected = encoder(ids)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(encoder(ids).float(), expected, atol=0.1, rtol=0)
        tokens = encoder.bfloat16()(ids)
    assert tokens.dtype == torch.bfloat16
    assert_close(tokens.float(), expected, atol=0.1, rtol=0)


def test_a_token_does_not_see_what_follows():
    encoder = toy_encoder()
    ids = torch.tensor([[1, 2, 3, 4, 0, 0]])
    changed = torch.tensor([[1, 2, 3, 2, 0, 0]])
    with torch.no_grad():
        difference = (encoder(ids) - encoder(changed)).abs().amax(-1)[0]
    assert difference[:3].max() == 0
    assert difference[3:].min() > 0


def test_pooled_is_the_output_at_the_first_end_token():
    encoder = toy_encoder()
    ids = encoder.tokenizer(["a red cube", "cube", ""])
    assert ids.tolist() == [[1, 2, 3, 4, 0, 0], [1, 4, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    with torch.no_grad():
        tokens = encoder(ids)
        assert_close(encoder.pooled(ids), torch.stack([tokens[0, 4], tokens[1, 2], tokens[2, 1]]))


def test_conditioner_is_tokenizer_then_encoder_and_unconditional_is_the_empty_prompt():
    encoder = toy_encoder()
    conditioner = TextConditioner(encoder)
    with torch.no_grad():
        tokens = conditioner(["a cube", ""])
        assert_close(tokens, encoder(torch.tensor([[1, 2, 4, 0, 0, 0], [1, 0, 0, 0, 0, 0]])))
        unconditional = conditioner.unconditional(3)
    assert unconditional.shape == (3, 6, 32)
    assert_close(unconditional[2], tokens[1])


def test_frozen_encoder_records_no_graph():
    conditioner = TextConditioner(toy_encoder()).requires_grad_(False)
    assert not conditioner(["a cube"]).requires_grad


def test_parameter_names_are_a_contract():
    linear = ("weight", "bias")
    block = ["attn.in_proj_weight", "attn.in_proj_bias"]
    block += [f"{part}.{p}" for part in ("ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj") for p in linear]
    expected = {
        "text.token_embedding.weight",
        "text.positional_embedding",
        "text.ln_final.weight",
        "text.ln_final.bias",
    }
    expected |= {f"text.transformer.resblocks.{i}.{name}" for i in range(2) for name in block}
    assert set(toy_encoder().state_dict()) == expected


def test_official_size_on_the_meta_device():
    with torch.device("meta"):
        encoder = build(load_config("models/clip_text_vit_l14"))
    assert all(tensor.is_meta for tensor in [*encoder.parameters(), *encoder.buffers()])
    assert sum(p.numel() for p in encoder.parameters()) == 123_060_480  # as transformers' CLIPTextModel
    assert encoder.tokenizer([""]).shape == (1, 77)


def test_a_tokenizer_of_other_sizes_is_refused():
    tokenizer = WordTokenizer(["a"], context_length=4)
    with refused("vocab_size", 5, 3):
        ClipTextEncoder(5, 4, width=8, layers=1, heads=1, tokenizer=tokenizer)
    with refused("context_length", 6, 4):
        ClipTextEncoder(3, 6, width=8, layers=1, heads=1, tokenizer=tokenizer)
