"""A server's jobs: functions, queues of three priorities, uniques, delayed jobs. No I/O, and no clock: time is told."""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Generic, TypeVar

__all__ = ["Agenda", "Ended", "Function", "History", "Job", "JobState", "JobTable", "Priority"]

#: Whoever waits for jobs and runs them: a connection.
P = TypeVar("P")
T = TypeVar("T")

#: How many entries of what is gone a queue or an agenda may hold besides as many as there are live ones.
_SLACK = 32


class Priority(IntEnum):
    """In the order in which jobs are taken."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class JobState(str, Enum):
    """Where a job stands at the server."""

    DELAYED = "DELAYED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    GONE = "GONE"


class Job(Generic[P]):
    """A job from its submission to its end. ``clients`` has the connection of each foreground submit, once for each."""

    __slots__ = (
        "background",
        "clients",
        "data",
        "denominator",
        "function",
        "handle",
        "key",
        "number",
        "numerator",
        "priority",
        "reducer",
        "retries",
        "state",
        "unique",
        "worker",
    )

    def __init__(
        self,
        handle: bytes,
        number: int,
        function: Function[P],
        unique: bytes,
        data: bytes,
        priority: Priority,
        background: bool,
        reducer: bytes | None,
    ) -> None:
        self.handle: bytes = handle
        #: Counts all jobs of the table.
        self.number: int = number
        self.function: Function[P] = function
        self.unique: bytes = unique
        self.data: bytes = data
        self.priority: Priority = priority
        self.background: bool = background
        self.reducer: bytes | None = reducer
        self.clients: list[P] = []
        self.worker: P | None = None
        self.state: JobState = JobState.GONE
        self.key: tuple[bytes, ...] | None = None
        self.numerator: int = 0
        self.denominator: int = 0
        self.retries: int = 0

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it, or it is to run for its own sake."""
        return self.background or bool(self.clients)


class Function(Generic[P]):
    """What is known of a function: its jobs, its workers, its limits (0 for none) by priority."""

    __slots__ = ("limits", "name", "queues", "running", "total", "waiting", "workers")

    def __init__(self, name: bytes) -> None:
        self.name: bytes = name
        self.queues: tuple[deque[Job[P]], ...] = (deque(), deque(), deque())
        #: Jobs that could be taken now, by priority; queues may hold jobs that are gone besides.
        self.waiting: list[int] = [0, 0, 0]
        self.total: int = 0
        self.running: int = 0
        self.workers: dict[P, None] = {}
        self.limits: list[int] = [0, 0, 0]


class Agenda(Generic[T]):
    """What is to be done at which moment. What was taken off again is no more than one in two of what it keeps."""

    __slots__ = ("_heap", "_live", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        #: The number of each item's valid entry.
        self._live: dict[T, int] = {}
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, when: float, item: T) -> None:
        """Put an item down for a moment; each is there once at most."""
        order = self._live[item] = next(self._order)
        heapq.heappush(self._heap, (when, order, item))

    def discard(self, item: T) -> None:
        """Take an item off, if it is there."""
        if self._live.pop(item, None) is not None and len(self._heap) > 2 * len(self._live) + _SLACK:
            self._heap = [entry for entry in self._heap if self._live.get(entry[2]) == entry[1]]
            heapq.heapify(self._heap)

    def due(self, now: float) -> list[T]:
        """Take off what is due, and return it, earliest first."""
        items = []
        while (when := self.next()) is not None and when <= now:
            item = heapq.heappop(self._heap)[2]
            del self._live[item]
            items.append(item)
        return items

    def next(self) -> float | None:
        """Return when something is due next."""
        while self._heap and self._live.get(self._heap[0][2]) != self._heap[0][1]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None


@dataclass(frozen=True)
class Ended(Generic[P]):
    """A job that has ended, with what it had then.

    Attributes:
        outcome: ``"COMPLETE"``, ``"FAILED"``, ``"CANCELLED"``, or ``"ABANDONED"`` by its last client.
        result, exception: What its worker sent at the end, if it did.
    """

    job: Job[P]
    data: bytes
    waiting_clients: int
    outcome: str
    result: bytes | None
    exception: bytes | None

    @property
    def size(self) -> int:
        """How many bytes it holds that peers sent."""
        return len(self.data) + len(self.result or b"") + len(self.exception or b"")


class History(Generic[P]):
    """The jobs that ended last, in that order: a bounded number of them, and of bytes if there are several."""

    def __init__(self, max_jobs: int, max_bytes: int) -> None:
        self._ended: OrderedDict[bytes, Ended[P]] = OrderedDict()
        self._size = 0
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[Ended[P]]:
        return iter(self._ended.values())

    def clear(self) -> None:
        """Forget them."""
        self._ended.clear()
        self._size = 0

    def find(self, handle: bytes) -> Ended[P] | None:
        """Return the job with this handle, if it is remembered."""
        return self._ended.get(handle)

    def add(self, job: Job[P], outcome: str, result: bytes | None = None, exception: bytes | None = None) -> None:
        """Remember a job that is about to be removed from its table."""
        if not self._max_jobs:
            return
        ended = Ended(job, job.data, len(job.clients), outcome, result, exception)
        self._ended[job.handle] = ended
        self._size += ended.size
        while len(self._ended) > self._max_jobs or (self._size > self._max_bytes and len(self._ended) > 1):
            self._size -= self._ended.popitem(last=False)[1].size


