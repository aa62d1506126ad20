import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ldm.models.attention import GEGLU, Attention, AttentionBlock, AttentionPool, SpatialTransformer, attend, to_tokens
from tests.golden_weights import fill


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_attention(q, k, v, heads):
    """The textbook formula, one image and one head at a time."""
    out = torch.empty_like(q)
    d = q.shape[2] // heads
    for b in range(q.shape[0]):
        for h in range(heads):
            part = slice(h * d, (h + 1) * d)
            weights = torch.exp(q[b, :, part] @ k[b, :, part].T / math.sqrt(d))
            out[b, :, part] = weights / weights.sum(1, keepdim=True) @ v[b, :, part]
    return out


@pytest.mark.parametrize("heads", [1, 4])
def test_attend_is_the_textbook_formula(heads):
    q, k, v = noise(2, 5, 16, seed=1), noise(2, 7, 16, seed=2), noise(2, 7, 16, seed=3)
    expected = naive_attention(q, k, v, heads)
    torch.testing.assert_close(attend(q, k, v, heads), expected, atol=1e-13, rtol=0)
    torch.testing.assert_close(attend(q.float(), k.float(), v.float(), heads), expected.float(), atol=2e-6, rtol=0)


def test_images_as_tokens_take_the_fused_kernel():
    """It is refused where the channels of a view are strided; the fallback makes the whole L x L matrix."""
    q, k, v = (to_tokens(noise(2, 16, 3, 5, seed=seed)) for seed in (1, 2, 3))
    assert q.stride(2) != 1
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        fused = attend(q, k, v, 2)
    torch.testing.assert_close(fused, naive_attention(q, k, v, 2), atol=1e-13, rtol=0)


def test_cross_attention():
    layer = fill(Attention(query_dim=16, heads=4, context_dim=6)).double()
    x, context = noise(2, 5, 16), noise(2, 3, 6)
    q, k, v = x @ layer.to_q.weight.T, context @ layer.to_k.weight.T, context @ layer.to_v.weight.T
    expected = naive_attention(q, k, v, 4) @ layer.to_out[0].weight.T + layer.to_out[0].bias
    torch.testing.assert_close(layer(x, context), expected, atol=1e-13, rtol=0)
    one = context[:, :1]
    torch.testing.assert_close(layer.of_one_token(one).expand(-1, 5, -1), layer(x, one), atol=1e-13, rtol=0)


@pytest.mark.parametrize("new_order", [False, True])
def test_both_orders_of_q_k_v(new_order):
    channels, heads, d = 64, 4, 16
    block = fill(AttentionBlock(channels, heads, new_order)).double()
    x = noise(2, channels, 3, 5)
    rows = block.qkv(F.group_norm(x, 32, block.norm.weight, block.norm.bias, 1e-5).flatten(2))  # (B, 3 C, L)
    if new_order:  # q of all heads, k of all heads, v of all heads
        q, k, v = rows[:, :channels], rows[:, channels : 2 * channels], rows[:, 2 * channels :]
    else:  # q, k, v of the first head, q, k, v of the second ...
        starts = range(0, 3 * channels, 3 * d)
        q, k, v = (torch.cat([rows[:, s + i * d : s + (i + 1) * d] for s in starts], dim=1) for i in range(3))
    attended = naive_attention(*(part.transpose(1, 2) for part in (q, k, v)), heads).transpose(1, 2)
    expected = x + block.proj_out(attended).reshape(x.shape)
    torch.testing.assert_close(block(x), expected, atol=1e-13, rtol=0)


def test_the_pool_is_what_the_mean_attends_to():
    channels, heads, d, side = 64, 4, 16, 3
    pool = fill(AttentionPool(side, channels, heads, out_channels=5)).double()
    x = noise(2, channels, side, side)
    expected = torch.empty(2, 5, dtype=torch.float64)
    for b in range(2):
        places = [x[b].mean((1, 2)), *(x[b, :, i, j] for i in range(side) for j in range(side))]
        tokens = torch.stack(places) + pool.positional_embedding.T
        rows = tokens @ pool.qkv_proj.weight[:, :, 0].T + pool.qkv_proj.bias  # q of all heads, then k, then v
        answer = torch.empty(channels, dtype=torch.float64)
        for h in range(heads):
            q, k, v = (rows[:, start + h * d : start + (h + 1) * d] for start in (0, channels, 2 * channels))
            weights = torch.exp(k @ q[0] / math.sqrt(d))
            answer[h * d : (h + 1) * d] = (weights[:, None] * v).sum(0) / weights.sum()
        expected[b] = pool.c_proj.weight[:, :, 0] @ answer + pool.c_proj.bias
    torch.testing.assert_close(pool(x), expected, atol=1e-13, rtol=0)


def test_geglu_gates_with_the_exact_gelu():
    layer = fill(GEGLU(8, 6)).double()
    x = noise(3, 8)
    value, gate = F.linear(x, layer.proj.weight, layer.proj.bias).split(6, dim=1)
    expected = value * gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    torch.testing.assert_close(layer(x), expected, atol=1e-14, rtol=0)


def test_attention_layers_start_as_the_identity():
    x = noise(2, 32, 3, 5)
    assert torch.equal(AttentionBlock(32, 4).double()(x), x)
    assert torch.equal(SpatialTransformer(32, 4, 6).double()(x, noise(2, 3, 6)), x)
