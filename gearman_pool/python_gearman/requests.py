"""What python-gearman's calls do with requests and time limits, whichever of them is called. No request is sent here.

Threads: any may call these, of the requests that are its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from ..constants import JOB_CREATED
from ..errors import ConnectionLost, ExceededConnectionAttempts, GearmanError, JobFailed
from ..jobs.flight import flight_of
from ..jobs.future import JobFuture
from ..jobs.job import GearmanJobRequest

__all__ = [
    "checked_requests",
    "deadline_of",
    "is_decided",
    "is_ready",
    "raise_refusal",
    "take_back",
    "time_left",
    "time_limit",
]


def checked_requests(job_requests: Iterable[GearmanJobRequest]) -> list[GearmanJobRequest]:
    """Return requests as a list.

    Raises:
        TypeError: they are none.
    """
    if not isinstance(job_requests, (list, tuple, set)):
        raise TypeError(f"job_requests is a {type(job_requests).__name__}; it must be a list of GearmanJobRequest")
    requests = list(job_requests)
    for request in requests:
        if not isinstance(request, GearmanJobRequest):
            raise TypeError(f"{request!r} is not a GearmanJobRequest")
    return requests


def is_ready(request: GearmanJobRequest) -> bool:
    """Whether a request has been checked and encoded, and not sent."""
    flight = flight_of(request)
    return flight is not None and flight.engine is None


def is_decided(request: GearmanJobRequest, future: JobFuture) -> bool:
    """Whether a request was accepted, or will not be."""
    # In the job's last step its request has the new state first, and the future its error a moment later.
    return request.state == JOB_CREATED or future.done()


def take_back(request: GearmanJobRequest) -> None:
    """Let a request that was made ready, and not sent, be as it was."""
    if is_ready(request):
        request._future = None


def time_limit(poll_timeout: float | None, timeout: float | None) -> float | None:
    """Return the limit that was given by one of its two names.

    Raises:
        TypeError: both were given.
    """
    if poll_timeout is not None and timeout is not None:
        raise TypeError("timeout is the older name of poll_timeout; give one of them")
    return poll_timeout if timeout is None else timeout


def deadline_of(poll_timeout: float | None, timeout: float | None) -> float | None:
    """Return the moment, on the monotonic clock, at which a limit is over; None for no limit."""
    limit = time_limit(poll_timeout, timeout)
    return None if limit is None else monotonic() + limit


def time_left(deadline: float | None) -> float | None:
    """Return how many seconds are left until then; None for no limit."""
    return None if deadline is None else max(0.0, deadline - monotonic())


def raise_refusal(request: GearmanJobRequest, future: JobFuture | None) -> None:
    """Raise, once, what kept a request from being accepted; how an accepted job ended is in its state."""
    request._unaccepted = None
    error = None if future is None or not future.done() else future.error
    if error is None or isinstance(error, JobFailed):
        return
    if isinstance(error, ConnectionLost):
        # A loss is no exception here, unless sending again was asked for and did not help.
        if request.max_connection_attempts > 1 and request.job.handle is None:
            text = (
                f"task {request.job.task!r} was sent {request.connection_attempts} times and never accepted ({error})"
            )
            raise ExceededConnectionAttempts(text, server=error.server, task=error.task, unique=error.unique) from error
        return
    if isinstance(error, GearmanError) and request.job.handle is None:
        raise error
