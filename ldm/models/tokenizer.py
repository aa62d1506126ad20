"""Tokenizers of prompts: CLIP's byte pair encoding, and a plain word list for small worlds.

Both map a list of prompts to (B, context_length) int64 ids: start, tokens, end, and padding with the end token. Both
have `vocab_size`, `context_length`, `start` and `end`.
"""

import logging
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ldm.utils.errors import UserError

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

SHOWN = 200  # characters of the cut part of a prompt

log = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """The interface of a tokenizer for the text encoder."""

    vocab_size: int
    context_length: int
    start: int
    end: int

    def __call__(self, prompts: Sequence[str]) -> Tensor: ...


class ClipTokenizer:
    """CLIP's tokenizer: 49,408 tokens, 77 per prompt.

    Padded with the end token, as Stable Diffusion was trained (open_clip pads with 0). The text is cleaned as in
    `transformers`: Unicode NFC, runs of white space to one space, lower case. open_clip would also repair mojibake and
    decode HTML entities. Over-long prompts are cut so that the end token comes last, and a warning says what was cut.
    The control words `<|startoftext|>` and `<|endoftext|>` inside a prompt are read as ordinary text.
    """

    vocab_size, context_length = 49_408, 77
    start, end = 49_406, 49_407

    @cached_property
    def _bpe(self) -> "SimpleTokenizer":
        from open_clip.tokenizer import SimpleTokenizer  # slow to import, and most models do without it

        bpe = SimpleTokenizer()
        bpe.clean_fn = _clean
        return bpe

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Return the ids (B, 77) int64 of prompts."""
        return _padded([self._encode(prompt) for prompt in prompts], self.start, self.end, self.context_length)

    def _encode(self, prompt: str) -> list[int]:
        tokens, limit = self._bpe.encode(prompt), self.context_length - 2
        if len(tokens) > limit:
            _warn_of_cut(len(tokens), limit, self._bpe.decode(tokens[limit:]).strip())
        return tokens[:limit]


class WordTokenizer:
    """A tokenizer with one id per word of a closed list: 0 = end and padding, 1 = start, then the words in order.

    Args:
        words: distinct lower-case words without punctuation.
        context_length: ids per prompt, start and end included.
    """

    start, end = 1, 0

    def __init__(self, words: Sequence[str], context_length: int):
        for word in words:
            if _words(word) != [word]:
                raise UserError(f"tokenizer: word {word!r}, expected one lower-case word without punctuation")
        self._ids = {word: i for i, word in enumerate(words, start=2)}
        if len(self._ids) < len(words):
            raise UserError(
                f"tokenizer: {len(words) - len(self._ids)} words given more than once, expected distinct words"
            )
        self.vocab_size = len(words) + 2
        self.context_length = context_length

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Return the ids (B, context_length) int64 of prompts; case and punctuation are ignored.

        Raises:
            UserError: a word is not in the list, or a prompt is too long.
        """
        return _padded([self._encode(prompt) for prompt in prompts], self.start, self.end, self.context_length)

    def _encode(self, prompt: str) -> list[int]:
        words = _words(prompt)
        if unknown := [word for word in words if word not in self._ids]:
            known = list(self._ids)
            listed = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
            raise UserError(f"prompt {prompt!r}: unknown word {unknown[0]!r}, expected one of {listed}")
        if len(words) > self.context_length - 2:
            raise UserError(f"prompt {prompt!r}: {len(words)} words, expected at most {self.context_length - 2}")
        return [self._ids[word] for word in words]


@lru_cache(maxsize=256)  # a prompt is encoded many times in a run: warn once
def _warn_of_cut(count: int, limit: int, cut: str) -> None:
    shown = cut if len(cut) <= SHOWN else f"{cut[:SHOWN]}..."
    log.warning("prompt of %d tokens, only %d fit; cut off: %r", count, limit, shown)


def _clean(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split()).lower()


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _padded(rows: list[list[int]], start: int, end: int, length: int) -> Tensor:
    ids = torch.full((len(rows), length), end, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row) + 1] = torch.tensor([start, *row])
    return ids
