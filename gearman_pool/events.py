"""What a client tells about itself: events for listeners, and counters.

A listener gets facts, never the client's own objects: each event is frozen. Listeners run on a callback thread, in the
order in which things happened; one that raises is logged once and does no harm. They add nothing to the cost of a job
when there are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "ClientStats",
    "ConnectionClosed",
    "ConnectionFailed",
    "ConnectionOpened",
    "Event",
    "JobAccepted",
    "JobFinished",
    "JobRetried",
    "JobUpdated",
    "Listener",
    "ServerInfo",
    "TaskFinished",
    "TaskStarted",
    "WorkerStats",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. ``server`` is an address such as ``"10.0.0.1:4730"``, or None where none was involved."""

    server: str | None


@dataclass(frozen=True, slots=True)
class ConnectionOpened(Event):
    """A connection has answered its first health check and takes jobs.

    ``duration``: seconds from the start of the attempt.
    """

    duration: float


@dataclass(frozen=True, slots=True)
class ConnectionFailed(Event):
    """An attempt to connect failed. ``retry_in``: seconds until the next one."""

    error: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class ConnectionClosed(Event):
    """A connection was lost or closed. ``jobs_lost`` counts the jobs that it held and that had left for the server."""

    error: str | None
    jobs_lost: int


@dataclass(frozen=True, slots=True)
class JobAccepted(Event):
    """The server has accepted a job."""

    task: str
    unique: str
    handle: str
    background: bool


@dataclass(frozen=True, slots=True)
class JobUpdated(Event):
    """A worker has sent an update. ``kind``: ``"status"``, ``"data"`` or ``"warning"``; ``size``: bytes of payload."""

    task: str
    unique: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True)
class JobRetried(Event):
    """A job is sent again. ``attempt`` counts its sends, this one included; ``error`` says why."""

    task: str
    unique: str
    attempt: int
    error: str


@dataclass(frozen=True, slots=True)
class JobFinished(Event):
    """A job has its result or its error. ``outcome``: ``"complete"``, ``"accepted"`` (background) or the error's class.

    ``duration``: seconds from `submit`.
    """

    task: str
    unique: str
    outcome: str
    duration: float


@dataclass(frozen=True, slots=True)
class TaskStarted(Event):
    """A worker has begun with a job."""

    task: str
    unique: str
    handle: str


@dataclass(frozen=True, slots=True)
class TaskFinished(Event):
    """A worker's task has returned or raised.

    ``outcome``: ``"done"``, ``"failed"``, ``"timed_out"`` (it took longer than its timeout) or ``"lost"`` (its server
    had gone before it returned, and gives the job to another worker). ``duration``: seconds that the task took.
    """

    task: str
    unique: str
    handle: str
    outcome: str
    duration: float


class Listener:
    """Base for listeners: override what you need.

    What a listener overrides is looked at once, when it is given to a client or a worker: for a job, no event is made
    that nobody handles.

    Example::

        class Slow(Listener):
            def on_job_finished(self, event: JobFinished) -> None:
                if event.duration > 1.0:
                    print(event.task, event.duration)

        client = GearmanClient(["localhost"], listeners=[Slow()])
    """

    def on_connection_opened(self, event: ConnectionOpened) -> None:
        """A connection takes jobs now."""

    def on_connection_failed(self, event: ConnectionFailed) -> None:
        """An attempt to connect failed."""

    def on_connection_closed(self, event: ConnectionClosed) -> None:
        """A connection was lost or closed."""

    def on_job_accepted(self, event: JobAccepted) -> None:
        """The server has accepted a job."""

    def on_job_updated(self, event: JobUpdated) -> None:
        """A worker has sent status, data or a warning."""

    def on_job_retried(self, event: JobRetried) -> None:
        """A job is sent again after its connection was lost."""

    def on_job_finished(self, event: JobFinished) -> None:
        """A job has its result or its error."""

    def on_task_started(self, event: TaskStarted) -> None:
        """A worker has begun with a job."""

    def on_task_finished(self, event: TaskFinished) -> None:
        """A worker's task has returned or raised."""

    def handle(self, event: Event) -> None:
        """Call the method for this event. Override it to get every event in one place."""
        method = _METHODS.get(type(event))
        if method is not None:
            getattr(self, method)(event)


