"""How much memory a process takes (Linux), and how much can be had."""

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ldm.utils.errors import UserError

if TYPE_CHECKING:  # scripts import this room before they know that they need torch
    import torch

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


def available(device: "torch.device") -> int:
    """Bytes of memory that can be had on a device; where the system does not say (no Linux), all that it has."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        values = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(values["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class PeakMemory:
    """Watches the anonymous memory of a process, in bytes, from a thread of this one.

    Attributes:
        start: when the watching began.
        phase: what the process is doing, by `enter`.
        peaks: the most in each phase so far.
    """

    def __init__(self, pid: int | str = "self", phase: str = ""):
        self.pid, self.phase, self.start = pid, phase, anonymous(pid)
        self.peaks = {phase: self.start}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def peak(self) -> int:
        """The most in all phases so far."""
        with self._lock:
            return max(self.peaks.values())

    def enter(self, phase: str) -> str:
        """What comes next counts for this phase; returns the one that ends."""
        self._look()
        ended, self.phase = self.phase, phase
        self._look()
        return ended

    def _look(self) -> int:
        with self._lock:
            phase, now = self.phase, anonymous(self.pid)
            self.peaks[phase] = max(self.peaks.get(phase, 0), now)
        return now

    def _watch(self) -> None:
        while self._look():
            time.sleep(INTERVAL)
