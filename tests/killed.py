"""A command of `ldm` that gets a signal, with all its processes, at a moment that no machine's load can move.

python -m tests.killed SIGNAL EVENT PATTERN COUNT VERB ...

EVENT is one of Python's audit events, "open" or "os.rename" (which `os.replace` is too), and the moment is that of the
COUNT-th one on a path like PATTERN, before it happens. Started with `start_new_session=True`.
"""

import os
import sys
from fnmatch import fnmatch

from ldm.__main__ import main


def killed_at(number: int, event: str, pattern: str, count: int, *arguments: object) -> list[str]:
    """The command line of a verb that gets signal `number`; it runs in the project's folder."""
    return [sys.executable, "-m", "tests.killed", str(int(number)), event, pattern, str(count), *map(str, arguments)]


def listen(number: int, wanted: str, pattern: str, count: int) -> None:
    parent, seen = os.getpid(), 0

    def hook(event: str, given: tuple) -> None:
        nonlocal seen
        if event == wanted and fnmatch(str(given[event == "os.rename"]), pattern) and os.getpid() == parent:
            seen += 1
            if seen == count:
                os.killpg(0, number)

    sys.addaudithook(hook)


if __name__ == "__main__":
    listen(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
    del sys.argv[1:5]
    main()
