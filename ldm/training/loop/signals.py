"""Being told to stop: SIGTERM and SIGUSR1 from a scheduler, Ctrl-C from a person."""

import os
import signal
import threading
import time
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # a system may lack some
TWICE = 1.0  # seconds after which another Ctrl-C is meant: a launcher may pass on the one that the terminal sent to all


class Stopped(Exception):
    """A training ends between two steps because a signal asked for it."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}; go on with --resume")
        self.signum = signum


class Signals:
    """Remembers the first signal that asks to stop. A second Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.received, self._time = 0, 0.0

    def listen(self) -> None:
        """Take the place of whatever handlers there are, Lightning's for SLURM included.

        Those requeue the job or end it without a checkpoint of ours, and talk to other processes from within a handler.
        Lightning puts back what it found when training ends.
        """
        if threading.current_thread() is threading.main_thread():  # the only one that may
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
                os.write(2, b"\nstopping after this step; once more Ctrl-C ends at once, without saving\n")
