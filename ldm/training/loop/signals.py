"""Signals that ask a training to stop: SIGTERM and SIGUSR1 from a scheduler, Ctrl-C from a person."""

import os
import signal
import threading
import time
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # a system may lack some
TWICE = 1.0  # seconds after which another Ctrl-C is intended: a launcher may forward the one sent to all processes


class Stopped(Exception):
    """The end of a training between two steps because of a signal."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}; continue with --resume")
        self.signum = signum


class Signals:
    """The first signal that asked to stop. A second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.received, self._time = 0, 0.0

    def listen(self) -> None:
        """Replace all signal handlers, including Lightning's for SLURM.

        Those requeue the job or end it without a checkpoint of ours, and communicate with other processes from within a
        handler. Lightning restores the handlers that it found when training ends.
        """
        if threading.current_thread() is threading.main_thread():  # only it may set handlers
            for name in NAMES:
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.received == signum and time.monotonic() - self._time > TWICE:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        if not self.received:
            self.received, self._time = signum, time.monotonic()
            if signum == signal.SIGINT:
                os.write(2, b"\nstopping after this step; press Ctrl-C again to stop at once, without saving\n")
