"""What a client does with what its connections tell it: futures, retries, time limits, lost jobs.

A `Dispatcher` is one process's half of a client: the pool, the I/O thread and the callback threads. A fork leaves it
behind, and the child's client gets a new one.

Threads: methods under the banner ANY THREAD may be called from any thread and take no lock. All others run on the I/O
thread, which owns every job from the moment its packet is in line.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from .announcer import Announcer
from .constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from .errors import (
    ClientClosed,
    ClientSaturated,
    ConnectionLost,
    ForkedProcess,
    GearmanError,
    JobCancelled,
    JobException,
    JobFailed,
    JobLost,
    JobTimeout,
    ServerError,
)
from .events import (
    ClientStats,
    Counters,
    Event,
    JobAccepted,
    JobFinished,
    JobRetried,
    JobUpdated,
)
from .future import CANCELLED, FINISHED, JobFuture
from .job import GearmanJob, JobReference, JobUpdate, as_text
from .protocol.client import (
    COMPLETE,
    CREATED,
    DATA,
    EXCEPTION,
    FAIL,
    LATE,
    STATUS,
    WARNING,
    ClientSession,
    submit_reply,
)
from .protocol.commands import Command
from .protocol.packets import Packet, pack, packet_size
from .protocol.session import ERROR, REPLY, TEXT_LINE, Entry
from .protocol.session import Event as SessionEvent
from .protocol.values import number
from .settings.addresses import ServerAddress
from .settings.client_options import ClientOptions
from .threads.callbacks import CallbackThreads, Mailbox
from .threads.waiting import release_all
from .transport.connection import Connection, LostEntries
from .transport.handler import Query
from .transport.io_thread import IOThread
from .transport.pool import Pool
from .transport.servers import Server
from .transport.syscalls import HAS_GIL

if TYPE_CHECKING:
    from .threads.waiting import Promise

__all__ = ["Dispatcher"]

log: logging.Logger = logging.getLogger("gearman_pool.client")

#: How long the I/O thread waits for a lock that a caller may hold, in seconds; then a callback thread goes on with it.
PATIENCE = 0.02

#: How long the callback thread waits for it. Nobody holds it so long but a caller that was interrupted and left it
#: taken.
LOST_LOCK = 2.0

#: For how long, in seconds, it does not wait for any such lock once it has waited for one in vain.
_IMPATIENCE = 1.0

#: How many silent jobs are asked after in one sweep of one connection, so that a sweep stays short.
_SWEEP_LIMIT = 1000

#: How long the exit of the interpreter waits for what is not accepted yet, in seconds.
EXIT_TIMEOUT = 1.0


class Dispatcher:
    """One process's half of a client."""

    def __init__(
        self,
        addresses: tuple[ServerAddress, ...],
        options: ClientOptions,
        connection_for: Callable[[ServerAddress], Any],
        decode: Callable[[Any], Any] | None,
        unique_bytes: int,
    ) -> None:
        name = f"gearman_pool-{options.name}" if options.name else "gearman_pool"
        self.options = options
        self.counters: Counters = Counters()
        self.io: IOThread = IOThread(name, self._turn, self._has_work, self._on_loop_error, self._on_stop)
        #: For users' code, and for what only passes the news on, which must not wait behind that.
        self.callbacks: CallbackThreads = CallbackThreads(f"{name}-callback", self.io.post_later)
        self.notices: CallbackThreads = CallbackThreads(f"{name}-notice", self.io.post_later)
        # One thread of these, however many futures it is about.
        self._stubborn = Mailbox(self.notices)
        self._impatient_until = 0.0
        self.announcer: Announcer = Announcer(self.callbacks, options.listeners, log)
        self.refusing: str | None = None
        self.new_session: partial[ClientSession] = partial(ClientSession, options.max_packet_size)
        self.pool: Pool[ClientSession] = Pool(self.io, addresses, options, self.new_session, self, self.counters)
        # The first half of the uniques made here is random, the second half counts.
        self._unique_bytes = unique_bytes
        self._renew_uniques()
        self._connection_for = connection_for
        self._decode = decode
        wanted = self.announcer.wanted
        self._tells_accepted = JobAccepted in wanted
        self._tells_updated = JobUpdated in wanted
        self._tells_finished = JobFinished in wanted
        self._close_when: Callable[[], bool] | None = None
        #: Jobs that a server has been told to drop, until it has answered.
        self._cancelling: set[JobFuture] = set()
        self._sweep = 0
        self._sweeping = False
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
            self._renew_uniques()
            self.io.ensure_running()

    def submit(self, future: JobFuture, arguments: tuple[bytes, ...], timeout: float | None) -> None:
        """Put a job in line. Blocks only while the budget is used up, for ``submit_timeout`` at the most.

        ``arguments`` are those of its packet.

        Raises:
            ClientSaturated: the budget was used up all that time.
            ClientClosed: the client is closed.
            ThreadUnavailable: the I/O thread cannot be started.
        """
        if self.refusing is not None or not self.io.running:
            self.start()
        packet = pack(future._command, *arguments)
        size = packet_size(packet)
        pool = self.pool
        if pool.full(size):
            self._wait_for_room(size, future)
        request = future.request
        future._dispatcher = self
        request._move(JOB_PENDING)
        request.connection_attempts += 1
        if timeout is not None or self._tells_finished:
            future._started = self.io.clock()
        if timeout is not None:
            deadline = future._started + timeout
            self.io.post_by(deadline, partial(self._watch_timeout, future, deadline, timeout))
        pool.submit((packet, submit_reply(request.background), future), future._key)
        if self.io.ended:
            # It ended between the look above and now; nobody else will see this one.
            self._on_stop()

    def _wait_for_room(self, size: int, future: JobFuture) -> None:
        timeout = self.options.submit_timeout
        if not self.pool.wait_for_room(size, self.io.clock() + timeout):
            raise ClientSaturated(
                f"no room for task {future.request.job.task!r} within submit_timeout ({timeout:g} s): "
                f"{self.pool.in_flight()} of max_in_flight {self.options.max_in_flight} jobs are in flight, "
                f"{self._outbound()} of "
                f"max_outbound_bytes {self.options.max_outbound_bytes} wait to be sent; slow down or raise the limits",
                task=future.request.job.task,
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
        self.refusing = self.refusing or "the client is closed; make a new one"
        self.io.post(partial(self._begin_close, timeout, self._nothing_in_flight))
        ended = self.io.wait_stopped(timeout + 1.0)
        if not self.io.running:
            self._on_stop()
        deadline = self.io.clock() + min(timeout, 1.0)
        for threads in (self.notices, self.callbacks):
            threads.stop()
            threads.join(max(0.0, deadline - self.io.clock()))
        return ended

    def abandon(self) -> None:
        """The client has gone: stop as soon as nothing is in flight, without anybody waiting. Takes no lock."""
        self.refusing = "the client is closed; make a new one"
        self.io.post(partial(self._begin_close, self.options.submit_timeout, self._nothing_in_flight))

    def close_at_exit(self) -> None:
        """Send what is queued and have it accepted, within `EXIT_TIMEOUT`; results are not waited for."""
        self.refusing = "the interpreter is shutting down"
        if self.io.started and not self.io.ended:
            self.io.post(partial(self._begin_close, EXIT_TIMEOUT, self._nothing_unaccepted))
            self.io.wait_stopped(EXIT_TIMEOUT + 1.0)

    def cancel(self, future: JobFuture, promise: Promise) -> None:
        """Try to cancel a job; the promise says whether that was done."""
        self.io.post(partial(self._cancel, future, promise))

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
        """Close what was inherited; the jobs in flight are the parent's, and their copies here end at once."""
        self.refusing = "this client belongs to the parent process"
        for lost in self.pool.close_after_fork():
            for token in (*(entry[2] for entry in (*lost.unsent, *lost.unanswered)), *lost.accepted):
                if isinstance(token, JobFuture):
                    self.end_copy(token)
                elif isinstance(token, Query):
                    token.lost(ForkedProcess("the question was asked by the parent process, which gets the answer"))

    def end_copy(self, future: JobFuture) -> None:
        """End the copy of a job of the parent's."""
        error = ForkedProcess(
            "the job was submitted by the parent process, which gets its result; submit it here if it is wanted here"
        )
        future._replace_guard()
        _describe(error, future)
        if future._resolve(FINISHED, None, error, 0):
            future.request.connection_failed = True
            future.request._future = None
            future._client = None

    # ==== THE I/O THREAD ============================================================================================

    def _turn(self) -> None:
        self.pool.turn()
        if self._close_when is not None and self._close_when():
            self.io.stop()

    def _has_work(self) -> bool:
        return self.pool.has_work()

    def _on_loop_error(self, error: BaseException) -> None:
        """Something nobody thought of: what was in flight fails with it, and the loop goes on."""
        broken = self._note_broken(error)
        for connection in self.pool.connections:
            connection.lose(broken)

    def _note_broken(self, error: BaseException) -> GearmanError:
        self.counters.loop_errors += 1
        self.announcer.log(logging.ERROR, "unexpected error in the I/O thread", error=error)
        text = f"an unexpected error in the client's I/O thread: {error!r}; please report it"
        return GearmanError(text, maybe_sent=True)

    def _on_stop(self) -> None:
        """The loop has ended: whatever is left ends too."""
        self.refusing = self.refusing or "the client is closed; make a new one"
        self.pool.close(ClientClosed("the client was closed before the job was done"))
        self.io.run_leftovers()
        self.pool.close(ClientClosed("the client was closed before the job was done"))
        release_all(self._activity)
        self.callbacks.stop()
        self.notices.stop()

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
        """See `Handler.on_events`."""
        try:
            self._take(connection, events)
        except Exception as error:  # something nobody thought of: the loop, and the other connections, must outlive it
            broken = self._note_broken(error)
            connection.lose(broken)
            # The session has given these jobs up already, so the loss of the connection does not end them.
            for _, token, _ in events:
                if isinstance(token, JobFuture):
                    self._end_broken(token, broken)
        if self._activity:
            release_all(self._activity)

    def _end_broken(self, future: JobFuture, broken: GearmanError) -> None:
        if not future._ended:
            future._ended = True
            error = _copy(broken)
            _describe(error, future)
            future.request._future = None
            self._resolve(future, FINISHED, None, error)

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

    def _accepted(self, connection: Connection[ClientSession], future: JobFuture, handle: str) -> None:
        request = future.request
        if future._ended:
            # It timed out, or was cancelled, while it was on its way.
            connection.session.forget(handle, future)
            return
        self.counters.jobs_accepted += 1
        job = request.gearman_job
        server = connection.server
        # In this order: whoever sees the handle, on another thread, sees the connection that it belongs to.
        job.connection = server.public or self._make_public(server)
        job.handle = handle
        request._move(JOB_CREATED)
        if self._tells_accepted:
            self.announcer.tell(JobAccepted(server.name, *_names(job), handle, request.background))
        if request.background:
            self._finish(future, JOB_CREATED, JobReference(server.name, handle, as_text(job.unique)), None)
            return
        future._connection = connection
        future._heard = self._sweep
        if not self._sweeping:
            self._start_sweeping()
        if future._watchers:
            release_all(future._watchers)

    def _make_public(self, server: Server) -> Any:
        server.public = self._connection_for(server.address)
        return server.public

    def _completed(self, future: JobFuture, payload: bytes) -> None:
        if future._ended:
            # It timed out while it was on its way, and came with its result.
            self.counters.late_packets += 1
            return
        self.counters.jobs_completed += 1
        future.request.result_data = payload
        if self._decode is not None:
            future._decoded = True
        self._finish(future, JOB_COMPLETE, payload, None)

    def _failed(self, future: JobFuture) -> None:
        if future._ended:
            self.counters.late_packets += 1
        elif future in self._cancelling:
            # The server has dropped it, and tells so before it answers the command.
            self.cancelled(future)
        else:
            self._worker_failed(
                future, JobFailed(f"the worker of task {future.request.job.task!r} said that it failed")
            )

    def _worker_failed(self, future: JobFuture, error: JobFailed) -> None:
        self.counters.jobs_failed += 1
        connection = future._connection
        error.server = connection.server.name if connection is not None else None
        self._finish(future, JOB_FAILED, None, error)

    def _worker_raised(self, future: JobFuture, data: bytes) -> None:
        if future._ended:
            self.counters.late_packets += 1
            return
        future.request.exception_data = data
        error = JobException(
            f"the worker of task {future.request.job.task!r} raised an exception; "
            f".data holds what it said ({len(data)} bytes)"
        )
        error.data = data
        self._worker_failed(future, error)

    def _refused(self, connection: Connection, token: Any, code: str, text: str) -> None:
        if isinstance(token, JobFuture):
            self.counters.jobs_failed += 1
            task, unique = _names(token.request.job)
            error = ServerError.from_reply(code, text, server=connection.server.name, task=task, unique=unique)
            self._finish(token, JOB_FAILED, None, error)
        elif token is not None:
            token.refused(connection, code, text)

    def _updated(self, connection: Connection, future: JobFuture, kind: int, value: Any) -> None:
        if future._ended:
            self.counters.late_packets += 1
            return
        self.counters.updates += 1
        future._heard = self._sweep
        request = future.request
        callbacks = future._on_update
        if kind == STATUS:
            name = "status"
            numerator, denominator = value
            request._set_status(True, True, numerator, denominator)
            update = JobUpdate(name, None, numerator, denominator)
        else:
            name = "data" if kind == DATA else "warning"
            update = JobUpdate(name, value)
        if self._tells_updated:
            size = 0 if kind == STATUS else len(value)
            self.announcer.tell(JobUpdated(connection.server.name, *_names(request.job), name, size))
        if callbacks is not None and name in callbacks:
            arguments = value if kind == STATUS else (value,)
            self._mailbox(future).put(partial(_call_back, future, callbacks[name], kind != STATUS, arguments))
            return
        if kind == DATA:
            _append(request, "_raw_data", value)
            if request._observers is not None:
                request._observers.append(value)
        elif kind == WARNING:
            _append(request, "_raw_warnings", value)
        if future._recover:
            if future._stream is None:
                future._stream = deque()
            future._stream.append(update)
        if future._watchers:
            release_all(future._watchers)

    # ---- how a job ends --------------------------------------------------------------------------------------------

    def _finish(
        self, future: JobFuture, state: str, result: Any, error: BaseException | None, outcome: str = FINISHED
    ) -> None:
        """Give a job its outcome: the one place where that is done."""
        if future._ended:
            return
        future._ended = True
        request = future.request
        if request.state != state:
            request._move(state)
        if isinstance(error, GearmanError):
            _describe(error, future)
            if error.server is None and future._connection is not None:
                error.server = future._connection.server.name
        if future._timer is not None:
            future._timer.cancel()
            future._timer = None
        future._payload = None
        future._connection = None
        # Before the outcome is set: whoever waited for that may submit the request again at once.
        request._future = None
        if self._tells_finished:
            self._tell_finished(future, error)
        self._resolve(future, outcome, result, error)

    def _resolve(self, future: JobFuture, outcome: str, result: Any, error: BaseException | None) -> None:
        io = self.io
        patience = PATIENCE if io.now >= self._impatient_until else 0.0
        done = future._resolve(outcome, result, error, patience, io.release_soon)
        if done is None:
            # An interrupted caller may have left the locks of hundreds of futures taken: no waiting for the next ones.
            self._impatient_until = self.io.clock() + _IMPATIENCE
            since = self.io.clock()
            self._stubborn.put(partial(self._resolve_stubborn, future, outcome, result, error, since))
        else:
            self._resolved(future)

    def _resolve_stubborn(
        self, future: JobFuture, outcome: str, result: Any, error: BaseException | None, since: float
    ) -> None:
        """On a thread for notices: resolve a future whose lock a caller holds, or has left taken when interrupted."""
        patience = max(0.0, since + LOST_LOCK - self.io.clock())
        if future._resolve(outcome, result, error, patience) is None:
            future._replace_guard()
            future._resolve(outcome, result, error, 0)
        self._resolved(future)

    def _resolved(self, future: JobFuture) -> None:
        """Let go of a future that has its outcome, and tell of it whoever wants to be told."""
        future._client = None
        audience, future._audience = future._audience, None
        if audience is None:
            return
        waiters, callbacks = audience
        if waiters:
            self.notices.submit(partial(future._tell_waiters, waiters, LOST_LOCK))
        if callbacks:
            call = partial(future._call_back, callbacks)
            if future._mailbox is not None:
                future._mailbox.put(call)
            else:
                self.callbacks.submit(call)

    def _fail(self, future: JobFuture, error: GearmanError, state: str = JOB_FAILED) -> None:
        self.counters.jobs_failed += 1
        self._finish(future, state, None, error)

    def _forget(self, future: JobFuture) -> bool:
        """Nobody waits for this job any more: what still comes for it is not for us. Return whether it never left."""
        if self.pool.withdraw(future):
            future.request.connection_attempts = max(0, future.request.connection_attempts - 1)
            return future.request.connection_attempts == 0
        connection, handle = future._connection, future.job.handle
        if connection is not None and handle is not None:
            connection.session.forget(handle, future)
        return False

    # ---- lost connections ------------------------------------------------------------------------------------------

    def on_lost(self, connection: Connection[ClientSession], error: GearmanError, entries: LostEntries) -> None:
        """See `Handler.on_lost`; promises.md's first table."""
        seen: set[int] = set()
        # Those that may have been sent first: an interrupted sender leaves an entry in both lists.
        for token in (*(entry[2] for entry in entries.unanswered), *entries.accepted):
            seen.add(id(token))
            if isinstance(token, JobFuture):
                self._lost(connection, token, error)
            elif isinstance(token, Query):
                token.lost(error)
        for entry in entries.unsent:
            token = entry[2]
            if id(token) in seen:
                continue
            if isinstance(token, Query):
                token.lost(error)
            elif token is not None and not token.done():
                self._reroute(entry, token)
        if self._activity:
            release_all(self._activity)

    def _reroute(self, entry: Entry, future: JobFuture) -> None:
        self.pool.park_again(entry, future._key, self.io.clock() + self.options.submit_timeout)

    def _lost(self, connection: Connection, future: JobFuture, error: GearmanError) -> None:
        """A job was at the server when the connection went."""
        request = future.request
        if future._ended:
            return
        accepted = request.state == JOB_CREATED
        attempts_left = request.connection_attempts < request.max_connection_attempts
        if isinstance(error, ClientClosed):
            self._fail(future, ClientClosed(str(error), maybe_sent=True))
        elif attempts_left and (future._recover or not accepted):
            self._send_again(future, error)
        else:
            self.counters.jobs_lost += 1
            request.connection_failed = True
            self._finish(future, JOB_UNKNOWN, None, _connection_lost(connection, request, error))

    def _send_again(self, future: JobFuture, error: GearmanError) -> None:
        request = future.request
        job = request.gearman_job
        if not future._unique_given and not request.background:
            # The old unique may belong to a zombie: a job that the server forgets as soon as a worker takes it.
            job.unique = self.new_unique()
        request._move(JOB_UNKNOWN)
        request._move(JOB_PENDING)
        request.connection_attempts += 1
        job.handle = None
        future._connection = None
        self.counters.jobs_retried += 1
        self.announcer.tell(JobRetried(error.server, *_names(job), request.connection_attempts, str(error)))
        packet = pack(future._command, *future._arguments(_bytes(job.unique)))
        self._reroute((packet, submit_reply(request.background), future), future)

    def new_unique(self) -> str:
        """Return a unique that nobody else has."""
        if not self.io.running:
            self._renew_uniques()
        if not HAS_GIL:
            # Two threads can get the same number from `itertools.count`.
            return os.urandom(self._unique_bytes).hex()
        return f"{self._unique_prefix}{next(self._unique_numbers)}"

    def _renew_uniques(self) -> None:
        """Choose another first half, and another number to count from, for the uniques made from now on.

        Until the I/O thread runs, a fork that Python is not told of (uWSGI's) can have copied the former ones. If two
        processes made the same uniques, the server would take their jobs for one, and give both the same result.
        """
        self._unique_prefix = os.urandom(self._unique_bytes).hex()[:-12]
        # It does not begin at 0: a short prefix may be another process's too. Twelve digits, for longer than any client
        # lives; as decimals, which cost half as much as hexadecimals of a fixed width.
        self._unique_numbers = itertools.count(10**11 + int.from_bytes(os.urandom(5), "big") % (8 * 10**11))

    def on_unroutable(self, entry: Entry, error: GearmanError) -> None:
        """See `Handler.on_unroutable`."""
        token = entry[2]
        if isinstance(token, JobFuture):
            if not token.done():
                token.request.connection_attempts = max(0, token.request.connection_attempts - 1)
                # The error is shared by all that waited; each gets its own, with its task.
                mine = _copy(error)
                # One that waited to be sent again was at a server once.
                mine.maybe_sent = token.request.connection_attempts > 0
                self._fail(token, mine, JOB_FAILED if isinstance(error, ClientClosed) else JOB_UNKNOWN)
        elif isinstance(token, Query):
            token.lost(error)

    # ---- time limits and silent jobs -------------------------------------------------------------------------------

    def _watch_timeout(self, future: JobFuture, deadline: float, timeout: float) -> None:
        if not future._ended:
            future._timer = self.io.call_at(deadline, partial(self._timed_out, future, timeout))

    def _timed_out(self, future: JobFuture, timeout: float) -> None:
        if future._ended:
            return
        self.counters.jobs_timed_out += 1
        task = future.job.task
        unsent = self._forget(future)
        if unsent:
            where = "it was not sent"
        elif future.request.state == JOB_CREATED:
            where = "the server was not told, and a worker may still run it"
        else:
            where = "the server had not accepted it, and may still do so"
        text = f"task {task!r} has no result after its timeout of {timeout:g} s; {where}"
        self._finish(future, JOB_FAILED, None, JobTimeout(text, maybe_sent=not unsent, retryable=unsent))

    def _start_sweeping(self) -> None:
        self._sweeping = True
        self.io.call_later(self.options.lost_job_check / 2, self._sweep_jobs)

    def _sweep_jobs(self) -> None:
        """Ask the server after each job that has been silent for ``lost_job_check`` seconds.

        gearmand drops a job without a word when it was submitted with the unique of one whose client had left.
        """
        self._sweep += 1
        jobs = 0
        for connection in self.pool.connections:
            session = connection.session
            jobs += len(session.handles)
            silent = [(handle, future) for handle, future in session.accepted() if self._sweep - future._heard > 1]
            for handle, future in silent[:_SWEEP_LIMIT]:
                future._heard = self._sweep
                packet = pack(Command.GET_STATUS, _bytes(handle))
                connection.submit((packet, Command.STATUS_RES, _LostCheck(self, future)))
        self._sweeping = bool(jobs)
        if self._sweeping:
            self.io.call_later(self.options.lost_job_check / 2, self._sweep_jobs)

    def job_checked(self, connection: Connection, future: JobFuture, known: bool) -> None:
        """The server has said whether it still has a job.

        It is this connection's still, under the handle that was asked for: a job is sent again only when its connection
        is lost, and nothing that is answered later on that one is read.
        """
        if known or future._ended:
            return
        self._forget(future)
        self.counters.jobs_lost += 1
        text = (
            f"{connection.server.address} no longer has the job of task {future.job.task!r}, and never "
            "said how it ended; it may or may not have run"
        )
        self._finish(future, JOB_FAILED, None, JobLost(text, server=connection.server.name, maybe_sent=True))

    # ---- cancel ----------------------------------------------------------------------------------------------------

    def _cancel(self, future: JobFuture, promise: Promise, pause: float = 0.005) -> None:
        connection, handle = future._connection, future.job.handle
        if future._ended:
            promise.set(future.cancelled())
        elif self.pool.withdraw(future):
            future.request.connection_attempts -= 1
            self.cancelled(future)
            promise.set(True)
        elif connection is not None and handle is not None:
            query = _CancelCheck(self, future, promise)
            connection.submit((pack(Command.GET_STATUS, _bytes(handle)), Command.STATUS_RES, query))
        else:
            # On its way: the server's answer comes first. A silent server is asked after less and less often.
            self.io.call_later(pause, partial(self._cancel, future, promise, min(2 * pause, 0.2)))

    def cancelled(self, future: JobFuture) -> None:
        """The job is withdrawn."""
        if future._ended:
            return
        self._forget(future)
        self.counters.jobs_cancelled += 1
        # The server says that no worker has it, and is then told to drop it: a worker may take it in between.
        maybe_sent = future.request.connection_attempts > 0
        error = JobCancelled(f"task {future.job.task!r} was cancelled", maybe_sent=maybe_sent)
        self._finish(future, JOB_FAILED, None, error, CANCELLED)

    # ---- listeners and callbacks -----------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """See `Handler.emit`."""
        self.announcer.connection(event)

    def _tell_finished(self, future: JobFuture, error: BaseException | None) -> None:
        request = future.request
        outcome = type(error).__name__ if error is not None else "accepted" if request.background else "complete"
        connection = request.job.connection
        server = str(connection) if connection is not None else None
        duration = self.io.clock() - future._started
        self.announcer.tell(JobFinished(server, *_names(request.job), outcome, duration))

    def _mailbox(self, future: JobFuture) -> Mailbox:
        if future._mailbox is None:
            future._mailbox = Mailbox(self.callbacks)
        return future._mailbox


class _LostCheck(Query):
    """Asks whether the server still has a job that has long been silent."""

    def __init__(self, dispatcher: Dispatcher, future: JobFuture) -> None:
        self._dispatcher = dispatcher
        self._future = future

    def answered(self, connection: Connection, value: list[bytes]) -> None:
        self._dispatcher.job_checked(connection, self._future, value[1] == b"1")


class _CancelCheck(Query):
    """Asks whether a job runs, and has the server drop it if not.

    A job that others wait for too is not dropped, which would fail theirs: only this future's part in it ends. Others
    can wait only for one of a unique that a user gave; how many do, the server tells by the unique alone.
    """

    def __init__(self, dispatcher: Dispatcher, future: JobFuture, promise: Promise) -> None:
        self._dispatcher = dispatcher
        self._future = future
        self._promise = promise
        self._asked = "whether it runs"

    def answered(self, connection: Connection[ClientSession], value: Any) -> None:
        future = self._future
        handle = future.job.handle
        if self._asked == "to drop it":
            self._end(dropped=True)
        elif future._ended or handle is None or value[1] != b"1" or value[2] == b"1":
            self._end(dropped=False)
        elif self._asked == "who waits for it":
            if number(value[5]) > 1:
                self._end(dropped=True)
            else:
                self._drop(connection, handle)
        elif connection.session.shares(handle):
            self._end(dropped=True)
        elif future._unique_given and future._key != b"-":
            self._asked = "who waits for it"
            packet = pack(Command.GET_STATUS_UNIQUE, _bytes(future.job.unique))
            connection.submit((packet, Command.STATUS_RES_UNIQUE, self))
        else:
            self._drop(connection, handle)

    def _drop(self, connection: Connection, handle: str) -> None:
        self._asked = "to drop it"
        # It stays the connection's: if it completes after all, or the connection is lost, it ends by that.
        self._dispatcher._cancelling.add(self._future)
        connection.submit((b"cancel job " + _bytes(handle) + b"\r\n", TEXT_LINE, self))

    def refused(self, connection: Connection, code: str, text: str) -> None:
        self._end(dropped=False)

    def lost(self, error: GearmanError) -> None:
        self._end(dropped=False)

    def _end(self, dropped: bool) -> None:
        self._dispatcher._cancelling.discard(self._future)
        if dropped:
            self._dispatcher.cancelled(self._future)
        self._promise.set(self._future.cancelled())


def _append(request: Any, name: str, value: bytes) -> None:
    values = getattr(request, name)
    if values is None:
        values = deque()
        setattr(request, name, values)
    values.append(value)


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


def _describe(error: GearmanError, future: JobFuture) -> None:
    error.task, error.unique = _names(future.request.job)


def _names(job: GearmanJob) -> tuple[str, str]:
    """Return task and unique as events and errors tell them."""
    return as_text(job.task), as_text(job.unique)


def _copy(error: GearmanError) -> GearmanError:
    import copy

    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied


def _connection_lost(connection: Connection, request: Any, error: GearmanError) -> ConnectionLost:
    text = (
        f"the connection was lost while task {as_text(request.job.task)!r} was at the server; it may have run ({error})"
    )
    lost = ConnectionLost(text, server=connection.server.name, maybe_sent=True, retryable=True)
    lost.__cause__ = error
    return lost


def _call_back(future: JobFuture, callback: Callable[..., object], decode: bool, arguments: Iterable[Any]) -> None:
    if decode:
        arguments = [future.request._decode(argument) for argument in arguments]
    callback(*arguments)
