"""CLIP's text tower (Radford et al., 2103.00020), used as in Stable Diffusion: every token, not only the last."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ldm.models.clip_transformer import TextTransformer
from ldm.models.tokenizer import Tokenizer
from ldm.utils.errors import UserError


class ClipTextEncoder(nn.Module):
    """A causal transformer over token ids. Parameters are under `text.`, with open_clip's names; no projection.

    Args:
        vocab_size, context_length: those of the tokenizer.
        tokenizer: prompts to ids (B, context_length), with `vocab_size`, `context_length` and `end`.

    Raises:
        UserError: the tokenizer has other sizes.
    """

    def __init__(self, vocab_size: int, context_length: int, width: int, layers: int, heads: int, tokenizer: Tokenizer):
        super().__init__()
        for name, value in {"vocab_size": vocab_size, "context_length": context_length}.items():
            if getattr(tokenizer, name) != value:
                raise UserError(f"text encoder: {name} {value}, expected the tokenizer's {getattr(tokenizer, name)}")
        self.width = width
        self.tokenizer = tokenizer
        self.text = TextTransformer(vocab_size, context_length, width, layers, heads)

    def forward(self, ids: Tensor) -> Tensor:
        """Map token ids (B, L) int64 to (B, L, width), after the last layer norm; no token sees a later one."""
        return self.text(ids)

    def pooled(self, ids: Tensor) -> Tensor:
        """Return one vector for each prompt, (B, width): the output at its (first) end token."""
        is_end = (ids == self.tokenizer.end).int()
        return self(ids)[torch.arange(len(ids), device=ids.device), is_end.argmax(dim=1)]


class TextConditioner(nn.Module):
    """A conditioner that makes the context of the UNet's cross-attention from prompts."""

    def __init__(self, encoder: ClipTextEncoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """Return the context (B, L, width) of B prompts."""
        return self.encode(self.encoder.tokenizer(prompts))

    def encode(self, ids: Tensor) -> Tensor:
        """Return the context (B, L, width) of token ids (B, L), on any device."""
        return self.encoder(ids.to(self.encoder.text.positional_embedding.device))

    def unconditional(self, batch: int) -> Tensor:
        """Return the context of the empty prompt, (batch, L, width)."""
        return self([""]).expand(batch, -1, -1)
