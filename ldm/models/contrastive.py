"""CLIP for contrastive training: two towers with a joint space (Radford et al., 2103.00020, figure 3)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.models.clip_image import ClipImageEncoder
from ldm.models.clip_text import ClipTextEncoder
from ldm.models.tokenizer import Tokenizer


class ContrastiveClip(nn.Module):
    """Two encoders to unit vectors, of images and texts, whose inner product is their similarity, the "CLIP score".

    Args:
        image_encoder, text_encoder: the towers; their widths may differ.
        embed_dim: size of the joint space.
    """

    def __init__(self, image_encoder: ClipImageEncoder, text_encoder: ClipTextEncoder, embed_dim: int):
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_projection = nn.Linear(image_encoder.width, embed_dim, bias=False)
        self.text_projection = nn.Linear(text_encoder.width, embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # log of the inverse temperature

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the text encoder."""
        return self.text_encoder.tokenizer

    def forward(self, pixels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Map CLIP-normalised images (B, 3, S, S) and ids (N, L) to unit vectors (B, embed_dim) and (N, embed_dim).

        The training logits are `logit_scale.exp() * image_features @ text_features.T`.
        """
        return self.encode_image(pixels), self.encode_text(ids)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Return the unit vectors (B, embed_dim) of images (B, 3, S, S), CLIP-normalised."""
        return F.normalize(self.image_projection(self.image_encoder(pixels)), dim=-1)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Return the unit vectors (N, embed_dim) of token ids (N, L)."""
        return F.normalize(self.text_projection(self.text_encoder.pooled(ids)), dim=-1)
