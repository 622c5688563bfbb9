"""`LostJobs`: asks servers after jobs that have long been silent.

gearmand drops a job without a word when it was submitted with the unique of one whose client had left. All of this runs
on the I/O thread.
"""

from __future__ import annotations

from ...constants import JOB_FAILED
from ...errors import JobLost
from ...jobs.flight import Flight, to_bytes
from ...protocol.client import ClientSession
from ...protocol.commands import Command
from ...protocol.packets import pack
from ...transport.connection import Connection
from ...transport.handler import Query
from ..base import Engine
from .endings import Endings

__all__ = ["LostJobs"]

#: How many silent jobs are asked after in one sweep of one connection, so that a sweep stays short.
_SWEEP_LIMIT = 1000


class LostJobs:
    """Sweeps through the accepted jobs twice in each ``lost_job_check``, as long as there are any.

    Attributes:
        sweep: The number of the last sweep.
        sweeping: Whether there is a next one.
    """

    def __init__(self, engine: Engine[ClientSession], endings: Endings) -> None:
        self._io = engine.io
        self._pool = engine.pool
        self._counters = engine.counters
        self._period = engine.options.lost_job_check / 2
        self._endings = endings
        self.sweep: int = 0
        self.sweeping: bool = False

    def begin(self) -> None:
        """Sweep from now on."""
        self.sweeping = True
        self._io.call_later(self._period, self._sweep)

    def _sweep(self) -> None:
        """Ask the server after each job of which nothing was heard in the last two sweeps."""
        self.sweep += 1
        jobs = 0
        for connection in self._pool.connections:
            session = connection.session
            jobs += len(session.handles)
            silent = [(handle, flight) for handle, flight in session.accepted() if self.sweep - flight.heard > 1]
            for handle, flight in silent[:_SWEEP_LIMIT]:
                flight.hear(self.sweep)
                packet = pack(Command.GET_STATUS, to_bytes(handle))
                connection.submit((packet, Command.STATUS_RES, _LostCheck(self, flight)))
        self.sweeping = bool(jobs)
        if self.sweeping:
            self._io.call_later(self._period, self._sweep)

    def checked(self, connection: Connection, flight: Flight, known: bool) -> None:
        """Take the server's answer whether it still has a job.

        The job is this connection's still, under the handle that was asked for: a job is sent again only when its
        connection is lost, and nothing that is answered later on that one is read.
        """
        if known or flight.ended:
            return
        self._endings.forget(flight)
        self._counters.jobs_lost += 1
        text = (
            f"{connection.server.address} no longer has the job of task {flight.job.task!r}, and never "
            "said how it ended; it may or may not have run"
        )
        lost = JobLost(text, server=connection.server.name, maybe_sent=True)
        self._endings.finish(flight, JOB_FAILED, None, lost)


class _LostCheck(Query):
    """Asks whether the server still has a job that has long been silent."""

    def __init__(self, lost_jobs: LostJobs, flight: Flight) -> None:
        self._lost_jobs = lost_jobs
        self._flight = flight

    def answered(self, connection: Connection, value: list[bytes]) -> None:
        self._lost_jobs.checked(connection, self._flight, value[1] == b"1")
