"""A command of `ldm` that gets a signal, with all its processes, at a moment that no machine's load can move.

python -m tests.killed SIGNAL PATTERN COUNT VERB ...

The moment is that before the COUNT-th file or folder is renamed to a path like PATTERN, by which all that is written
takes its place. Started with `start_new_session=True`.
"""

import os
import sys
from fnmatch import fnmatch

from ldm.__main__ import main


def killed_at(number: int, pattern: str, count: int, *arguments: object) -> list[str]:
    """The command line of a verb that gets signal `number`; it runs in the project's folder."""
    return [sys.executable, "-m", "tests.killed", str(int(number)), pattern, str(count), *map(str, arguments)]


def listen(number: int, pattern: str, count: int) -> None:
    parent, seen = os.getpid(), 0

    def hook(event: str, given: tuple) -> None:
        nonlocal seen
        if event == "os.rename" and fnmatch(str(given[1]), pattern) and os.getpid() == parent:  # `os.replace` too
            seen += 1
            if seen == count:
                os.killpg(0, number)

    sys.addaudithook(hook)


if __name__ == "__main__":
    listen(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    del sys.argv[1:4]
    main()
