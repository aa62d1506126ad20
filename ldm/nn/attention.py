"""Attention bricks: what a U-Net of Stable Diffusion (Rombach et al., 2112.10752) or of ADM (2105.05233) puts at low resolutions.

Parameter names are those of the official checkpoints. All attention runs through `attend`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head softmax(q k^T / sqrt(d)) v (1706.03762, equation 1), with d = C / heads.

    q (B, L, C), k and v (B, M, C), heads stored one after another in C -> (B, L, C).
    """
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, L, d)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C), a view."""
    return x.flatten(2).transpose(1, 2)


def to_image(tokens: Tensor, like: Tensor) -> Tensor:
    """(B, H W, C) -> (B, C, H, W), a view, with the height and width of `like`."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:])
