"""`Cancelling`: withdraws jobs that have not left, and has servers drop those that no worker has.

All of this runs on the I/O thread.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ...constants import JOB_FAILED
from ...errors import GearmanError, JobCancelled
from ...jobs.flight import Flight, to_bytes
from ...protocol.client import ClientSession
from ...protocol.commands import Command
from ...protocol.packets import pack
from ...protocol.session import TEXT_LINE
from ...protocol.values import number
from ...threads.outcome import CANCELLED
from ...threads.waiting import Promise
from ...transport.connection import Connection
from ...transport.handler import Query
from ..base import Engine
from .endings import Endings

__all__ = ["Cancelling"]

#: The pause before one more look whether the server has accepted a job that is to be cancelled: the first one, and the
#: longest, in seconds.
_FIRST_PAUSE = 0.005
_LONGEST_PAUSE = 0.2


class Cancelling:
    """Tries to cancel jobs.

    Attributes:
        dropping: Jobs that a server has been told to drop, until it has answered.
    """

    def __init__(self, engine: Engine, endings: Endings) -> None:
        self._io = engine.io
        self._pool = engine.pool
        self._counters = engine.counters
        self._endings = endings
        self.dropping: set[Flight] = set()

    def cancel(self, flight: Flight, promise: Promise, pause: float = _FIRST_PAUSE) -> None:
        """Try to cancel a job; the promise says whether that was done."""
        connection, handle = flight.connection, flight.job.handle
        if flight.ended:
            promise.set(flight.cancelled())
        elif self._pool.withdraw(flight):
            flight.unsend()
            self.cancelled(flight)
            promise.set(True)
        elif connection is not None and handle is not None:
            query = _CancelCheck(self, flight, promise)
            connection.submit((pack(Command.GET_STATUS, to_bytes(handle)), Command.STATUS_RES, query))
        else:
            # On its way: the server's answer comes first. A silent server is asked after less and less often.
            longer = min(2 * pause, _LONGEST_PAUSE)
            self._io.call_later(pause, partial(self.cancel, flight, promise, longer))

    def cancelled(self, flight: Flight) -> None:
        """End a job that is withdrawn."""
        if flight.ended:
            return
        self._endings.forget(flight)
        self._counters.jobs_cancelled += 1
        # The server says that no worker has it, and is then told to drop it: a worker may take it in between.
        maybe_sent = flight.request.connection_attempts > 0
        error = JobCancelled(f"task {flight.job.task!r} was cancelled", maybe_sent=maybe_sent)
        self._endings.finish(flight, JOB_FAILED, None, error, CANCELLED)


class _CancelCheck(Query):
    """Asks whether a job runs, and has the server drop it if not.

    A job that others wait for too is not dropped, which would fail theirs: only this future's part in it ends. Others
    can wait only for one of a unique that a user gave; how many do, the server tells by the unique alone.
    """

    def __init__(self, cancelling: Cancelling, flight: Flight, promise: Promise) -> None:
        self._cancelling = cancelling
        self._flight = flight
        self._promise = promise
        self._asked = "whether it runs"

    def answered(self, connection: Connection[ClientSession], value: Any) -> None:
        flight = self._flight
        handle = flight.job.handle
        if self._asked == "to drop it":
            self._end(dropped=True)
        elif flight.ended or handle is None or value[1] != b"1" or value[2] == b"1":
            self._end(dropped=False)
        elif self._asked == "who waits for it":
            if number(value[5]) > 1:
                self._end(dropped=True)
            else:
                self._drop(connection, handle)
        elif connection.session.shares(handle):
            self._end(dropped=True)
        elif flight.unique_given and flight.key != b"-":
            self._asked = "who waits for it"
            packet = pack(Command.GET_STATUS_UNIQUE, to_bytes(flight.job.unique))
            connection.submit((packet, Command.STATUS_RES_UNIQUE, self))
        else:
            self._drop(connection, handle)

    def _drop(self, connection: Connection, handle: str) -> None:
        self._asked = "to drop it"
        # The job stays the connection's: if it completes after all, or the connection is lost, it ends by that.
        self._cancelling.dropping.add(self._flight)
        connection.submit((b"cancel job " + to_bytes(handle) + b"\r\n", TEXT_LINE, self))

    def refused(self, connection: Connection, code: str, text: str) -> None:
        self._end(dropped=False)

    def lost(self, error: GearmanError) -> None:
        self._end(dropped=False)

    def _end(self, dropped: bool) -> None:
        self._cancelling.dropping.discard(self._flight)
        if dropped:
            self._cancelling.cancelled(self._flight)
        self._promise.set(self._flight.cancelled())
