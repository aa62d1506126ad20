"""What a refusal has to tell, and never in which words: those are in golden/messages.txt."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from subprocess import CompletedProcess

import pytest

from ldm.utils.errors import UserError


def mentions(text: str, mention: object) -> bool:
    """Is it there as a whole: neither `4` in `40` and `0.4`, nor `mask` in `masked`?"""
    word = str(mention)
    before = r"(?<![\w.-])" if word[:1].isdigit() else r"(?<!\w)" if word[:1].isalnum() else ""
    after = r"(?!\w|\.\d)" if word[-1:].isdigit() else r"(?!\w)" if word[-1:].isalnum() else ""
    return re.search(before + re.escape(word) + after, text) is not None


def assert_mentions(text: str, *wanted: object) -> None:
    """Every one of these is in the text. A lone string counts as one word to mention, a tuple as several."""
    missing = [str(mention) for mention in flat(wanted) if not mentions(text, mention)]
    assert not missing, f"no {missing} in: {text}"


def flat(wanted: Iterable[object]) -> Iterator[object]:
    for mention in wanted:
        if isinstance(mention, tuple | list):
            yield from flat(mention)
        else:
            yield mention


@contextmanager
def refused(*wanted: object, error: type[BaseException] = UserError) -> Iterator[pytest.ExceptionInfo]:
    """What is done inside is refused: in one line, which mentions all of these, with an error of this very type."""
    with pytest.raises(error) as caught:
        yield caught
    assert type(caught.value) is error
    assert_line(str(caught.value), *wanted)


def refusal_of(call: Callable, *arguments: object, **options: object) -> str:
    """The one line with which a call is refused."""
    with refused() as caught:
        call(*arguments, **options)
    return str(caught.value)


def assert_line(text: str, *wanted: object) -> None:
    """The text is one line, which mentions all of these."""
    assert text and "\n" not in text, text
    assert_mentions(text, *wanted)


def assert_refused(
    done: CompletedProcess | tuple[int, str, str], *wanted: object, code: int = 2, stdout: bool = False
) -> None:
    """A command has ended with this code, and with one line on stderr, which mentions all of these.

    Args:
        done: the process, or its exit code, stdout and stderr.
        stdout: whether it may have printed something before.
    """
    if isinstance(done, CompletedProcess):
        done = done.returncode, done.stdout, done.stderr
    found, out, err = done
    assert found == code, err
    assert err.startswith("error: ") and err.endswith("\n") and "Traceback" not in err, err
    assert_line(err.removesuffix("\n"), *wanted)
    assert stdout or out == "", out
