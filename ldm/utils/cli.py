"""What every script shares: one-line errors with exit code 2, tracebacks only for bugs."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence

from ldm.utils.errors import UserError


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        nothing = action.default is None or action.default is False or action.default in ("", [], argparse.SUPPRESS)
        told = "(default" in (action.help or "")
        return action.help if nothing or told else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that shows defaults, accepts no abbreviations and answers a wrong flag in one line."""

    def __init__(self, description: str):
        super().__init__(description=description, formatter_class=HelpFormatter, allow_abbrev=False)

    def error(self, message: str):
        self.exit(2, f"error: {message}\n")


def sort_overrides(files: Sequence[str], overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Config files and `key=value` apart: behind `--base FILE` argparse takes overrides for further files."""
    given = [*files, *overrides]
    return [word for word in given if "=" not in word], [word for word in given if "=" in word]


def note_unused(flags: Iterable[str]) -> None:
    """Say on stderr which of the given flags do nothing."""
    if flags := list(flags):
        print(f"note: {', '.join(flags)}: accepted for the original's sake, without effect", file=sys.stderr)


def run(main: Callable[[], None]) -> None:
    """Run a script's main: UserError -> one line on stderr, exit code 2; any other exception is a bug and is shown.

    SIGTERM ends it as Ctrl-C does, so that temporary files are removed on the way out.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        main()
    except UserError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)  # one line, whatever is in it
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `script | head`: the reader has left, which is no bug
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
