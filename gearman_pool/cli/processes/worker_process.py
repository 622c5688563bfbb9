"""One worker process as its supervisor sees it.

For the supervisor's thread. The process is told to stop on its socket, never by a signal; `reports` says why.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from time import monotonic

from .reports import EXIT_PATIENCE, STOP, Report, ReportReader

__all__ = ["WorkerProcess"]

#: How much longer than it may take a process is waited for before it is killed, in seconds.
_MARGIN = 3.0


class WorkerProcess:
    """A worker process, running from the constructor on, in a session of its own: Ctrl-C reaches the supervisor only.

    Attributes:
        slot: The number of its place, which its successor takes.
        started: When, on the monotonic clock.
        report: What it said last of itself.
        told_to_stop: Whether it was told so.
        connected: Whether it may say more.
        sock: Readable when it has something to say, or has ended.
    """

    def __init__(self, slot: int, arguments: Sequence[str]) -> None:
        self.slot = slot
        self.started: float = monotonic()
        self.report: Report = Report()
        self.told_to_stop: bool = False
        self.connected: bool = True
        self.sock: socket.socket
        self._stopped_at = 0.0
        self._killed = False
        self.sock, theirs = socket.socketpair()
        self.sock.setblocking(False)
        self._reader = ReportReader(self.sock)
        number = theirs.fileno()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gearman_pool", *arguments, "--child-fd", str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def read(self) -> None:
        """Take what it has said."""
        if self.connected:
            report, self.connected = self._reader.read()
            self.report = report or self.report

    def stop(self) -> None:
        """Have it finish its jobs and end."""
        if not self.told_to_stop:
            self.told_to_stop = True
            self._stopped_at = monotonic()
            with contextlib.suppress(OSError):  # it has ended by itself, or is about to
                self.sock.send(STOP)

    @property
    def overdue(self) -> bool:
        """Whether it was told to stop so long ago that it does not react at all: it sees to its time by itself."""
        timeout = self.report.shutdown_timeout
        patience = timeout + min(timeout, EXIT_PATIENCE) + _MARGIN
        return self.told_to_stop and not self._killed and monotonic() - self._stopped_at > patience

    def kill(self) -> None:
        """End it at once, and all that it has started."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        # Commands of --exec have groups of their own in its session. Twice, for what began something meanwhile.
        for _ in range(2):
            for pid in _all_processes():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if os.getsid(pid) == self.pid:
                        os.kill(pid, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether it has ended and is to be buried."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def bury(self) -> int:
        """Wait for its end, kill what it has left behind, and return its exit code as `subprocess` gives it."""
        # Its number cannot be another's until it has been waited for, so that what is killed is its group.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self.kill()
        code = self._process.wait()
        self.read()
        self.sock.close()
        return code

    def finished(self, code: int) -> bool:
        """Whether it has left no job undone, now that it has ended with this exit code."""
        return code == 0 or not self.report.begun


def _all_processes() -> list[int]:
    """Return the numbers of all processes of the system."""
    try:
        names = os.listdir("/proc")
    except OSError:
        names = []
    if not any(name.isdecimal() for name in names):  # not Linux
        names = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=False).stdout.split()
    return [int(name) for name in names if name.isdecimal()]
