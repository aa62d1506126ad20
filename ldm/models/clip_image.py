"""CLIP's image tower, and Paint by Example's bottleneck of an exemplar on top of it.

CLIP: Radford et al., 2103.00020. The bottleneck (one class token, so that copying the exemplar is impossible) and the
learnable unconditional vector: Yang et al., 2211.13227, section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.models.attention import attend
from ldm.models.clip_transformer import VisionTransformer
from ldm.models.layers import normal_init
from ldm.utils.errors import UserError

TOKENS = ("class", "all")


class ClipImageEncoder(nn.Module):
    """A vision transformer that gives one vector per image: the class token after the last layer norm, not projected.

    Parameters are under `visual.`, with open_clip's names.

    Args:
        image_size: side of the square input in pixels, a multiple of `patch_size`.
        mlp_ratio: hidden width of the MLPs over `width`.
    """

    def __init__(self, image_size: int, patch_size: int, width: int, layers: int, heads: int, mlp_ratio: float = 4.0):
        super().__init__()
        self.image_size = image_size
        self.width = width
        self.visual = VisionTransformer(image_size, patch_size, width, layers, heads, mlp_ratio)

    @property
    def length(self) -> int:
        """The number of tokens of an image: the class token and one for each patch."""
        return len(self.visual.positional_embedding)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the class tokens (B, width) of images (B, 3, S, S), normalised by `clip_normalise`."""
        return self.tokens(pixels)[:, 0]

    def tokens(self, pixels: Tensor) -> Tensor:
        """Return all tokens after the last layer norm, (B, length, width), the class token first."""
        return self.visual(pixels)


class ProjectedClip(nn.Module):
    """CLIP's image tower with its projection into the space of texts, not scaled to length 1.

    Args:
        projection: a layer without a bias, of `encoder.width` inputs.
    """

    def __init__(self, encoder: ClipImageEncoder, projection: nn.Linear):
        super().__init__()
        self.encoder = encoder
        self.projection = projection

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the projections (B, embed_dim) of images (B, 3, S, S), normalised by `clip_normalise`."""
        return self.projection(self.encoder(pixels))


class ExemplarConditioner(nn.Module):
    """A conditioner that makes the context of the UNet's cross-attention from an exemplar image.

    Args:
        encoder: usually frozen; everything else here is trained.
        context_dim: channels of a token, as the UNet's `context_dim`.
        mapper_layers: depth of the mapper between CLIP's tokens and the context.
        tokens: `class`, the paper's bottleneck of one token (L = 1), or `all` (L = `encoder.length`), with which the
            paper compares it: every patch is in the context, and can be copied.
    """

    def __init__(self, encoder: ClipImageEncoder, context_dim: int, mapper_layers: int = 5, tokens: str = "class"):
        super().__init__()
        if tokens not in TOKENS:
            raise UserError(f"tokens {tokens!r}: expected one of {', '.join(TOKENS)}")
        self.encoder = encoder
        self.tokens = tokens
        self.mapper = Mapper(encoder.width, mapper_layers)
        self.final_ln = nn.LayerNorm(encoder.width)
        self.proj_out = nn.Linear(encoder.width, context_dim)
        self.learnable_vector = normal_init(nn.Parameter(torch.empty(1, 1, context_dim)))

    @property
    def image_size(self) -> int:
        """The side in pixels of the exemplars that `forward` takes."""
        return self.encoder.image_size

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the context (B, L, context_dim) of exemplars (B, 3, S, S), normalised by `clip_normalise`."""
        return self.bottleneck(self.encode(pixels))

    def encode(self, pixels: Tensor) -> Tensor:
        """Run the frozen part: exemplars (B, 3, S, S) -> CLIP's tokens (B, L, width), which can be cached."""
        return self.encoder(pixels)[:, None] if self.tokens == "class" else self.encoder.tokens(pixels)

    def bottleneck(self, tokens: Tensor) -> Tensor:
        """Run the trained part: (B, L, width) -> (B, L, context_dim)."""
        return self.proj_out(self.final_ln(self.mapper(tokens)))

    @property
    def length(self) -> int:
        """The number of tokens of a context, L."""
        return 1 if self.tokens == "class" else self.encoder.length

    def unconditional(self, batch: int) -> Tensor:
        """Return the learnt context of "no exemplar", (batch, L, context_dim), which bypasses mapper and projection."""
        return self.learnable_vector.expand(batch, self.length, -1)


class Mapper(nn.Module):
    """Pre-norm transformer blocks over (B, L, width); L is 1 in Paint by Example."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.resblocks = nn.ModuleList(MapperBlock(width) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resblocks:
            x = block(x)
        return x


class MapperBlock(nn.Module):
    """Self-attention and an MLP, each applied to norm(x) and added to x."""

    def __init__(self, width: int):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = MapperAttention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MapperMLP(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class MapperAttention(nn.Module):
    """Self-attention with one head and fused projections. Over a single token it is the linear map `c_proj(v)`."""

    def __init__(self, width: int):
        super().__init__()
        self.c_qkv = nn.Linear(width, 3 * width)
        self.c_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_qkv(x).chunk(3, dim=-1)
        return self.c_proj(attend(q, k, v, heads=1))


class MapperMLP(nn.Module):
    """Two layers with a GELU between them, four times as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))
