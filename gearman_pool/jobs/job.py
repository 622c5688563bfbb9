"""Jobs and requests, python-gearman's, attribute for attribute; and the state machine of a job.

Threads: a request is changed by the thread that submits it, and then by the I/O thread, through the `Flight` of its
job; any thread may read it.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_NONE,
)
from ..errors import InvalidClientState

if TYPE_CHECKING:
    from typing_extensions import deprecated

    from ..threads.waiting import Promise
else:

    def deprecated(text: str) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
        # Type checkers know the other one. With this the package runs where typing_extensions is not installed, such as
        # in a fresh clone, and programs do not load it.
        def mark(getter: Callable[[Any], Any]) -> Callable[[Any], Any]:
            @functools.wraps(getter)
            def warn_and_get(owner: Any) -> Any:
                warnings.warn(text, DeprecationWarning, stacklevel=2)
                return getter(owner)

            warn_and_get.__deprecated__ = text
            return warn_and_get

        return mark


__all__ = ["JOB_MOVES", "GearmanJob", "GearmanJobRequest"]

#: The state machine of a job: what may follow what, and why. The documentation draws this table.
JOB_MOVES: dict[str, dict[str, str]] = {
    JOB_UNKNOWN: {JOB_PENDING: "submitted"},
    JOB_PENDING: {
        JOB_CREATED: "JOB_CREATED: the server has accepted it",
        JOB_FAILED: "ERROR, a time limit, cancelled, or the client was closed",
        JOB_UNKNOWN: "no server, or the connection was lost",
    },
    JOB_CREATED: {
        JOB_COMPLETE: "WORK_COMPLETE",
        JOB_FAILED: "WORK_FAIL, WORK_EXCEPTION, a time limit, cancelled, or the client was closed",
        JOB_UNKNOWN: "the connection was lost",
    },
    JOB_COMPLETE: {},
    JOB_FAILED: {},
}


class GearmanJob:
    """What a job consists of.

    Attributes:
        connection: The server it was given to, a `GearmanConnection`; None before.
        handle: The server's name for it, str; None before. Means nothing on another server, or after a restart.
        task: The task's name.
        unique: The client's name for it, str.
        data: The payload as it was given to the client.

    Example::

        job = GearmanJob(client.connection_list[0], "H:lap:1", None, None, None)
        client.get_job_status(GearmanJobRequest(job)).status["known"]
    """

    __slots__ = ("connection", "data", "handle", "task", "unique")

    def __init__(self, connection: Any, handle: str | None, task: Any, unique: Any, data: Any) -> None:
        self.connection: Any = connection
        self.handle: str | None = handle
        self.task: Any = task
        self.unique: Any = unique
        self.data: Any = data

    def to_dict(self) -> dict[str, Any]:
        """Return task, job_handle, unique and data as a dict.

        Example::

            json.dumps(job.to_dict(), default=repr)
        """
        return {"task": self.task, "job_handle": self.handle, "unique": self.unique, "data": self.data}

    def __repr__(self) -> str:
        return f"<GearmanJob {self.handle!r} at {self.connection}, task={self.task!r}, unique={self.unique!r}>"


def _as_it_is(data: Any) -> Any:
    return data


class GearmanJobRequest:
    """A job's way through the client.

    The I/O thread changes it from the moment it is submitted until it is `complete`, lost or given up; everybody may
    read it. What a job rarely has stands on the class until it is there: it costs nothing then.

    Attributes:
        gearman_job: The `GearmanJob`; also as `job`.
        priority: ``PRIORITY_NONE``, ``PRIORITY_LOW`` or ``PRIORITY_HIGH``.
        background: Whether nobody waits for the result.
        connection_attempts: How often it has been sent.
        max_connection_attempts: How often it may be sent.
        state: ``JOB_UNKNOWN``, ``JOB_PENDING``, ``JOB_CREATED``, ``JOB_FAILED`` or ``JOB_COMPLETE``.
        timed_out: Whether the last wait for it was too short; the job goes on.
        connection_failed: Whether it was lost with its connection.
        status: The last status, a dict of handle, known, running, numerator, denominator, time_received (seconds of
            `time.time`) and last_time_received; empty before.

    Example::

        request = GearmanJobRequest(GearmanJob(None, None, "resize", "image-7", image), initial_priority=PRIORITY_HIGH)
        client.submit_multiple_requests([request], poll_timeout=30)
    """

    result_data: bytes | None = None
    exception_data: bytes | None = None
    state: str = JOB_UNKNOWN
    timed_out: bool = False
    connection_failed: bool = False
    connection_attempts: int = 0
    status: dict[str, Any] = {}  # noqa: RUF012 - replaced, never changed in place

    _result: Any = None
    _result_ready = False
    _exception: Any = None
    _exception_ready = False
    _data: deque[Any] | None = None
    _warnings: deque[Any] | None = None
    _raw_data: deque[bytes] | None = None
    _raw_warnings: deque[bytes] | None = None
    _decode: Callable[[Any], Any] = staticmethod(_as_it_is)
    # The future of its job, from the moment it is made ready until the job ends or is given up.
    _future: Any = None
    _unique_given: bool = True
    _status_promise: Promise | None = None
    # Sent, and not yet seen to be accepted by a wait of python-gearman's layer, which raises why if it never was.
    _unaccepted: Any = None
    # Data for others who ask for the status of this job through a request of their own; see `get_job_status`.
    _observers: deque[bytes] | None = None

    def __init__(
        self,
        gearman_job: GearmanJob,
        initial_priority: str | None = PRIORITY_NONE,
        background: bool = False,
        max_attempts: int = 1,
    ) -> None:
        self.gearman_job = gearman_job
        self.priority = initial_priority
        self.background = background
        self.max_connection_attempts = max_attempts

    def initialize_request(self) -> None:
        """Forget how far it has come: the state is ``JOB_UNKNOWN``, without result, updates and status.

        Example::

            request.initialize_request()
            assert request.state == JOB_UNKNOWN
        """
        mine = self.__dict__
        for name in _PROGRESS:
            mine.pop(name, None)

    def reset(self) -> None:
        """Make it as new, so that it can be submitted once more as another job.

        Example::

            request.reset()
            request.job.data = b"the next one"
            client.submit_multiple_requests([request])
        """
        self.initialize_request()
        self.connection_attempts = 0
        self.gearman_job.connection = None
        self.gearman_job.handle = None

    @property
    def job(self) -> GearmanJob:
        """The `GearmanJob`."""
        return self.gearman_job

    @property
    def unique(self) -> Any:
        """The job's unique, as ``job.unique``."""
        return self.gearman_job.unique

    @property
    def complete(self) -> bool:
        """Whether no more updates come: it is complete or failed, or in the background and accepted."""
        if self.background and self.state == JOB_CREATED:
            return True
        return self.state in (JOB_FAILED, JOB_COMPLETE)

    @property
    def result(self) -> Any:
        """The decoded result; None if there is none (yet)."""
        if not self._result_ready and self.result_data is not None:
            self._result = self._decode(self.result_data)
            self._result_ready = True
        return self._result

    @result.setter
    def result(self, value: Any) -> None:
        self._result = value
        self._result_ready = True

    @property
    def exception(self) -> Any:
        """What the worker said of its exception, decoded if the encoder can; None if there was none."""
        if not self._exception_ready and self.exception_data is not None:
            try:
                self._exception = self._decode(self.exception_data)
            except Exception:  # a worker of another language writes plain text here, whatever the encoder
                self._exception = self.exception_data
            self._exception_ready = True
        return self._exception

    @exception.setter
    def exception(self, value: Any) -> None:
        self._exception = value
        self._exception_ready = True

    @property
    def data_updates(self) -> deque[Any]:
        """What the worker has sent while it works, decoded, oldest first. Yours to take from."""
        if self._data is None:
            self._data = deque()
        return self._decoded(self._raw_data, self._data)

    @property
    def warning_updates(self) -> deque[Any]:
        """The worker's warnings, decoded, oldest first. Yours to take from."""
        if self._warnings is None:
            self._warnings = deque()
        return self._decoded(self._raw_warnings, self._warnings)

    def _decoded(self, raw: deque[bytes] | None, decoded: deque[Any]) -> deque[Any]:
        # Decoded by who reads it: an encoder is the user's code, and none of that runs on the I/O thread.
        while raw:
            try:
                decoded.append(self._decode(raw.popleft()))
            except IndexError:
                break
        return decoded

    @property
    @deprecated("status_updates was replaced by status in python-gearman 2.0.1")
    def status_updates(self) -> deque[tuple[int, int]]:
        """The last (numerator, denominator), in a deque; deprecated since python-gearman 2.0.1: use `status`."""
        if not self.status:
            return deque()
        return deque([(self.status["numerator"], self.status["denominator"])])

    @property
    @deprecated("server_status was replaced by status in python-gearman 2.0.1")
    def server_status(self) -> dict[str, Any]:
        """The last status; deprecated since python-gearman 2.0.1: use `status`."""
        return self.status

    def __repr__(self) -> str:
        timed_out = ", timed out" if self.timed_out else ""
        return f"<GearmanJobRequest {self.state}{timed_out}, task={self.job.task!r}, unique={self.job.unique!r}>"

    # ---- the client's own ------------------------------------------------------------------------------------------

    def _move(self, state: str) -> None:
        """Go to another state.

        Raises:
            InvalidClientState: the table has no such move; that is a bug.
        """
        if state not in JOB_MOVES[self.state]:
            raise InvalidClientState(f"job {self.job.task!r}: no move from {self.state} to {state}")
        self.state = state

    def _set_status(self, known: bool, running: bool, numerator: int, denominator: int) -> None:
        last = self.status.get("time_received")
        self.status = {
            "handle": self.job.handle,
            "known": known,
            "running": running,
            "numerator": numerator,
            "denominator": denominator,
            "time_received": time.time(),
            "last_time_received": last,
        }


_PROGRESS = (
    "result_data",
    "exception_data",
    "state",
    "timed_out",
    "connection_failed",
    "status",
    "_result",
    "_result_ready",
    "_exception",
    "_exception_ready",
    "_data",
    "_warnings",
    "_raw_data",
    "_raw_warnings",
    "_future",
    "_status_promise",
    "_unaccepted",
    "_observers",
)


# Where users know these classes, and where pickles look for them, those of older versions and those that they read.
for _class in (GearmanJob, GearmanJobRequest):
    _class.__module__ = "gearman_pool.job"
