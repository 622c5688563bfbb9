"""Which server is asked for a job next: the slots that are idle, and what mood each server is in.

All that belongs to the I/O thread. What other threads must know of it, the servers that are awake, is published in
`HeldJobs.awake`. Nothing here blocks, or knows what a task is.

A server is asked for jobs while it is AWAKE. One that has none is left alone: once no question is on its way there any
more, the worker tells it so with PRE_SLEEP, and it wakes the worker with NOOP. gearmand 1.1 with jobs of the future
answers each PRE_SLEEP with a NOOP and each GRAB_JOB with NO_JOB, as fast as it can: such a server is DOUBTED, and
believed after a while, which grows.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from enum import Enum
from functools import partial

from ...errors import InvalidWorkerState
from ...protocol.session import Entry
from ...protocol.worker import WorkerSession
from ...transport.connection import Connection
from ...transport.io_thread import IOThread
from ...transport.pool import Pool
from .held_jobs import HeldJobs, Slot

__all__ = ["MOOD_MOVES", "JobSource", "Mood", "Slots", "is_asked"]

#: A NOOP this soon after PRE_SLEEP, in seconds, was its answer: the server believed that it has a job.
_AT_ONCE = 0.05

#: After this many such NOOPs without a job the worker waits before it believes the next one.
_BELIEVED = 3

#: How long a GRAB_JOB may be unanswered before its slot is used elsewhere, in seconds; or this many round trips.
_GRAB_PATIENCE = 0.1
_GRAB_ROUND_TRIPS = 10


class Mood(str, Enum):
    """How a worker stands with one of its servers."""

    AWAKE = "AWAKE"
    RESTING = "RESTING"
    ASLEEP = "ASLEEP"
    DOUBTED = "DOUBTED"


_TO_AWAKE = "gave a job after all, woke the worker, or was told of a task"

#: The state machine of a worker's server: what may follow what, and why. The documentation draws this table.
MOOD_MOVES: dict[Mood, dict[Mood, str]] = {
    Mood.AWAKE: {Mood.RESTING: "has no job, or does not answer"},
    Mood.RESTING: {
        Mood.ASLEEP: "no question is on its way there any more: asked to wake the worker",
        Mood.AWAKE: _TO_AWAKE,
        Mood.DOUBTED: "woke the worker, as often before for nothing",
    },
    Mood.ASLEEP: {
        Mood.RESTING: "was asked all the same, and has no job",
        Mood.AWAKE: _TO_AWAKE,
        Mood.DOUBTED: "woke the worker at once, the fourth time in a row for nothing",
    },
    Mood.DOUBTED: {
        Mood.AWAKE: "the wait is over, or it gave a job, or was told of a task",
        Mood.RESTING: "was asked all the same, and has no job",
    },
}


class JobSource:
    """One connection as a source of jobs, besides what its session knows. It belongs to the I/O thread."""

    __slots__ = ("_answered_at_once", "_slept", "fruitless", "mood", "taken_back", "told")

    def __init__(self) -> None:
        self.mood: Mood = Mood.AWAKE
        #: Whether it knows all tasks of the worker; before, it is not asked for jobs. `Abilities` keeps this.
        self.told: bool = False
        #: Tasks of which it may have assigned a job before it read their CANT_DO; once for each CANT_DO.
        self.taken_back: list[bytes] = []
        #: How many times in a row it has woken the worker at once after PRE_SLEEP and had no job then.
        self.fruitless: int = 0
        # When PRE_SLEEP was sent to it last, and whether it has woken the worker at once after that.
        self._slept = 0.0
        self._answered_at_once = False

    def __repr__(self) -> str:
        return f"<JobSource {self.mood.value}>"

    def move(self, mood: Mood) -> None:
        """Go to another mood.

        Raises:
            InvalidWorkerState: the table has no such move; that is a bug.
        """
        if mood not in MOOD_MOVES[self.mood]:
            raise InvalidWorkerState(f"a worker's server: no move from {self.mood.value} to {mood.value}")
        self.mood = mood

    def wake(self) -> bool:
        """It is to be asked for jobs; return whether that is new."""
        if self.mood is Mood.AWAKE:
            return False
        self.move(Mood.AWAKE)
        return True

    def rest(self) -> bool:
        """It is to be asked for nothing until it says something; return whether it was asked before."""
        if self.mood is Mood.RESTING:
            return False
        awake = self.mood is Mood.AWAKE
        self.move(Mood.RESTING)
        return awake

    def sleep(self, now: float) -> None:
        """It has no job, and is asked to wake the worker."""
        self.fruitless = self.fruitless + 1 if self._answered_at_once else 0
        self._slept = now
        self.move(Mood.ASLEEP)

    def says_it_has_jobs(self, now: float) -> bool:
        """It wakes the worker; return whether to believe it at once. One that is awake anyway is not doubted."""
        self._answered_at_once = now - self._slept < _AT_ONCE
        if not self._answered_at_once:
            self.fruitless = 0
        if self.fruitless < _BELIEVED:
            return True
        if self.mood in (Mood.RESTING, Mood.ASLEEP):
            self.move(Mood.DOUBTED)
        return False


class Slots:
    """The idle slots of one run of a worker, and the servers that they may ask.

    Args:
        ready: Set while the tasks are known to a server that can be reached.
        capacity: How many jobs may be held.
        poll_interval: How often servers that are not awake are asked too, in seconds.
        max_jobs: How many jobs may be taken altogether; None for any number.
    """

    def __init__(
        self,
        io: IOThread,
        pool: Pool,
        held: HeldJobs,
        ready: threading.Event,
        capacity: int,
        poll_interval: float,
        max_jobs: int | None,
    ) -> None:
        #: The connections that are up.
        self.sources: dict[Connection, JobSource] = {}
        self._io = io
        self._pool = pool
        self._held = held
        self._ready = ready
        self._capacity = capacity
        self._poll_interval = poll_interval
        self._idle = [Slot() for _ in range(capacity)]
        #: How many more jobs may be taken; None for any number.
        self._left = max_jobs
        # Questions that are not answered yet. The number is right only if ``max_jobs`` is set: then all are asked here.
        self._asking = 0
        self._rotation = 0
        self._due: deque[Connection] = deque()

    @property
    def all_idle(self) -> bool:
        """Whether no question is on its way, and no job is run."""
        return len(self._idle) >= self._capacity

    # ---- servers ---------------------------------------------------------------------------------------------------

    def meet(self, up: Iterable[Connection]) -> list[Connection]:
        """Take over which connections are up; return those that are new, and have yet to be told of tasks."""
        before = self.sources
        self.sources = {connection: before.get(connection) or JobSource() for connection in up}
        return [connection for connection in self.sources if connection not in before]

    def publish(self) -> None:
        """Say which servers are awake, and whether the worker is ready."""
        told = [(connection, source) for connection, source in self.sources.items() if source.told]
        awake = () if self._held.draining else tuple(c for c, source in told if source.mood is Mood.AWAKE)
        self._held.awake = awake
        if not told and self._ready.is_set():
            self._ready.clear()
        elif told and not self._ready.is_set():
            self._ready.set()

    def expect_jobs(self, connection: Connection[WorkerSession]) -> None:
        """Ask this server: it wakes nobody for jobs that have waited for a task since before it was told of it."""
        source = self.sources.get(connection)
        if source is not None:
            source.wake()

    def tick(self) -> None:
        """Ask sleeping servers too, from time to time: gearmand before 2.0 wakes nobody for a job that falls due."""
        if self._held.draining:
            return
        self._due = deque(c for c in self.sources if c not in self._held.awake and not is_asked(c))
        self._reclaim()
        self._io.call_later(self._poll_interval, self.tick)

    # ---- questions -------------------------------------------------------------------------------------------------

    def place(self) -> None:
        """Send out idle slots: to servers that are awake in turn, and to those that are due to be asked anyway."""
        if not self._idle or self._held.draining:
            return
        batches: dict[Connection, list[Entry]] = {}
        now = self._io.clock()
        while self._idle and (self._left is None or self._asking < self._left):
            target = self._next_awake() or self._next_due()
            if target is None:
                break
            slot = self._idle.pop()
            slot.connection = target
            slot.since = now
            self._asking += 1
            batches.setdefault(target, []).append(WorkerSession.grab(slot))
        for connection, entries in batches.items():
            connection.submit(*entries)

    def _next_awake(self) -> Connection[WorkerSession] | None:
        awake = self._held.awake
        self._rotation += 1
        return awake[self._rotation % len(awake)] if awake else None

    def _next_due(self) -> Connection[WorkerSession] | None:
        while self._due:
            connection = self._due.popleft()
            if connection in self.sources and not connection.closed:
                return connection
        return None

    def take_back(self, slot: Slot) -> None:
        """Have a slot idle here again."""
        if not slot.orphan:
            self._idle.append(slot)

    def take_unanswered(self, slot: Slot) -> None:
        """Have a slot idle here again whose question brought no job, or got lost."""
        self._asking -= 1
        self.take_back(slot)

    def _reclaim(self) -> None:
        """Replace slots whose question is not answered: a frozen server must not keep them from the others."""
        if len(self._pool.servers) < 2:
            return
        now = self._io.clock()
        for connection in self._pool.connections:
            latency = connection.server.latency or 0.0
            patience = max(_GRAB_PATIENCE, _GRAB_ROUND_TRIPS * latency)
            for slot in connection.unanswered():
                if isinstance(slot, Slot) and not slot.orphan and now - slot.since > patience:
                    slot.orphan = True
                    self._idle.append(Slot())
                    self._does_not_answer(connection)

    def _does_not_answer(self, connection: Connection[WorkerSession]) -> None:
        source = self.sources.get(connection)
        if source is not None and source.mood is Mood.AWAKE:
            source.rest()
            self.publish()

    # ---- answers ---------------------------------------------------------------------------------------------------

    def job_came(self, connection: Connection[WorkerSession]) -> JobSource | None:
        """A question was answered with a job: the server has perhaps more. Return what is known of it."""
        self._asking -= 1
        source = self.sources.get(connection)
        if source is not None:
            source.fruitless = 0
            if source.wake():
                self.publish()
        return source

    def was_the_last(self) -> bool:
        """A job is taken: return whether it is the last one of ``max_jobs``, of which there must be a number."""
        assert self._left is not None
        self._left -= 1
        return not self._left

    def no_job_came(self, connection: Connection[WorkerSession]) -> None:
        """The last answer was that there is no job: ask no more, and sleep when no question is on its way."""
        source = self.sources.get(connection)
        if source is not None and source.rest():
            self.publish()
        if is_asked(connection):
            return
        if source is not None:
            source.sleep(self._io.now)
        connection.submit(connection.session.sleep())

    def woken(self, connection: Connection[WorkerSession]) -> None:
        """The server says that it has jobs."""
        source = self.sources.get(connection)
        if source is None:
            return
        if source.says_it_has_jobs(self._io.now):
            self._believe(connection)
        else:
            delay = min(self._poll_interval, 0.001 * 2 ** min(source.fruitless, 20))
            self._io.call_later(delay, partial(self._believe, connection))
        if not self._idle:
            # Perhaps it waits for a server that does not answer.
            self._io.call_later(2 * _GRAB_PATIENCE, self._reclaim)

    def _believe(self, connection: Connection[WorkerSession]) -> None:
        source = self.sources.get(connection)
        if source is not None and source.wake():
            self.publish()


def is_asked(connection: Connection[WorkerSession]) -> bool:
    """Whether a question for a job is on its way there."""
    return any(isinstance(token, Slot) for token in connection.tokens())
