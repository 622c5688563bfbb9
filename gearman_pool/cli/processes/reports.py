"""What a worker process and its supervisor tell each other: lines of JSON on a socket; and to stop, back.

Each end is for one thread at a time. The supervisor's end never blocks.
"""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, fields

__all__ = ["COUNTERS", "EXIT_PATIENCE", "STOP", "Report", "ReportReader", "send_report"]

#: What a supervisor sends to a worker process. A signal would not do: the process may have had the same one already,
#: from whoever signals all processes of a service, and takes a second one for the wish to end at once.
STOP = b"stop\n"

#: How long a process may take to exit when its worker has returned, in seconds; or the shutdown timeout, if shorter.
EXIT_PATIENCE = 5.0

#: The counters among a report's fields.
COUNTERS = ("jobs_done", "jobs_failed", "jobs_timed_out", "results_lost")


@dataclass(frozen=True)
class Report:
    """How a worker process stands.

    Attributes:
        begun: It has its worker, and may have jobs.
        ready: Its tasks are known to a server that can be reached.
        held: How many jobs it has.
        servers_up: How many servers it is connected to.
        files: The files of the modules it has loaded, if the supervisor watches them.
        error: Why it cannot work at all, as text; else None.
        shutdown_timeout: How long its jobs may take when it is told to stop, in seconds.

    The others are counters, as in `WorkerStats`.
    """

    begun: bool = False
    ready: bool = False
    held: int = 0
    servers_up: int = 0
    jobs_done: int = 0
    jobs_failed: int = 0
    jobs_timed_out: int = 0
    results_lost: int = 0
    files: tuple[str, ...] = ()
    error: str | None = None
    shutdown_timeout: float = 0.0

    @property
    def jobs(self) -> int:
        """How many jobs it has ended."""
        return self.jobs_done + self.jobs_failed + self.jobs_timed_out


_NAMES = {field.name for field in fields(Report)}


def send_report(sock: socket.socket, report: Report) -> None:
    """Send a report to the supervisor.

    Raises:
        OSError: there is no supervisor any more.
    """
    sock.sendall(json.dumps(asdict(report)).encode() + b"\n")


class ReportReader:
    """Reads a worker process's reports from a non-blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""

    def read(self) -> tuple[Report | None, bool]:
        """Return the last report that has come, if one has, and whether the other end is still there."""
        try:
            while data := self._sock.recv(65536):
                self._rest += data
        except BlockingIOError:
            return self._last(), True
        except OSError:
            pass
        return self._last(), False

    def _last(self) -> Report | None:
        *lines, self._rest = self._rest.split(b"\n")
        if not lines:
            return None
        values = {name: value for name, value in json.loads(lines[-1]).items() if name in _NAMES}
        return Report(**{**values, "files": tuple(values["files"])})
