"""`ClientEngine`: what a client does with what its connections tell it.

Threads: methods under the banner ANY THREAD may be called from any thread and take no lock. All others run on the I/O
thread, which owns every job from the moment its packet is in line. No user code runs here.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from ...constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_UNKNOWN
from ...errors import (
    ClientClosed,
    ClientSaturated,
    ForkedProcess,
    GearmanError,
    InvalidClientState,
    JobException,
    JobFailed,
    JobTimeout,
    ServerError,
)
from ...events import ClientStats, Counters, JobAccepted, JobFinished, JobRetried, JobUpdated
from ...jobs.flight import Flight
from ...jobs.views import JobReference, as_text
from ...protocol.client import COMPLETE, CREATED, EXCEPTION, FAIL, LATE, STATUS, ClientSession, submit_reply
from ...protocol.packets import Packet, pack, packet_size
from ...protocol.session import ERROR, REPLY, Entry, token_of
from ...protocol.session import Event as SessionEvent
from ...settings.addresses import ServerAddress
from ...settings.client_options import ClientOptions
from ...threads.outcome import FINISHED
from ...threads.waiting import Promise, release_all
from ...transport.connection import Connection, LostEntries
from ...transport.handler import Query
from ...transport.servers import Server
from ..base import Engine
from .cancelling import Cancelling
from .endings import Endings, connection_lost, copy_error
from .lost_jobs import LostJobs
from .uniques import Uniques

__all__ = ["EXIT_TIMEOUT", "ClientEngine"]

log: logging.Logger = logging.getLogger("gearman_pool.client")

#: How long the exit of the interpreter waits for what is not accepted yet, in seconds.
EXIT_TIMEOUT = 1.0

_CLOSED = "the client is closed; make a new one"


class ClientEngine(Engine[ClientSession]):
    """One process's half of a client.

    Args:
        addresses: The servers.
        options: The client's options.
        place_of: Makes what users see of a server, as `GearmanJob.connection`.
        unique_bytes: How many random bytes a unique that is made up stands for.
    """

    def __init__(
        self,
        addresses: tuple[ServerAddress, ...],
        options: ClientOptions,
        place_of: Callable[[ServerAddress], Any],
        unique_bytes: int,
    ) -> None:
        new_session = partial(ClientSession, options.max_packet_size)
        super().__init__("client", "gearman_pool", addresses, options, new_session, log)
        #: Why nothing more is taken; None as long as it is. Written by any thread.
        self.refusing: str | None = None
        self.uniques: Uniques = Uniques(self.io, unique_bytes)
        self._endings = Endings(self)
        self._finish = self._endings.finish
        self._lost_jobs = LostJobs(self, self._endings)
        self._cancelling = Cancelling(self, self._endings)
        self._place_of = place_of
        # What users see of each server, once a job was accepted there, by its name: a server that is taken out, and in
        # again, is another object. The I/O thread's.
        self._places: dict[str, Any] = {}
        wanted = self.announcer.wanted
        self._tells_accepted = JobAccepted in wanted
        self._tells_updated = JobUpdated in wanted
        self._tells_finished = JobFinished in wanted
        self._close_when: Callable[[], bool] | None = None
        # Locks of callers that wait for anything to come. Changed by any thread, by single operations.
        self._activity: deque[threading.Lock] = deque()

    # ==== ANY THREAD ================================================================================================

    def start(self) -> None:
        """Start the I/O thread if it does not run.

        Raises:
            ClientClosed: the client is closed, or the interpreter is shutting down.
            ThreadUnavailable: no thread can be started; the text says why.
        """
        if self.refusing is not None:
            raise ClientClosed(self.refusing)
        if not self.io.running:
            self.uniques.renew()
            super().start()

    def submit(self, flight: Flight, arguments: tuple[bytes, ...], timeout: float | None) -> None:
        """Put a job in line. Blocks only while the budget is used up, for ``submit_timeout`` at the most.

        Args:
            flight: The job.
            arguments: Those of its packet.
            timeout: The job's time limit, in seconds; None for no limit.

        Raises:
            ClientSaturated: the budget was used up all that time.
            ClientClosed: the client is closed.
            ThreadUnavailable: the I/O thread cannot be started.
        """
        if self.refusing is not None or not self.io.running:
            self.start()
        packet = pack(flight.command, *arguments)
        size = packet_size(packet)
        pool = self.pool
        if pool.full(size):
            self._wait_for_room(size, flight)
        if timeout is None and not self._tells_finished:
            flight.depart(self)
        else:
            now = self.io.clock()
            flight.depart(self, now)
            if timeout is not None:
                self.io.post_by(now + timeout, partial(self._watch_timeout, flight, now + timeout, timeout))
        pool.submit((packet, submit_reply(flight.request.background), flight), flight.key)
        if self.io.ended:
            # The loop ended between the look above and now; nobody else will see this one.
            self._on_stop()

    def _wait_for_room(self, size: int, flight: Flight) -> None:
        timeout = self.options.submit_timeout
        if not self.pool.wait_for_room(size, self.io.clock() + timeout):
            raise ClientSaturated(
                f"no room for task {flight.request.job.task!r} within submit_timeout ({timeout:g} s): "
                f"{self.pool.in_flight()} of max_in_flight {self.options.max_in_flight} jobs are in flight, "
                f"{self._outbound()} of "
                f"max_outbound_bytes {self.options.max_outbound_bytes} wait to be sent; slow down or raise the limits",
                task=flight.request.job.task,
                retryable=True,
            )
        if self.refusing is not None:
            raise ClientClosed(self.refusing)

    def _outbound(self) -> int:
        return sum(connection.outbound_bytes() for connection in self.pool.connections)

    def ask(self, key: bytes | Server | None, packet: Packet, reply: int, query: Query, timeout: float) -> None:
        """Send a request that is no job, to one server, or to that which gets the jobs with this key."""
        self.start()
        self.pool.submit((packet, reply, query), key, timeout)

    def stats(self) -> ClientStats:
        """Return a snapshot of counters and gauges."""
        counters = {name: getattr(self.counters, name) for name in Counters.__slots__}
        return ClientStats(
            **counters,
            in_flight=self.pool.in_flight(),
            waiting=self.pool.waiting,
            wakeups=self.io.wakeups,
            servers=self.pool.infos(),
        )

    def close(self, timeout: float) -> bool:
        """Refuse new jobs, wait for those in flight, fail what is left, stop. Return whether the thread has ended."""
        self.refusing = self.refusing or _CLOSED
        self.io.post(partial(self._begin_close, timeout, self._nothing_in_flight))
        ended = self._wait_ended(timeout + 1.0)
        deadline = self.io.clock() + min(timeout, 1.0)
        for threads in (self._endings.notices, self.callbacks):
            threads.stop()
            threads.join(max(0.0, deadline - self.io.clock()))
        return ended

    def abandon(self) -> None:
        """The client has gone: stop as soon as nothing is in flight, without anybody waiting. Takes no lock."""
        self.refusing = _CLOSED
        self.io.post(partial(self._begin_close, self.options.submit_timeout, self._nothing_in_flight))

    def close_at_exit(self) -> None:
        """Send what is queued and have it accepted, within `EXIT_TIMEOUT`; results are not waited for."""
        self.refusing = "the interpreter is shutting down"
        if self.io.started and not self.io.ended:
            self.io.post(partial(self._begin_close, EXIT_TIMEOUT, self._nothing_unaccepted))
            self.io.wait_stopped(EXIT_TIMEOUT + 1.0)

    def begin_cancel(self, flight: Flight, promise: Promise) -> None:
        """Try to cancel a job; the promise says whether that was done."""
        self.io.post(partial(self._cancelling.cancel, flight, promise))

    def cancel(self, flight: Flight) -> bool:
        """Try to cancel a job, and return whether that was done: see `JobFuture.cancel`.

        Blocks for ``health_check_timeout`` at the most, and not at all in a thread that runs an asyncio loop.
        """
        if self.forked:
            self.end_copy(flight)
            return False
        promise = Promise()
        self.begin_cancel(flight, promise)
        if _in_event_loop():
            return False
        try:
            return bool(promise.wait(self.options.health_check_timeout))
        except TimeoutError:
            return False

    def before_waiting(self, flight: Flight) -> None:
        """Refuse to let the I/O thread wait for itself; end a copy of a job of the parent's.

        Raises:
            InvalidClientState: the caller is the I/O thread.
        """
        if self.forked:
            # At the moment of the fork the job was in the I/O thread's hands, and in no place that is looked at then.
            self.end_copy(flight)
        elif self.io.is_current():
            raise InvalidClientState("the I/O thread must not wait for a result: that result could never come")

    def expect_activity(self) -> threading.Lock:
        """Return a lock that is released when something comes from a server."""
        waiter = threading.Lock()
        waiter.acquire()
        self._activity.append(waiter)
        return waiter

    def ignore_activity(self, waiter: threading.Lock) -> None:
        """Nobody waits for this lock any more."""
        with contextlib.suppress(ValueError):  # the I/O thread has just taken it
            self._activity.remove(waiter)

    # ==== THE CHILD OF A FORK =======================================================================================

    def after_fork_in_child(self) -> None:
        """Close what was inherited. The jobs in flight are the parent's, and their copies here end at once."""
        self.refusing = "this client belongs to the parent process"
        super().after_fork_in_child()

    def _leave_to_parent(self, token: object) -> None:
        if isinstance(token, Flight):
            self.end_copy(token)
        else:
            super()._leave_to_parent(token)

    def end_copy(self, flight: Flight) -> None:
        """End the copy of a job of the parent's."""
        error = ForkedProcess(
            "the job was submitted by the parent process, which gets its result; submit it here if it is wanted here"
        )
        error.task, error.unique = flight.names
        flight.replace_guard()
        if flight.resolve(FINISHED, None, error, 0):
            flight.lose()
            flight.break_off()
            flight.settle()

    # ==== THE I/O THREAD ============================================================================================

    def _turn(self) -> None:
        super()._turn()
        if self._close_when is not None and self._close_when():
            self.io.stop()

    def _on_stop(self) -> None:
        self.refusing = self.refusing or _CLOSED
        super()._on_stop()
        release_all(self._activity)
        self.callbacks.stop()
        self._endings.notices.stop()

    def _closed(self) -> GearmanError:
        return ClientClosed("the client was closed before the job was done")

    def _begin_close(self, timeout: float, when: Callable[[], bool]) -> None:
        if self._close_when is None:
            self._close_when = when
            self.io.call_later(timeout, self.io.stop)

    def _nothing_in_flight(self) -> bool:
        return not self.pool.busy()

    def _nothing_unaccepted(self) -> bool:
        return not self.pool.busy(accepted=False)

    # ---- events of the sessions ------------------------------------------------------------------------------------

    def on_events(self, connection: Connection[ClientSession], events: list[SessionEvent]) -> None:
        """Do what the session's events say, and outlive whatever nobody thought of."""
        try:
            self._take(connection, events)
        except Exception as error:  # something nobody thought of: the loop, and the other connections, must outlive it
            broken = self._note_broken(error)
            connection.lose(broken)
            # The session has given these jobs up already, so the loss of the connection does not end them.
            for _, token, _ in events:
                if isinstance(token, Flight):
                    self._endings.break_off(token, broken)
        if self._activity:
            release_all(self._activity)

    def _take(self, connection: Connection[ClientSession], events: list[SessionEvent]) -> None:
        for kind, token, value in events:
            if kind == CREATED:
                self._accepted(connection, token, value)
            elif kind == COMPLETE:
                self._completed(token, value)
            elif kind == REPLY:
                if token is not None:
                    token.answered(connection, value)
            elif kind == ERROR:
                self._refused(connection, token, *value)
            elif kind == LATE:
                self.counters.late_packets += 1
            elif kind == FAIL:
                self._failed(token)
            elif kind == EXCEPTION:
                self._worker_raised(token, value)
            else:
                self._updated(connection, token, kind, value)

    def _accepted(self, connection: Connection[ClientSession], flight: Flight, handle: str) -> None:
        if flight.ended:
            # The job timed out, or was cancelled, while it was on its way.
            connection.session.forget(handle, flight)
            return
        self.counters.jobs_accepted += 1
        server = connection.server
        try:
            place = self._places[server.name]
        except KeyError:
            place = self._places[server.name] = self._place_of(server.address)
        flight.accept(connection, place, handle, self._lost_jobs.sweep)
        background = flight.request.background
        if self._tells_accepted:
            self.announcer.tell(JobAccepted(server.name, *flight.names, handle, background))
        if background:
            reference = JobReference(server.name, handle, as_text(flight.job.unique))
            self._finish(flight, JOB_CREATED, reference, None)
        elif not self._lost_jobs.sweeping:
            self._lost_jobs.begin()

    def _completed(self, flight: Flight, payload: bytes) -> None:
        if flight.ended:
            # The job timed out while it was on its way, and came with its result.
            self.counters.late_packets += 1
            return
        self.counters.jobs_completed += 1
        self._finish(flight, JOB_COMPLETE, payload, None)

    def _failed(self, flight: Flight) -> None:
        if flight.ended:
            self.counters.late_packets += 1
        elif flight in self._cancelling.dropping:
            # The server has dropped it, and tells so before it answers the command.
            self._cancelling.cancelled(flight)
        else:
            self._endings.fail(flight, JobFailed(f"the worker of task {flight.job.task!r} said that it failed"))

    def _worker_raised(self, flight: Flight, data: bytes) -> None:
        if flight.ended:
            self.counters.late_packets += 1
            return
        flight.take_exception(data)
        error = JobException(
            f"the worker of task {flight.job.task!r} raised an exception; .data holds what it said ({len(data)} bytes)"
        )
        error.data = data
        self._endings.fail(flight, error)

    def _refused(self, connection: Connection, token: Any, code: str, text: str) -> None:
        if isinstance(token, Flight):
            task, unique = token.names
            error = ServerError.from_reply(code, text, server=connection.server.name, task=task, unique=unique)
            self._endings.fail(token, error)
        elif token is not None:
            token.refused(connection, code, text)

    def _updated(self, connection: Connection, flight: Flight, kind: int, value: Any) -> None:
        if flight.ended:
            self.counters.late_packets += 1
            return
        self.counters.updates += 1
        update, call = flight.update(kind, value, self._lost_jobs.sweep)
        if self._tells_updated:
            size = 0 if kind == STATUS else len(value)
            self.announcer.tell(JobUpdated(connection.server.name, *flight.names, update.kind, size))
        if call is not None:
            flight.mailbox(self.callbacks).put(call)

    # ---- lost connections ------------------------------------------------------------------------------------------

    def on_lost(self, connection: Connection[ClientSession], error: GearmanError, entries: LostEntries) -> None:
        """Send again, end, or hand back what a lost connection held, as the table in ``docs/promises.rst`` says."""
        seen: set[int] = set()
        # What may have been sent goes first: an interrupted sender leaves an entry in both lists.
        for token in (*map(token_of, entries.unanswered), *entries.accepted):
            seen.add(id(token))
            if isinstance(token, Flight):
                self._lost(connection, token, error)
            elif isinstance(token, Query):
                token.lost(error)
        for entry in entries.unsent:
            token = token_of(entry)
            if id(token) in seen:
                continue
            if isinstance(token, Query):
                token.lost(error)
            elif token is not None and not token.done():
                self._reroute(entry, token)
        if self._activity:
            release_all(self._activity)

    def _reroute(self, entry: Entry, flight: Flight) -> None:
        self.pool.park_again(entry, flight.key, self.io.clock() + self.options.submit_timeout)

    def _lost(self, connection: Connection, flight: Flight, error: GearmanError) -> None:
        """A job was at the server when the connection went."""
        request = flight.request
        if flight.ended:
            return
        accepted = request.state == JOB_CREATED
        attempts_left = request.connection_attempts < request.max_connection_attempts
        if isinstance(error, ClientClosed):
            self._endings.fail(flight, ClientClosed(str(error), maybe_sent=True))
        elif attempts_left and (flight.recover or not accepted):
            self._send_again(flight, error)
        else:
            self.counters.jobs_lost += 1
            flight.lose()
            self._finish(flight, JOB_UNKNOWN, None, connection_lost(connection, flight, error))

    def _send_again(self, flight: Flight, error: GearmanError) -> None:
        request = flight.request
        # The old unique may belong to a zombie: a job that the server forgets as soon as a worker takes it.
        fresh = None if flight.unique_given or request.background else self.uniques.new()
        arguments = flight.depart_again(fresh)
        self.counters.jobs_retried += 1
        self.announcer.tell(JobRetried(error.server, *flight.names, request.connection_attempts, str(error)))
        packet = pack(flight.command, *arguments)
        self._reroute((packet, submit_reply(request.background), flight), flight)

    def on_unroutable(self, entry: Entry, error: GearmanError) -> None:
        """End a job for which no server could be had in time, or a question."""
        token = token_of(entry)
        if isinstance(token, Flight):
            if not token.done():
                # The error is shared by all that waited; each gets its own, with its task.
                mine = copy_error(error)
                # One that waited to be sent again was at a server once.
                mine.maybe_sent = not token.unsend()
                self._endings.fail(token, mine, JOB_FAILED if isinstance(error, ClientClosed) else JOB_UNKNOWN)
        else:
            super().on_unroutable(entry, error)

    # ---- time limits and silent jobs -------------------------------------------------------------------------------

    def _watch_timeout(self, flight: Flight, deadline: float, timeout: float) -> None:
        if not flight.ended:
            flight.limit(self.io.call_at(deadline, partial(self._timed_out, flight, timeout)))

    def _timed_out(self, flight: Flight, timeout: float) -> None:
        if flight.ended:
            return
        self.counters.jobs_timed_out += 1
        task = flight.job.task
        unsent = self._endings.forget(flight)
        if unsent:
            where = "it was not sent"
        elif flight.request.state == JOB_CREATED:
            where = "the server was not told, and a worker may still run it"
        else:
            where = "the server had not accepted it, and may still do so"
        text = f"task {task!r} has no result after its timeout of {timeout:g} s; {where}"
        self._finish(flight, JOB_FAILED, None, JobTimeout(text, maybe_sent=not unsent, retryable=unsent))


def _in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
