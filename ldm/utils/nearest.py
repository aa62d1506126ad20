"""A hint for a misspelt word."""

from collections.abc import Iterable
from difflib import SequenceMatcher

ALIKE, FEW = 0.6, 12  # from this likeness on a word is taken for a misspelling; so many words can all be shown


def nearest(word: str, choices: Iterable[str]) -> str:
    """The end of an error line on an unknown word: the choice most like it, or all of a few where none is alike.

    Case does not count. A dotted choice is compared by its last part as well: `max_step` is near `trainer.max_steps`.
    """
    choices = sorted(choices, key=len)
    likeness = {
        choice: max(
            SequenceMatcher(None, word.lower(), part.lower()).ratio() for part in (choice, choice.rpartition(".")[2])
        )
        for choice in choices
    }
    best = max(choices, key=likeness.get, default="")
    if best and likeness[best] >= ALIKE:
        return f"did you mean {best}?"
    if len(choices) <= FEW:
        return f"expected one of {', '.join(choices) or 'none'}"
    return f"the nearest is {best}"
