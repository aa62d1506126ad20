"""The exception for wrong input, as opposed to a bug, and its handling where only some parts of a job fail."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


class UserError(ValueError):
    """Wrong input from the user: one line that names the file, key or value and what was expected.

    It stays one line across processes: a DataLoader raises a worker's error again with the worker's whole traceback as
    its message, from which the original message is extracted.

    Attributes:
        exit_code: of a command that ends with this error.
    """

    exit_code = 2

    def __init__(self, message: str):
        _, _, own = message.rpartition(f"{__name__}.{type(self).__qualname__}: ")
        super().__init__(own.strip() if "\nOriginal Traceback" in message else message)


class SomeFailed(UserError):
    """The error of a command of which some parts have failed and the others are done."""

    exit_code = 4


def reason(error: Exception) -> str:
    """Return the reason of an error of the operating system, or of another one, in one line to end a message."""
    cause = getattr(error, "strerror", None)
    return cause.lower() if cause else " ".join(str(error).split())


def attempt(function: Callable[..., T], *arguments: Any) -> T | UserError:
    """Call a function, and return its result or the UserError that it raises."""
    try:
        return function(*arguments)
    except UserError as error:
        return error


def report_failures(lines: Sequence[str], what: str) -> None:
    """Log failures, one line each, and raise an error if there are any.

    Args:
        what: the things that failed, for the last line: "of 9 jobs".

    Raises:
        SomeFailed: there is at least one failure.
    """
    for line in lines:
        log.error("error: %s", " ".join(line.split()))
    if lines:
        raise SomeFailed(f"{len(lines)} {what} failed")
