"""Attention layers of the U-Nets of Stable Diffusion (2112.10752) and of ADM (2105.05233).

Parameter names are those of the official checkpoints. All attention runs through `attend`.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ldm.models.layers import normal_init, zero_init


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Return multi-head attention, softmax(q k^T / sqrt(d)) v (1706.03762, equation 1), with d = C / heads.

    q (B, L, C), k and v (B, M, C) -> (B, L, C); the heads follow one another in C.
    """
    q, k, v = (x.contiguous() for x in (q, k, v))  # the fused kernels take no views with strided channels
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, L, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def to_tokens(x: Tensor) -> Tensor:
    """Return (B, C, H, W) as (B, H W, C), a view."""
    return rearrange(x, "b c h w -> b (h w) c")


def to_image(tokens: Tensor, like: Tensor) -> Tensor:
    """Return (B, H W, C) as (B, C, H, W), a view, with the height and width of `like`."""
    return rearrange(tokens, "b (h w) c -> b c h w", h=like.shape[2])


class Attention(nn.Module):
    """Attention of x (B, L, query_dim) to the context (B, M, context_dim), or to itself without a context."""

    def __init__(self, query_dim: int, heads: int, context_dim: int | None = None):
        super().__init__()
        context_dim = query_dim if context_dim is None else context_dim
        self.heads = heads
        self.to_q = nn.Linear(query_dim, query_dim, bias=False)
        self.to_k = nn.Linear(context_dim, query_dim, bias=False)
        self.to_v = nn.Linear(context_dim, query_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(query_dim, query_dim))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        return self.to_out(attend(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))

    def of_one_token(self, context: Tensor) -> Tensor:
        """Return the output of every position for a context of one token, (B, 1, query_dim): the softmax is 1."""
        return self.to_out(self.to_v(context))


class GEGLU(nn.Module):
    """A linear layer gated by the exact GELU of a second one (2002.05202)."""

    def __init__(self, dim_in: int, dim_out: int):
        super().__init__()
        self.proj = nn.Linear(dim_in, 2 * dim_out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """Two layers with a GEGLU between them, four times as wide inside."""

    def __init__(self, dim: int):
        super().__init__()
        self.net = nn.Sequential(
            GEGLU(dim, 4 * dim), nn.Identity(), nn.Linear(4 * dim, dim)
        )  # [1]: a dropout in the official code

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the context and a feed-forward layer, each applied to norm(x) and added to x."""

    def __init__(self, dim: int, heads: int, context_dim: int):
        super().__init__()
        self.attn1 = Attention(dim, heads)
        self.ff = FeedForward(dim)
        self.attn2 = Attention(dim, heads, context_dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map x (B, L, dim) and context (B, M, context_dim) to (B, L, dim)."""
        x = x + self.attn1(self.norm1(x))
        if context.shape[1] == 1 and not (torch.is_grad_enabled() and self.norm2.weight.requires_grad):
            x = x + self.attn2.of_one_token(context)  # the same at all positions, whatever x is
        else:  # data-parallel training needs every trained parameter to take part
            x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the positions of x (B, C, H, W), given tokens (B, M, context_dim); added to x."""

    def __init__(self, channels: int, heads: int, context_dim: int, depth: int = 1):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(channels, heads, context_dim) for _ in range(depth))
        self.proj_out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = to_tokens(self.proj_in(self.norm(x)))
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + self.proj_out(to_image(h, like=x))


class AttentionBlock(nn.Module):
    """Self-attention over the positions of x (B, C, H, W), added to x, as in guided-diffusion.

    One projection makes q, k and v, in either of two orders: head by head (q, k, v of head 1, of head 2, ...), or with
    `new_order` all heads of q, then of k, then of v.
    """

    def __init__(self, channels: int, heads: int, new_order: bool = False):
        super().__init__()
        self.heads = heads
        self.new_order = new_order
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_init(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x).flatten(2)).transpose(1, 2)  # (B, H W, 3 C)
        order = "(qkv h d)" if self.new_order else "(h qkv d)"
        q, k, v = rearrange(qkv, f"b l {order} -> qkv b l (h d)", qkv=3, h=self.heads)
        h = self.proj_out(attend(q, k, v, self.heads).transpose(1, 2))  # (B, C, H W)
        return x + h.unflatten(2, x.shape[2:])


class AttentionPool(nn.Module):
    """Attention pooling of an image into one vector: (B, channels, side, side) -> (B, out_channels).

    ADM's classifier (2105.05233, section 4) has it from CLIP (2103.00020, section 2.3): the mean of all positions is
    prepended as a token, every token gets a positional embedding, and the output for the mean is returned.
    """

    def __init__(self, side: int, channels: int, heads: int, out_channels: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = normal_init(nn.Parameter(torch.empty(channels, side**2 + 1)), channels**-0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)  # (B, C, side^2)
        tokens = torch.cat([tokens.mean(2, keepdim=True), tokens], dim=2) + self.positional_embedding
        q, k, v = self.qkv_proj(tokens).transpose(1, 2).chunk(3, dim=2)  # (B, 1 + side^2, C), heads one after another
        pooled = attend(q[:, :1], k, v, self.heads)  # the other queries' outputs are not used
        return self.c_proj(pooled.transpose(1, 2)).flatten(1)