class JobTable(Generic[P]):
    """All jobs of a server. Each operation takes a time that does not depend on how many there are."""

    def __init__(self, name: bytes, max_jobs: int) -> None:
        self.functions: dict[bytes, Function[P]] = {}
        self.jobs: dict[bytes, Job[P]] = {}
        self._keys: dict[tuple[bytes, ...], Job[P]] = {}
        self._uniques: dict[bytes, dict[Job[P], None]] = {}
        self.delayed: Agenda[Job[P]] = Agenda()
        #: How many jobs were taken in; those that joined one do not count.
        self.accepted: int = 0
        self._numbers = itertools.count(1)
        self._name = name
        self._max_jobs = max_jobs

    def function(self, name: bytes) -> Function[P]:
        """Return the function of this name; one that is not known yet becomes so."""
        found = self.functions.get(name)
        if found is None:
            found = self.functions[name] = Function(name)
        return found

    def by_unique(self, unique: bytes) -> Job[P] | None:
        """Return a job of this unique, of any function."""
        return next(iter(self._uniques.get(unique, ())), None)

    # ---- coming ----------------------------------------------------------------------------------------------------

    def find(self, task: bytes, unique: bytes, data: bytes) -> Job[P] | None:
        """Return the job that one with these would join."""
        key = _key(task, unique, data)
        return None if key is None else self._keys.get(key)

    def full(self, task: bytes, priority: Priority) -> bool:
        """Whether a further job is more than the limits allow."""
        if len(self.jobs) >= self._max_jobs:
            return True
        function = self.functions.get(task)
        return function is not None and 0 < function.limits[priority] <= function.total

    def add(
        self,
        task: bytes,
        unique: bytes,
        data: bytes,
        priority: Priority,
        background: bool,
        reducer: bytes | None = None,
        when: float | None = None,
    ) -> Job[P]:
        """Take a new job in; with ``when`` it cannot be taken before that moment."""
        function = self.function(task)
        number = next(self._numbers)
        handle = b"H:%s:%d" % (self._name, number)
        job: Job[P] = Job(handle, number, function, unique, data, priority, background, reducer)
        job.key = _key(task, unique, data)
        self.jobs[handle] = job
        if job.key is not None:
            self._keys[job.key] = job
        self._uniques.setdefault(unique, {})[job] = None
        function.total += 1
        self.accepted += 1
        if when is None:
            self._queue(job)
        else:
            job.state = JobState.DELAYED
            self.delayed.add(when, job)
        return job

    def _queue(self, job: Job[P], first: bool = False) -> None:
        job.state = JobState.QUEUED
        job.function.waiting[job.priority] += 1
        queue = job.function.queues[job.priority]
        if first:
            queue.appendleft(job)
        else:
            queue.append(job)

    def due(self, now: float) -> list[Job[P]]:
        """Put the delayed jobs whose time has come into their queues, and return them."""
        jobs = self.delayed.due(now)
        for job in jobs:
            self._queue(job)
        return jobs

    # ---- going -----------------------------------------------------------------------------------------------------

    def runnable(self, tasks: Iterable[bytes]) -> bool:
        """Whether there is a job of one of these functions to take."""
        return any(any(function.waiting) for function in self._known(tasks))

    def take(self, tasks: Iterable[bytes], worker: P) -> Job[P] | None:
        """Give a worker a job: of the highest priority, and of those of the function that comes first in ``tasks``."""
        functions = list(self._known(tasks))
        for priority in Priority:
            for function in functions:
                if function.waiting[priority]:
                    return self._take(function, priority, worker)
        return None

    def _known(self, tasks: Iterable[bytes]) -> Iterator[Function[P]]:
        for task in tasks:
            function = self.functions.get(task)
            if function is not None:
                yield function

    def _take(self, function: Function[P], priority: Priority, worker: P) -> Job[P]:
        queue = function.queues[priority]
        job = queue.popleft()
        while job.state is not JobState.QUEUED:
            job = queue.popleft()
        function.waiting[priority] -= 1
        function.running += 1
        job.state = JobState.RUNNING
        job.worker = worker
        return job

    def put_back(self, job: Job[P]) -> None:
        """A running job has lost its worker: it is the next of its queue."""
        job.function.running -= 1
        job.worker = None
        job.numerator = job.denominator = 0
        job.retries += 1
        self._queue(job, first=True)

    def remove(self, job: Job[P]) -> None:
        """A job is done, or given up."""
        function = job.function
        function.total -= 1
        state, job.state = job.state, JobState.GONE
        if state is JobState.QUEUED:
            function.waiting[job.priority] -= 1
            self._tidy(function, job.priority)
        elif state is JobState.DELAYED:
            self.delayed.discard(job)
        elif state is JobState.RUNNING:
            function.running -= 1
        job.worker = None
        job.data = b""
        del self.jobs[job.handle]
        if job.key is not None:
            del self._keys[job.key]
        same = self._uniques[job.unique]
        del same[job]
        if not same:
            del self._uniques[job.unique]

    @staticmethod
    def _tidy(function: Function[P], priority: Priority) -> None:
        """Keep what is gone from gathering in a queue: behind a job that nobody takes, or where no worker comes."""
        queue = function.queues[priority]
        waiting = function.waiting[priority]
        if not waiting or len(queue) > 2 * waiting + _SLACK:
            live = [job for job in queue if job.state is JobState.QUEUED]
            queue.clear()
            queue.extend(live)


def _key(task: bytes, unique: bytes, data: bytes) -> tuple[bytes, ...] | None:
    """Return what a job is found by when another one like it comes; None if it is never."""
    if unique == b"-":
        # gearmand's word for "by the payload".
        return (task, unique, data) if data else None
    return (task, unique) if unique else None
