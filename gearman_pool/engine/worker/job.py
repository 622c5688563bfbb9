"""A job as the task that does it sees it, how tasks are called, and how what they give back is encoded.

Threads: any may call any of this. Nothing here blocks or keeps a lock; what is to be sent goes through the worker's own
methods, which a subclass may have overridden.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, Protocol

from ...encoders import BytesEncoder, encode_payload
from ...errors import InvalidWorkerState
from ...jobs.job import GearmanJob
from .held_jobs import Assignment

__all__ = ["GearmanWorkerJob", "Sender", "assignment_of", "encode_result", "give", "takes_worker", "whole_number"]

#: gearmand keeps the numbers of a status in 32 bits.
_MAX_NUMBER = 2**32 - 1


class Sender(Protocol):
    """What a job asks of the worker that runs it."""

    @property
    def stopping(self) -> bool: ...

    def send_job_status(self, current_job: GearmanJob, numerator: float, denominator: float, /) -> None: ...

    def send_job_data(self, current_job: GearmanJob, data: Any, /) -> None: ...

    def send_job_warning(self, current_job: GearmanJob, data: Any, /) -> None: ...


class GearmanWorkerJob(GearmanJob):
    """A job at a worker: what its task is given.

    Besides the attributes of `GearmanJob` it has the methods below. They may be called from any thread, also after the
    task has returned or the server has gone, where they do nothing.

    Attributes:
        data: The payload, decoded.

    Example::

        @worker.task("import")
        def import_rows(job):
            rows = job.data.splitlines()
            for number, row in enumerate(rows):
                if job.stopping:
                    break
                insert(row)
                job.send_status(number + 1, len(rows))
            return b"%d" % (number + 1)
    """

    __slots__ = ("_assignment", "_worker")

    _worker: Sender | None
    _assignment: Assignment | None

    def __init__(self, connection: Any, handle: str | None, task: Any, unique: Any, data: Any) -> None:
        super().__init__(connection, handle, task, unique, data)
        self._worker = None
        self._assignment = None

    @property
    def stopping(self) -> bool:
        """Whether the task should come to an end: the worker stops, the job's time is up, or its server has gone."""
        assignment = self._assignment
        if assignment is None or self._worker is None:
            return False
        return assignment.lost or assignment.overdue or assignment.connection.closed or self._worker.stopping

    def send_status(self, numerator: float, denominator: float) -> None:
        """Tell the client how far the task has come, in whole numbers (others are rounded).

        Raises:
            ValueError, TypeError: a number is below 0, above 2**32 - 1, or none.

        Example::

            job.send_status(1, 3)
        """
        self._require_worker().send_job_status(self, numerator, denominator)

    def send_data(self, data: Any) -> None:
        """Send the client a part of the result; it is encoded as a result is.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            job.send_data(chunk)
        """
        self._require_worker().send_job_data(self, data)

    def send_warning(self, data: Any) -> None:
        """Send the client a warning; it is encoded as a result is.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            job.send_warning(b"the image is very large")
        """
        self._require_worker().send_job_warning(self, data)

    def _require_worker(self) -> Sender:
        if self._worker is None:
            raise TypeError(f"{self!r} was not given to a worker, and has nobody to send anything to")
        return self._worker


# The name by which users import the class and pickles find it.
GearmanWorkerJob.__module__ = "gearman_pool.worker"


def give(job: Any, worker: Sender, assignment: Assignment) -> None:
    """Tell a task's object whose job it is.

    Raises:
        TypeError: it takes no attributes.
    """
    try:
        job._assignment = assignment
        job._worker = worker
    except AttributeError:
        raise TypeError("create_job must return a GearmanWorkerJob, or an object that takes attributes") from None


def assignment_of(job: Any) -> Assignment:
    """Return what a task's object stands for.

    Raises:
        InvalidWorkerState: it was given to no worker.
    """
    assignment: Assignment | None = getattr(job, "_assignment", None)
    if assignment is None:
        raise InvalidWorkerState(f"{job!r} was not given to this worker")
    return assignment


def takes_worker(function: Callable[..., Any]) -> bool:
    """Return whether a task is to be called with (worker, job), as python-gearman does, or with (job).

    Raises:
        TypeError: it can be called with neither, or is a coroutine function.
    """
    if not callable(function):
        raise TypeError(f"a task is a {type(function).__name__}; it must be a function of (job) or (worker, job)")
    call = type(function).__call__
    if any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in (function, call)):
        raise TypeError("a task cannot be a coroutine function; call asyncio.run() in a plain one")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False  # a function in C that does not tell
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    if any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters) or required > 2:
        raise TypeError(f"the task {function!r} needs more than (job) or (worker, job)")
    many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if not positional and not many:
        raise TypeError(f"the task {function!r} takes no arguments; it must take (job) or (worker, job)")
    return required == 2 or (required < 2 and many)


def encode_result(encoder: Any, result: Any) -> bytes:
    """Return the bytes of what a task has returned; None is an empty result.

    Raises:
        EncodeError: the encoder cannot encode it.
    """
    if result is None:
        return b""
    if encoder is BytesEncoder and isinstance(result, reversed):
        # python-gearman's documentation returns ``reversed(job.data)``.
        result = bytes(result)
    return encode_payload(encoder, result)


def whole_number(value: float, what: str) -> bytes:
    """Return a number of a status for the wire.

    Raises:
        ValueError, TypeError: it is none that the server can keep.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is of type {type(value).__name__}; it must be a number")
    if not math.isfinite(value) or not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"{what} is {value!r}; it must be a number from 0 to {_MAX_NUMBER}")
    return b"%d" % round(value)
