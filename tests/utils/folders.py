"""A folder that may not be entered, for root too."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Nobody may look into the folder in this block; root, whom modes do not stop, is somebody else meanwhile."""
    user, mode = os.geteuid(), folder.stat().st_mode
    folder.chmod(0)
    try:
        if user == 0:
            os.seteuid(NOBODY)
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)
