"""The two towers of CLIP (Radford et al., 2103.00020), with open_clip's parameter names.

They are written here because importing open_clip takes longer than the rest of an edit.
"""

from collections import OrderedDict

import torch
from einops import rearrange
from torch import Tensor, nn

from ldm.models.layers import normal_init


class VisionTransformer(nn.Module):
    """CLIP's image tower: a token for each patch, and a class token before them.

    Args:
        image_size: side of the square input in pixels, a multiple of `patch_size`.
        mlp_ratio: hidden width of the MLPs over `width`.
    """

    def __init__(self, image_size: int, patch_size: int, width: int, layers: int, heads: int, mlp_ratio: float):
        super().__init__()
        length, scale = (image_size // patch_size) ** 2 + 1, width**-0.5
        self.conv1 = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size, bias=False)
        self.class_embedding = normal_init(nn.Parameter(torch.empty(width)), scale)
        self.positional_embedding = normal_init(nn.Parameter(torch.empty(length, width)), scale)
        self.ln_pre = LayerNorm(width)
        self.transformer = Transformer(width, layers, heads, mlp_ratio)
        self.ln_post = LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, length, width), after the last layer norm, the class token first."""
        patches = rearrange(self.conv1(pixels), "b c h w -> b (h w) c")
        class_token = self.class_embedding.expand(len(patches), 1, -1).to(patches.dtype)
        x = torch.cat([class_token, patches], dim=1) + self.positional_embedding.to(patches.dtype)
        return self.ln_post(self.transformer(self.ln_pre(x)))


class TextTransformer(nn.Module):
    """CLIP's text tower; no token sees a later one."""

    def __init__(self, vocab_size: int, context_length: int, width: int, layers: int, heads: int):
        super().__init__()
        embedding = normal_init(nn.Parameter(torch.empty(vocab_size, width)), std=0.02)
        self.token_embedding = nn.Embedding.from_pretrained(embedding, freeze=False)
        self.positional_embedding = normal_init(nn.Parameter(torch.empty(context_length, width)), std=0.01)
        self.transformer = Transformer(width, layers, heads, mlp_ratio=4.0)
        self.ln_final = LayerNorm(width)
        for block in self.transformer.resblocks:  # OpenAI's initialisation
            normal_init(block.attn.in_proj_weight, width**-0.5)
            normal_init(block.attn.out_proj.weight, (2 * layers * width) ** -0.5)
            normal_init(block.mlp.c_fc.weight, (2 * width) ** -0.5)
            normal_init(block.mlp.c_proj.weight, (2 * layers * width) ** -0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (B, L) int64 to (B, L, width), after the last layer norm."""
        length = ids.shape[1]
        x = self.token_embedding(ids) + self.positional_embedding[:length]
        causal = x.new_full((length, length), float("-inf")).triu(1)
        return self.ln_final(self.transformer(x, causal))


class Transformer(nn.Module):
    """Pre-norm blocks over (B, L, width)."""

    def __init__(self, width: int, layers: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map (B, L, width) to itself; mask (L, L) is added to the attention's logits."""
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Block(nn.Module):
    """Self-attention and an MLP, each applied to norm(x) and added to x."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.ln_1 = LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(c_fc=nn.Linear(width, hidden), gelu=QuickGELU(), c_proj=nn.Linear(hidden, width))
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class LayerNorm(nn.LayerNorm):
    """A layer norm in the precision of its input, which autocast does not keep."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(x.dtype)


class QuickGELU(nn.Module):
    """OpenAI's approximation of the GELU (1606.08415, section 2)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)
