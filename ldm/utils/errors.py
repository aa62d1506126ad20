"""The one exception that means "the input is wrong", not "the code is wrong"; and what to do where much is right."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """Bad input from the person at the keyboard: one line naming the file, key or value and what was expected.

    It stays one line when it crosses a process border: a DataLoader raises a worker's error anew as the worker's whole
    traceback, of which the message is what stands behind the exception's name in the last place.

    Attributes:
        exit_code: what a script ends with.
    """

    exit_code = 2

    def __init__(self, message: str):
        _, _, own = message.rpartition(f"{__name__}.{type(self).__qualname__}: ")
        super().__init__(own.strip() if "\nOriginal Traceback" in message else message)


class SomeFailed(UserError):
    """Some parts of a work have failed; the others are done."""

    exit_code = 4


def attempt(function: Callable[..., T], *arguments: Any) -> T | UserError:
    """Return what a function returns, or the UserError that it raises."""
    try:
        return function(*arguments)
    except UserError as error:
        return error


def tell_failed(lines: Sequence[str], what: str) -> None:
    """Say on stderr what has failed, a line each.

    Args:
        what: they are, for the last line: "of 9 jobs".

    Raises:
        SomeFailed: there is one.
    """
    for line in lines:
        print(f"error: {' '.join(line.split())}", file=sys.stderr)
    if lines:
        raise SomeFailed(f"{len(lines)} {what} failed")