_METHODS: dict[type[Event], str] = {
    ConnectionOpened: "on_connection_opened",
    ConnectionFailed: "on_connection_failed",
    ConnectionClosed: "on_connection_closed",
    JobAccepted: "on_job_accepted",
    JobUpdated: "on_job_updated",
    JobRetried: "on_job_retried",
    JobFinished: "on_job_finished",
    TaskStarted: "on_task_started",
    TaskFinished: "on_task_finished",
}


def handled(listener: Any) -> frozenset[type[Event]]:
    """Return the events that a listener does something with: all of them, if it is none of `Listener`'s kind."""

    def is_overridden(name: str) -> bool:
        inherited = getattr(Listener, name)
        return getattr(getattr(listener, name), "__func__", None) is not inherited

    if not isinstance(listener, Listener) or is_overridden("handle"):
        return frozenset(_METHODS)
    return frozenset(event for event, method in _METHODS.items() if is_overridden(method))


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One server as the client sees it.

    ``state``: ``"UP"``, ``"CONNECTING"``, ``"DOWN"`` or ``"DRAINING"``. ``connections``: how many are up.
    ``in_flight``: requests and jobs there. ``latency``: seconds of the last health check's round trip, None before the
    first. ``last_error``: why the last connection or attempt ended, None since another came up. ``retry_in``: seconds
    until the next attempt, None if none is due.
    """

    address: str
    state: str
    connections: int
    in_flight: int
    latency: float | None
    last_error: str | None
    retry_in: float | None


@dataclass(slots=True)
class Counters:
    """Counts since the client's start. The I/O thread alone changes them."""

    jobs_accepted: int = 0
    jobs_completed: int = 0
    jobs_failed: int = 0
    jobs_lost: int = 0
    jobs_timed_out: int = 0
    jobs_cancelled: int = 0
    jobs_retried: int = 0
    updates: int = 0
    late_packets: int = 0
    connections_opened: int = 0
    connections_failed: int = 0
    connections_lost: int = 0
    loop_errors: int = 0


@dataclass(frozen=True, slots=True)
class ClientStats:
    """A snapshot of a client's counters and gauges, as `GearmanClient.stats` gives it."""

    jobs_accepted: int
    jobs_completed: int
    jobs_failed: int
    jobs_lost: int
    jobs_timed_out: int
    jobs_cancelled: int
    jobs_retried: int
    updates: int
    late_packets: int
    connections_opened: int
    connections_failed: int
    connections_lost: int
    loop_errors: int
    #: Requests and jobs in flight now.
    in_flight: int
    #: Jobs that wait for a server now.
    waiting: int
    #: Turns of the I/O thread: an idle client makes two for each health check of each connection.
    wakeups: int
    servers: tuple[ServerInfo, ...]


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """A snapshot of a worker's counters and gauges, as `GearmanWorker.stats` gives it. Counts are since its start."""

    #: Jobs whose task returned, raised, and took longer than its timeout.
    jobs_done: int
    jobs_failed: int
    jobs_timed_out: int
    #: Results that could not be sent because the server had gone. It gives the jobs to other workers.
    results_lost: int
    #: Packets that a server refused because the job was not this worker's any more.
    refused: int
    #: Jobs held now, and those of them whose task has not begun.
    held: int
    waiting: int
    #: Whether the tasks are known to a server that can be reached.
    ready: bool
    connections_opened: int
    connections_failed: int
    connections_lost: int
    #: Turns of the I/O thread: an idle worker makes some for each poll and each health check.
    wakeups: int
    servers: tuple[ServerInfo, ...]
