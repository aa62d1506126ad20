"""Memory that a process uses (Linux), and memory that is available."""

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ldm.utils.errors import UserError

if TYPE_CHECKING:  # scripts import this module before they know that they need torch
    import torch

INTERVAL = 0.005  # seconds between two readings


def anonymous(pid: int | str = "self") -> int:
    """Return the anonymous memory of a process in bytes, that is without pages of files; 0 when it has ended.

    Raises:
        UserError: the system has no /proc.
    """
    status = Path(f"/proc/{pid}/status")
    if not Path("/proc/self/status").is_file():
        raise UserError("/proc/self/status: not found; memory can only be measured on Linux")
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def available(device: "torch.device") -> int:
    """Return the bytes available on a device, or on a system other than Linux all its memory."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        values = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return int(values["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class PeakMemory:
    """A thread that watches the anonymous memory of a process, in bytes.

    Attributes:
        start: memory at the beginning.
        phase: what the process is doing, set by `enter`.
        peaks: maximum in each phase so far.
    """

    def __init__(self, pid: int | str = "self", phase: str = ""):
        self.pid, self.phase, self.start = pid, phase, anonymous(pid)
        self.peaks = {phase: self.start}
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def peak(self) -> int:
        """The maximum over all phases so far."""
        with self._lock:
            return max(self.peaks.values())

    def enter(self, phase: str) -> str:
        """Begin a phase, and return the one that ends."""
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
