"""`JobFuture`: a real `concurrent.futures.Future` whose waiting callers share no lock with the I/O thread.

Two things differ from the standard library's class, both on purpose:

* ``result()`` does not wait on a condition. A waiting caller adds a lock of its own to a list, looks at the state once
  more, and waits for that lock; the I/O thread sets the state and then releases the locks it finds. An exception that
  is raised into a waiting caller from outside (Ctrl-C, a time limit) can leave the standard class's lock taken, and the
  thread that resolves futures then waits for it for ever: a ThreadPoolExecutor froze after about 150 such exceptions.
* The lock that `concurrent.futures.wait` and `as_completed` rely on is still there and still guards the state, but the
  I/O thread waits for it 20 ms at the most; then a callback thread resolves that future.

It also takes a third of the memory: a job in flight costs its future, so what is rarely used is made when it is used.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from .errors import AnyTimeout, DecodeError, InvalidClientState, JobException
from .job import GearmanJob, GearmanJobRequest, JobUpdate, as_text, fraction
from .threads.waiting import release_all, wait_for

if TYPE_CHECKING:
    from .protocol.client import ClientSession
    from .protocol.commands import Command
    from .threads.callbacks import Mailbox
    from .transport.connection import Connection
    from .transport.servers import Server

__all__ = ["JobFuture"]

log: logging.Logger = logging.getLogger("gearman_pool.callbacks")

PENDING = "PENDING"
CANCELLED = "CANCELLED_AND_NOTIFIED"
FINISHED = "FINISHED"
_OPEN = frozenset((PENDING, "RUNNING"))

#: What a later Python's class has and this one does not know of.
_NEWER_ATTRIBUTES = sorted(
    set(vars(concurrent.futures.Future()))
    - {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}
)

_RLock: Any = type(threading.RLock())


class _Guard(_RLock):  # type: ignore[misc]
    """The lock behind ``Future._condition``: the standard library enters and leaves it, and nobody waits on it."""

    __slots__ = ()

    def notify_all(self) -> None:
        """Nobody waits here: see `JobFuture._wait`."""


class JobFuture(concurrent.futures.Future[Any]):
    """The future of one job. Made by `GearmanClient.submit` and its like, not by users.

    It works wherever a `concurrent.futures.Future` does (`wait`, `as_completed`, `asyncio.wrap_future`), and with
    ``await``.
    All methods may be called from any thread. Done callbacks run on a callback thread, or at once if the job is done.

    Attributes:
        request: The `GearmanJobRequest`.
        job: The `GearmanJob`.

    Example::

        future = client.submit("resize", image, timeout=30)
        thumbnail = future.result(timeout=5)
    """

    # ``_condition`` guards ``_state``, ``_result``, ``_exception``, ``_done_callbacks`` and ``_waiters`` (the
    # standard library's names).
    # ``_blocked`` and ``_watchers`` are lists of callers' own locks, changed by single operations. The rest is the
    # dispatcher's. What is read for every job stands in slots, which is cheapest up to Python 3.11; what a job rarely
    # has stands on the class until it is there, and costs neither time nor memory then.
    __slots__ = (
        "_audience",
        "_blocked",
        "_callback_list",
        "_client",
        "_command",
        "_condition",
        "_connection",
        "_decoded",
        "_dispatcher",
        "_ended",
        "_exception",
        "_heard",
        "_key",
        "_payload",
        "_recover",
        "_result",
        "_state",
        "_task",
        "_timer",
        "_unique_given",
        "_waiter_list",
        "request",
    )

    _watchers: Any = ()
    _epoch: bytes | None = None
    _started = 0.0
    _stream: deque[JobUpdate] | None = None
    _mailbox: Mailbox | None = None
    _on_update: dict[str, Callable[..., object]] | None = None

    def __init__(
        self,
        request: GearmanJobRequest,
        client: Dispatching,
        command: Command,
        task: bytes,
        payload: bytes,
        key: bytes | None,
        unique_given: bool,
        recover: bool = True,
    ) -> None:
        # Not the base class's __init__, which makes at once what is made here when it is needed.
        self._condition = _Guard()
        self._state = PENDING
        self._result = None
        self._exception: BaseException | None = None
        self._callback_list: list[Callable[[Any], object]] | None = None
        self._waiter_list: list[Any] | None = None
        # Who is to be told of the outcome: the standard library's waiters and asyncio, and users' callbacks.
        self._audience: tuple[list[Any], list[Callable[[Any], object]]] | None = None
        self._timer: Any = None
        self._blocked: list[threading.Lock] = []
        self.request: GearmanJobRequest = request
        self._client: Dispatching | None = client
        # Which process's half of the client has it; a fork leaves that half behind.
        self._dispatcher: object = None
        self._command = command
        self._task = task
        self._payload: bytes | None = payload
        #: By what its server is chosen: the user's unique, or the server itself.
        self._key: bytes | Server | None = key
        self._unique_given = unique_given
        #: Whether an accepted job may be sent again, which python-gearman's layer never does.
        self._recover = recover
        self._connection: Connection[ClientSession] | None = None
        self._heard = 0
        # The I/O thread is done with it, though its outcome may still wait for a lock.
        self._ended = False
        self._decoded = False
        request._future = self
        if _NEWER_ATTRIBUTES:
            self._add_newer_attributes()

    def _add_newer_attributes(self) -> None:
        model = concurrent.futures.Future[Any]()
        for name in _NEWER_ATTRIBUTES:
            setattr(self, name, getattr(model, name))

    def __repr__(self) -> str:
        job = self.request.job
        return f"<JobFuture {self._state.lower()} task={job.task!r} unique={job.unique!r} handle={job.handle!r}>"

    # The standard library's functions find these two under its own names, and only some futures ever need them.

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        if self._callback_list is None:
            self._callback_list = []
        return self._callback_list

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        if self._waiter_list is None:
            self._waiter_list = []
        return self._waiter_list

    # ---- for users -------------------------------------------------------------------------------------------------

    @property
    def job(self) -> GearmanJob:
        """The `GearmanJob`."""
        return self.request.gearman_job

    @property
    def progress(self) -> float | None:
        """What the worker said last of its progress, from 0.0 to 1.0; None if it said nothing."""
        status = self.request.status
        return fraction(status["numerator"], status["denominator"]) if status else None

    def done(self) -> bool:
        """Whether the job has its result, or an error, or was cancelled.

        Example::

            ready = [future for future in futures if future.done()]
        """
        return self._state not in _OPEN

    def cancelled(self) -> bool:
        """Whether `cancel` succeeded.

        Example::

            assert future.cancel() and future.cancelled()
        """
        return self._state == CANCELLED

    def running(self) -> bool:
        """Whether a worker is known to have it: it has sent an update, and the job is not done.

        Example::

            waiting = [future for future in futures if not future.running() and not future.done()]
        """
        return self._state in _OPEN and bool(self.request.status or self.request._raw_data or self._stream)

    def result(self, timeout: float | None = None) -> Any:
        """Return the decoded result; for a background job its `JobReference`.

        Args:
            timeout: How long to wait, in seconds; for ever if None.

        Raises:
            TimeoutError: it took longer. The job goes on, and the future can be asked again.
            JobFailed: the worker said that it failed; `JobException` if it said why.
            GearmanError: any other way for a job to end; see `gearman_pool.errors`.
            JobCancelled: `cancel` succeeded; also a `concurrent.futures.CancelledError`.
            DecodeError: the encoder does not understand the result.

        Example::

            try:
                thumbnail = future.result(timeout=5)
            except JobFailed as error:
                log.warning("no thumbnail: %s", error)
        """
        if self._state in _OPEN:
            self._wait(timeout)
        if self._decoded:
            self._decode_result()
        if self._exception is not None:
            try:
                self._decode_exception()
                raise self._exception
            finally:
                # The exception's traceback refers to this frame, and this frame to the exception.
                del self
        return self._result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception that `result` would raise, or None. Blocks as `result` does.

        Args:
            timeout: How long to wait, in seconds; for ever if None.

        Raises:
            TimeoutError: it took longer.
            JobCancelled: `cancel` succeeded.

        Example::

            failed = [future for future in futures if future.exception(timeout=5) is not None]
        """
        if self._state in _OPEN:
            self._wait(timeout)
        if self._state == CANCELLED:
            try:
                assert self._exception is not None
                raise self._exception
            finally:
                del self
        if self._decoded:
            self._decode_result()
        self._decode_exception()
        return self._exception

    def cancel(self) -> bool:
        """Withdraw the job if it is not on its way, or ask the server to drop it if no worker has it.

        Blocks for the server's answer, for ``health_check_timeout`` at the most; in a thread that runs an asyncio
        loop it only asks, and returns False unless the job had not been sent.

        Returns:
            Whether the job is cancelled. False once a worker has it, or if it is done. A worker that takes the job
            in the very moment in which the server is told to drop it runs it all the same; its result goes nowhere.
            A job that others wait for too, by its ``unique``, is not dropped: it goes on for them.

        Example::

            if not future.cancel():
                print("a worker has it already")
        """
        client = self._client
        if self._state in _OPEN and client is not None:
            return client.cancel(self)
        return self._state == CANCELLED

    def updates(self, timeout: float | None = None) -> Iterator[JobUpdate]:
        """Yield what the worker sends, from the first update on, until the job is done.

        What is yielded is not kept: a stream of any length needs little memory. It is for one consumer. Updates that
        went to an ``on_data``, ``on_warning`` or ``on_status`` callback are not seen here.

        Args:
            timeout: The longest wait for the next update, in seconds; for ever if None.

        Raises:
            TimeoutError: nothing came for so long. The job goes on.
            GearmanError: the job ended otherwise than with a result, as `result` raises it.

        Example::

            def view(request):
                return StreamingHttpResponse(u.data for u in client.submit("export").updates(60) if u.kind == "data")
        """
        while True:
            update = self._next_update(timeout)
            if update is None:
                self.result(0)
                return
            yield update

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.wrap_future(self).__await__()

    def _get_snapshot(self) -> tuple[bool, bool, Any, BaseException | None]:
        """Return done, cancelled, result and exception: what asyncio asks for from Python 3.14 on."""
        if self._state in _OPEN:
            return False, False, None, None
        if self._state == CANCELLED:
            return True, True, None, None
        error = self.exception()
        return True, False, None if error is not None else self._result, error

    # ---- waiting ---------------------------------------------------------------------------------------------------

    def _wait(self, timeout: float | None) -> None:
        """Wait until the job is done."""
        client = self._client
        if client is not None:
            client.before_waiting(self)
        blocked = self._blocked
        deadline = None if timeout is None else monotonic() + timeout
        while self._state in _OPEN:
            waiter = threading.Lock()
            waiter.acquire()
            blocked.append(waiter)
            if self._state not in _OPEN:
                return
            if deadline is None:
                waiter.acquire()
            elif not waiter.acquire(timeout=max(0.0, deadline - monotonic())):
                _remove(blocked, waiter)
                if self._state not in _OPEN:
                    return
                raise self._timeout(timeout)

    def _watch(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until ``condition`` holds, looking whenever something happens to the job; return whether it does."""
        client = self._client
        if client is not None:
            client.before_waiting(self)
        deadline = None if timeout is None else monotonic() + timeout
        # One list for all who watch, though several may be the first.
        return wait_for(condition, self.__dict__.setdefault("_watchers", []), deadline)

    def _next_update(self, timeout: float | None) -> JobUpdate | None:
        while True:
            stream = self._stream
            if stream:
                update = stream.popleft()
                if update.kind == "status":
                    return update
                raw = self.request._raw_data if update.kind == "data" else self.request._raw_warnings
                if raw and raw[0] is update.data:
                    raw.popleft()
                return JobUpdate(update.kind, self.request._decode(update.data))
            if self._state not in _OPEN:
                # What came before the end was put into the stream before the state was set.
                if self._stream:
                    continue
                return None
            if not self._watch(lambda: bool(self._stream) or self._state not in _OPEN, timeout):
                raise self._timeout(timeout)

    def _timeout(self, timeout: float | None) -> Exception:
        job = self.request.job
        where = f", state {self.request.state}" + (f", handle {job.handle}" if job.handle else "")
        return AnyTimeout(f"task {job.task!r} has no result after {timeout:g} s; the job goes on{where}")

    def _decode_result(self) -> None:
        """Make the result of what the worker sent. Who asks for it does that: encoders are users' code."""
        request = self.request
        try:
            self._result = request.result
        except Exception as error:
            task, job = as_text(request.job.task), request.job
            text = (
                f"the encoder cannot decode the result of task {task!r} ({len(request.result_data or b'')} bytes): "
                f"{type(error).__name__}; request.result_data holds the bytes"
            )
            server = None if job.connection is None else str(job.connection)
            failed = DecodeError(text, server=server, task=task, unique=as_text(job.unique), maybe_sent=True)
            failed.__cause__ = error
            self._exception = failed
        self._decoded = False

    def _decode_exception(self) -> None:
        error = self._exception
        if isinstance(error, JobException) and isinstance(error.data, bytes):
            error.data = self.request.exception

    # ---- the dispatcher's ------------------------------------------------------------------------------------------

    def _arguments(self, unique: bytes) -> tuple[bytes, ...]:
        """Return what its packet holds."""
        payload = self._payload
        assert payload is not None
        epoch = self._epoch
        return (self._task, unique, payload) if epoch is None else (self._task, unique, epoch, payload)

    def set_result(self, result: Any) -> None:
        """Not for users: the server decides.

        Raises:
            InvalidClientState: always.
        """
        raise InvalidClientState("the result of a JobFuture comes from the server; it cannot be set")

    def set_exception(self, exception: BaseException | None) -> None:
        """Not for users: the server decides.

        Raises:
            InvalidClientState: always.
        """
        raise InvalidClientState("the outcome of a JobFuture comes from the server; it cannot be set")

    def _resolve(
        self,
        state: str,
        result: Any,
        error: BaseException | None,
        patience: float,
        release: Callable[[list[threading.Lock]], object] = release_all,
    ) -> bool | None:
        """Set the outcome and have ``release`` wake who waits for it.

        Returns:
            True if it was set, False if there was one already, None if the lock could not be had in ``patience``
            seconds.
        """
        guard = self._condition
        if not guard.acquire(False) and not (patience and guard.acquire(timeout=patience)):
            return None
        try:
            if self._state not in _OPEN:
                return False
            self._result = result
            if error is not None:
                self._exception = error
            self._state = state
            # In one step with the state: whoever comes later finds the job done and expects to be told nothing.
            if self._waiter_list or self._callback_list:
                self._audience = _sort_audience(self._waiter_list, self._callback_list)
        finally:
            guard.release()
        # A copy, not a look: it takes the list's own lock where there is no GIL, and so orders this after the state.
        if self._blocked.copy():
            release(self._blocked)
        if self._watchers:
            release(self._watchers)
        return True

    def _replace_guard(self) -> None:
        """Give it a new lock, because the old one was left taken by a caller that was interrupted, or by a fork."""
        self._condition = _Guard()

    def _tell_waiters(self, waiters: list[Any], patience: float) -> None:
        """Tell who waits with `concurrent.futures.wait` and the like, or in an asyncio loop. Not on the I/O thread."""
        for waiter in waiters:
            try:
                if callable(waiter):
                    waiter(self)
                elif not _reachable(waiter, patience):
                    continue
                elif self._state == CANCELLED:
                    waiter.add_cancelled(self)
                elif self._exception is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            except Exception:  # a loop that is closed by now; the waiters behind this one must be told
                log.exception("whoever waits for task %r could not be told that it is done", self.request.job.task)

    def _call_back(self, callbacks: list[Callable[[Any], object]]) -> None:
        """Run users' callbacks. On a callback thread."""
        for callback in callbacks:
            try:
                callback(self)
            except BaseException:  # SystemExit too: the callbacks behind this one must run
                log.exception("a done callback of task %r failed", self.request.job.task)


class Dispatching(Protocol):
    """What a future asks of its client."""

    def cancel(self, future: JobFuture) -> bool:
        """Try to cancel the job; return whether that was done."""

    def before_waiting(self, future: JobFuture) -> None:
        """Raise if the caller is the I/O thread, which must not wait for itself; end a copy of the parent's job."""


def _sort_audience(
    waiters: list[Any] | None, callbacks: list[Callable[[Any], object]] | None
) -> tuple[list[Any], list[Callable[[Any], object]]]:
    """Part those that only pass the news on, in library code and at once, from users' callbacks, which may block."""
    to_tell = list(waiters or ())
    to_call: list[Callable[[Any], object]] = []
    for callback in callbacks or ():
        # What asyncio.wrap_future, and so await, has added: it hands the future to its loop.
        passes_on = getattr(callback, "__module__", None) == "asyncio.futures"
        (to_tell if passes_on else to_call).append(callback)
    return to_tell, to_call


def _reachable(waiter: Any, patience: float) -> bool:
    """Whether the locks of a waiter of the standard library's can be had; a caller that was interrupted left them."""
    if getattr(waiter, "left_by_its_caller", False):
        return False
    for lock in (getattr(waiter, "lock", None), waiter.event._cond):
        if lock is not None:
            if not lock.acquire(timeout=patience):
                waiter.left_by_its_caller = True
                return False
            lock.release()
    return True


def _remove(waiters: list[threading.Lock], waiter: threading.Lock) -> None:
    try:
        waiters.remove(waiter)
    except ValueError:  # the I/O thread has just taken it
        return
