"""`JobFuture`: what users have of a job on its way.

Threads: all methods may be called from any thread, except that the I/O thread must not wait.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from ..errors import AnyTimeout, DecodeError, InvalidClientState, JobException
from ..threads.outcome import CANCELLED, OPEN
from .flight import Flight
from .job import GearmanJob, GearmanJobRequest
from .views import JobUpdate, as_text, fraction

__all__ = ["JobFuture"]


class JobFuture(Flight):
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

    __slots__ = ()

    request: GearmanJobRequest

    @property
    def job(self) -> GearmanJob:
        """The `GearmanJob`."""
        return self.request.gearman_job

    def __repr__(self) -> str:
        job = self.request.job
        return f"<JobFuture {self._state.lower()} task={job.task!r} unique={job.unique!r} handle={job.handle!r}>"

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
        return self._state not in OPEN

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
        return self._state in OPEN and bool(self.request.status or self.request._raw_data or self._stream)

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
        if self._state in OPEN:
            self._wait(timeout)
        if self._undecoded:
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
        if self._state in OPEN:
            self._wait(timeout)
        if self._state == CANCELLED:
            try:
                assert self._exception is not None
                raise self._exception
            finally:
                del self
        if self._undecoded:
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
        engine = self.engine
        if self._state in OPEN and engine is not None:
            return engine.cancel(self)
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
        if self._state in OPEN:
            return False, False, None, None
        if self._state == CANCELLED:
            return True, True, None, None
        error = self.exception()
        return True, False, None if error is not None else self._result, error

    # ---- waiting ---------------------------------------------------------------------------------------------------

    def _wait(self, timeout: float | None) -> None:
        """Wait until the job is done."""
        if self.engine is not None:
            self.engine.before_waiting(self)
        if not self.wait_done(timeout):
            raise self._timeout(timeout)

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
            if self._state not in OPEN:
                # What came before the end was put into the stream before the state was set.
                if self._stream:
                    continue
                return None
            if not self.watch(lambda: bool(self._stream) or self._state not in OPEN, timeout):
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
        self._undecoded = False

    def _decode_exception(self) -> None:
        error = self._exception
        if isinstance(error, JobException) and isinstance(error.data, bytes):
            error.data = self.request.exception

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


# Where users know the class.
JobFuture.__module__ = "gearman_pool.future"
