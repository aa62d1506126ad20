"""The wording of messages, some of each kind from every package, against one text that is made to be read.

`python -m tests.test_messages` writes it anew; git then shows what has changed.
"""

import difflib
import io
import logging
import tempfile
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from ldm.utils.errors import UserError
from ldm.utils.project import ROOT
from tests.provoked import CASES, prepare

GOLDEN = Path(__file__).parent / "golden" / "messages.txt"


class Kept(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines, self.messages = [], set()

    def emit(self, record: logging.LogRecord) -> None:
        level, message = record.levelname.lower(), record.getMessage()
        self.messages.add(message)
        self.lines.append(message if message.startswith(level) else f"{level}: {message}")


def said(call: Callable[[Path], object], folder: Path) -> list[str]:
    """The lines that a user would see: warnings, what is printed on stderr, and the refusal."""
    kept, err, end = Kept(), io.StringIO(), []
    logging.getLogger().addHandler(kept)
    try:
        with chdir(folder), redirect_stderr(err), redirect_stdout(io.StringIO()):
            call(folder)
    except UserError as error:
        end = [f"error: {error}"]
    except SystemExit:
        pass  # it has been printed
    finally:
        logging.getLogger().removeHandler(kept)
    printed = [line for line in err.getvalue().splitlines() if line not in kept.messages]  # commands show the log too
    return [*kept.lines, *printed, *end]


def all_of_them() -> str:
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        lines = []
        for package, cases in CASES.items():
            for name, call in cases.items():
                found = said(call, Path(folder)) or ["(nothing)"]
                lines += [f"[{package}] {name}", *(f"  {line}" for line in found), ""]
    return "\n".join(lines).replace(folder, "FOLDER").replace(str(ROOT), "ROOT")


def test_messages_read_as_they_did():
    expected, found = GOLDEN.read_text(encoding="utf-8"), all_of_them()
    changes = difflib.unified_diff(expected.splitlines(), found.splitlines(), "golden", "now", lineterm="")
    assert found == expected, "\n".join(
        ["messages have changed; `python -m tests.test_messages` writes them anew", *changes]
    )
    assert "(nothing)" not in found


if __name__ == "__main__":
    GOLDEN.write_text(all_of_them(), encoding="utf-8")
    print(GOLDEN)
