"""CLIP's towers against open_clip's."""

import open_clip.transformer as peer
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from ldm.models.clip_transformer import TextTransformer, VisionTransformer

WIDTH, LAYERS, HEADS = 128, 2, 4
VOCABULARY, LENGTH = 50, 7


def towers(kind: str) -> tuple[nn.Module, nn.Module]:
    """Ours and open_clip's, each as it starts."""
    torch.manual_seed(0)
    if kind == "image":
        theirs = peer.VisionTransformer(16, 4, WIDTH, LAYERS, HEADS, 3.5, act_layer=peer.QuickGELU, output_tokens=True)
        theirs.proj = None
        return VisionTransformer(16, 4, WIDTH, LAYERS, HEADS, mlp_ratio=3.5), theirs
    theirs = peer.TextTransformer(
        LENGTH, VOCABULARY, WIDTH, HEADS, LAYERS, proj_type="none", act_layer=peer.QuickGELU, output_tokens=True
    )
    return TextTransformer(VOCABULARY, LENGTH, WIDTH, LAYERS, HEADS), theirs


def all_tokens(kind: str, theirs: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    pooled, tokens = theirs(inputs)
    return torch.cat([pooled[:, None], tokens], dim=1) if kind == "image" else tokens


@pytest.mark.parametrize("grad", [False, True])  # PyTorch's attention takes another path without gradients
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "autocast"])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_tower_is_open_clips(kind, precision, grad):
    ours, theirs = (tower.eval() for tower in towers(kind))
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(3, 3, 16, 16) if kind == "image" else torch.randint(VOCABULARY, (3, LENGTH))
    if precision == "bfloat16":
        ours, theirs = ours.bfloat16(), theirs.bfloat16()
        inputs = inputs.bfloat16() if kind == "image" else inputs
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        got, expected = ours(inputs), all_tokens(kind, theirs, inputs)
    assert got.dtype == expected.dtype
    assert_close(got, expected)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_tower_starts_as_open_clips(kind):
    """The same names in the same order, and the same spread of values; constants are the same."""
    ours, theirs = (tower.state_dict() for tower in towers(kind))
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        if value.unique().numel() == 1:
            assert torch.equal(ours[name], value), name
        else:
            assert ours[name].std() / value.std() == pytest.approx(1, abs=5 / value.numel() ** 0.5), name
