"""What an `EmbeddedServer` tells of its jobs and of itself.

Threads: any may hold these, which never change.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..protocol.server import JobServer, Peer
from ..protocol.server.queues import Ended, Job

__all__ = ["ServedJob", "ServerStats", "ended_job", "server_stats", "submitted_jobs", "unfinished_job"]


@dataclass(frozen=True)
class ServedJob:
    """A job at an `EmbeddedServer`, as it stood when it was asked.

    Attributes:
        handle, task, unique: Its names.
        data: Its payload.
        state: ``"QUEUED"``, ``"RUNNING"`` or ``"DELAYED"``; once it has ended ``"COMPLETE"``, ``"FAILED"``,
            ``"CANCELLED"``, or ``"ABANDONED"`` because its last client has left.
        priority: ``"HIGH"``, ``"NORMAL"`` or ``"LOW"``.
        background: Whether it was submitted as a background job.
        waiting_clients: How many foreground submits wait for its result, or waited when it ended.
        retries: How often it went back because its worker was lost.
        result: Its result, once it is complete.
        exception: What its worker raised, if that is how it failed.
    """

    handle: str
    task: str
    unique: str
    data: bytes = field(repr=False)
    state: str
    priority: str
    background: bool
    waiting_clients: int
    retries: int
    result: bytes | None = field(default=None, repr=False)
    exception: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ServerStats:
    """Counts of an `EmbeddedServer` since its start, and what it holds now."""

    connections: int
    workers: int
    queued: int
    running: int
    delayed: int
    accepted_connections: int


def unfinished_job(job: Job[Peer]) -> ServedJob:
    """Return what there is to tell of a job that a server has."""
    return ServedJob(
        handle=_text(job.handle),
        task=_text(job.function.name),
        unique=_text(job.unique),
        data=job.data,
        state=job.state.value,
        priority=job.priority.name,
        background=job.background,
        waiting_clients=len(job.clients),
        retries=job.retries,
    )


def ended_job(ended: Ended[Peer]) -> ServedJob:
    """Return what there is to tell of a job that a server remembers."""
    # The job itself has neither payload nor clients any more.
    return replace(
        unfinished_job(ended.job),
        data=ended.data,
        state=ended.outcome,
        waiting_clients=ended.waiting_clients,
        result=ended.result,
        exception=ended.exception,
    )


def submitted_jobs(jobs: JobServer, task: bytes | None = None) -> list[ServedJob]:
    """Return the jobs of a task, or all, in the order of their submission, as far as they are remembered."""
    found = [(job, unfinished_job(job)) for job in jobs.table.jobs.values() if task in (None, job.function.name)]
    found += [(e.job, ended_job(e)) for e in jobs.history if task in (None, e.job.function.name)]
    return [served for _, served in sorted(found, key=lambda pair: pair[0].number)]


def server_stats(jobs: JobServer, accepted: int) -> ServerStats:
    """Return the counts of a server that has accepted so many connections."""
    states = [job.state.value for job in jobs.table.jobs.values()]
    return ServerStats(
        connections=len(jobs.peers),
        workers=sum(bool(peer.abilities) for peer in jobs.peers.values()),
        queued=states.count("QUEUED"),
        running=states.count("RUNNING"),
        delayed=states.count("DELAYED"),
        accepted_connections=accepted,
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
