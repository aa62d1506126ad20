"""How much memory a process takes (Linux)."""

import threading
import time
from pathlib import Path

from ldm.utils.errors import UserError

INTERVAL = 0.005  # seconds between two looks


def anonymous(pid: int | str = "self") -> int:
    """Bytes that belong to a process alone and to no file: what it needs beside pages of the cache; 0 when it is gone.

    Raises:
        UserError: the system has no /proc.
    """
    status = Path(f"/proc/{pid}/status")
    if not Path("/proc/self/status").is_file():
        raise UserError("anonymous memory is read from /proc, which only Linux has")
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


class PeakMemory:
    """Watches the anonymous memory of a process, from a thread of this one: `peak`, in bytes, so far."""

    def __init__(self, pid: int | str = "self"):
        self.pid, self.start = pid, anonymous(pid)
        self.peak = self.start
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while now := anonymous(self.pid):
            self.peak = max(self.peak, now)
            time.sleep(INTERVAL)
