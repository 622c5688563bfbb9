"""`Endings`: how a job ends, and who is told.

Threads: it all begins on the I/O thread, which waits for no lock of a caller's longer than `PATIENCE`; a future that
needs more is resolved, and told of, on a thread for notices. Users' code runs on callback threads.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from ...constants import JOB_FAILED
from ...errors import ConnectionLost, GearmanError
from ...events import JobFinished
from ...jobs.flight import Flight
from ...jobs.views import as_text
from ...threads.callbacks import CallbackThreads, Mailbox
from ...threads.outcome import FINISHED, Audience
from ...transport.connection import Connection
from ..base import Engine

__all__ = ["LOST_LOCK", "PATIENCE", "Endings", "connection_lost", "copy_error"]

#: How long the I/O thread waits for a lock that a caller may hold, in seconds; then a callback thread goes on with it.
PATIENCE = 0.02

#: How long the callback thread waits for it. Nobody holds it so long but a caller that was interrupted and left it
#: taken.
LOST_LOCK = 2.0

#: For how long, in seconds, the I/O thread waits for no such lock once it has waited for one in vain.
_IMPATIENCE = 1.0


class Endings:
    """Gives jobs their outcome: `finish` is the one place where that is done."""

    def __init__(self, engine: Engine) -> None:
        self._io = engine.io
        self._pool = engine.pool
        self._counters = engine.counters
        self._callbacks = engine.callbacks
        self._announcer = engine.announcer
        self._tells_finished = JobFinished in engine.announcer.wanted
        #: For what only passes the news on, which must not wait behind users' code.
        self.notices: CallbackThreads = CallbackThreads(f"{engine.io.name}-notice", engine.io.post_later)
        # One thread of these, however many futures it is about.
        self._stubborn = Mailbox(self.notices)
        self._impatient_until = 0.0

    def finish(
        self, flight: Flight, state: str, result: Any, error: BaseException | None, outcome: str = FINISHED
    ) -> None:
        """Give a job its outcome, unless it has one."""
        if flight.ended:
            return
        if isinstance(error, GearmanError):
            error.task, error.unique = flight.names
            if error.server is None and flight.connection is not None:
                error.server = flight.connection.server.name
        flight.end(state, result)
        if self._tells_finished:
            self._tell_finished(flight, error)
        self._resolve(flight, outcome, result, error)

    def fail(self, flight: Flight, error: GearmanError, state: str = JOB_FAILED) -> None:
        """Let a job fail, and count that."""
        self._counters.jobs_failed += 1
        self.finish(flight, state, None, error)

    def break_off(self, flight: Flight, broken: GearmanError) -> None:
        """End a job, in whatever state it is, because of something that nobody thought of."""
        if not flight.ended:
            error = copy_error(broken)
            error.task, error.unique = flight.names
            flight.break_off()
            self._resolve(flight, FINISHED, None, error)

    def forget(self, flight: Flight) -> bool:
        """Nobody waits for this job any more: what still comes for it is not for us. Return whether it never left."""
        if self._pool.withdraw(flight):
            return flight.unsend()
        connection, handle = flight.connection, flight.job.handle
        if connection is not None and handle is not None:
            connection.session.forget(handle, flight)
        return False

    def _resolve(self, flight: Flight, outcome: str, result: Any, error: BaseException | None) -> None:
        io = self._io
        patience = PATIENCE if io.now >= self._impatient_until else 0.0
        done = flight.resolve(outcome, result, error, patience, io.release_soon)
        if done is None:
            # An interrupted caller may have left the locks of hundreds of futures taken: no waiting for the next ones.
            self._impatient_until = io.clock() + _IMPATIENCE
            self._stubborn.put(partial(self._resolve_stubborn, flight, outcome, result, error, io.clock()))
        else:
            audience = flight.settle()
            if audience is not None:
                self._tell(flight, audience)

    def _resolve_stubborn(
        self, flight: Flight, outcome: str, result: Any, error: BaseException | None, since: float
    ) -> None:
        """On a thread for notices: resolve a future whose lock a caller holds, or has left taken when interrupted."""
        patience = max(0.0, since + LOST_LOCK - self._io.clock())
        if flight.resolve(outcome, result, error, patience) is None:
            flight.replace_guard()
            flight.resolve(outcome, result, error, 0)
        audience = flight.settle()
        if audience is not None:
            self._tell(flight, audience)

    def _tell(self, flight: Flight, audience: Audience) -> None:
        """Tell of an outcome whoever wants to be told."""
        waiters, callbacks = audience
        if waiters:
            self.notices.submit(partial(flight.tell_waiters, waiters, LOST_LOCK))
        if callbacks:
            flight.hand_over(partial(flight.call_back, callbacks), self._callbacks)

    def _tell_finished(self, flight: Flight, error: BaseException | None) -> None:
        request = flight.request
        outcome = type(error).__name__ if error is not None else "accepted" if request.background else "complete"
        place = request.gearman_job.connection
        server = str(place) if place is not None else None
        self._announcer.tell(JobFinished(server, *flight.names, outcome, self._io.clock() - flight.started))


def copy_error(error: GearmanError) -> GearmanError:
    """Return the same error for one more job: each is raised in another thread, and names another task."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


def connection_lost(connection: Connection, flight: Flight, error: GearmanError) -> ConnectionLost:
    """Return the error for a job that was at a server when the connection went."""
    task = as_text(flight.job.task)
    text = f"the connection was lost while task {task!r} was at the server; it may have run ({error})"
    lost = ConnectionLost(text, server=connection.server.name, maybe_sent=True, retryable=True)
    lost.__cause__ = error
    return lost
