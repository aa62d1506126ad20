"""Hints for misspelt words."""

from collections.abc import Iterable
from difflib import SequenceMatcher

ALIKE, FEW = 0.6, 12  # least similarity of a misspelling; most choices that are all listed


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return a hint on an unknown word for an error message: the most similar choice, or all of a few dissimilar ones.

    Case is ignored. A dotted choice is also compared by its last part: `max_step` is near `trainer.max_steps`.
    """
    choices = sorted(choices, key=len)
    likeness = {
        choice: max(
            SequenceMatcher(None, word.lower(), part.lower()).ratio() for part in (choice, choice.rpartition(".")[2])
        )
        for choice in choices
    }
    best = max(choices, key=likeness.__getitem__, default="")
    if best and likeness[best] >= ALIKE:
        return f"did you mean {best}?"
    if len(choices) <= FEW:
        return f"expected one of {', '.join(choices) or 'none'}"
    return f"the nearest is {best}"
