"""What a worker's runs begin with, and the run that is under way: at most one at a time.

Threads: any may call any of this. ``Runs._lock`` guards the change between running and not running, and the servers
until an engine has them. It is held for a few instructions, and no other lock is taken under it but the one inside of
an Event. `Runs.stop` takes none, for signal handlers call it. No task and no hook is called here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...errors import InvalidWorkerState
from ...events import WorkerStats
from ...protocol.commands import Command
from ...settings.addresses import ServerAddress
from .engine import WorkerEngine
from .held_jobs import Ability, Assignment

__all__ = ["Runs", "stats_of"]


class Runs:
    """A worker's runs.

    Args:
        addresses: The servers.
        client_id: What the worker is called in the servers' lists; None for nothing.
        bundles: Whether the result of a task that returns may wait for the next question for a job, so that both leave
            in one write. No hook may be called between the two then.
    """

    def __init__(self, addresses: tuple[ServerAddress, ...], client_id: bytes | None, bundles: bool) -> None:
        self.addresses: tuple[ServerAddress, ...] = addresses
        self.client_id: bytes | None = client_id
        self.bundles: bool = bundles
        #: The tasks by their names on the wire.
        self.abilities: dict[bytes, Ability] = {}
        #: The engine of the run that is under way; None if there is none.
        self.engine: WorkerEngine | None = None
        #: As they were at the end of the last run.
        self.last_stats: WorkerStats = WorkerStats(0, 0, 0, 0, 0, 0, 0, False, 0, 0, 0, 0, ())
        self._lock = threading.Lock()
        #: Set at the end of the run that is under way, or was the last: each run has one of its own, so that nobody who
        #: waits for the end of one takes the next for it. Replaced under ``_lock``.
        self._ended = threading.Event()
        self._ended.set()
        # Written without a lock, for `stop` may have none.
        self._stop_asked = False
        self._stop_timeout: float | None = None
        # Whether the engine is lent, how many use it now, and how often one has been lent. Guarded by ``_lock``.
        self._lent = False
        self._borrowers = 0
        self._borrowings = 0
        #: Which threads run tasks.
        self._local = threading.local()

    # ---- what a run begins with, and is told while it goes on --------------------------------------------------------

    def register(self, task: bytes, ability: Ability) -> None:
        """Take jobs of a task."""
        self.abilities[task] = ability
        engine = self.engine
        if engine is not None:
            engine.register(task, ability)

    def unregister(self, task: bytes) -> bool:
        """Take no more jobs of a task; return whether it was registered."""
        if self.abilities.pop(task, None) is None:
            return False
        engine = self.engine
        if engine is not None:
            engine.unregister(task)
        return True

    def set_client_id(self, client_id: bytes) -> None:
        """Set what the worker is called in the servers' lists."""
        self.client_id = client_id
        engine = self.engine
        if engine is not None:
            engine.set_client_id(client_id)

    def add_server(self, address: ServerAddress) -> None:
        """Take jobs from one more server."""
        with self._lock:
            if address not in self.addresses:
                self.addresses = (*self.addresses, address)
            engine = self.engine
        if engine is not None:
            engine.pool.add(address)

    # ---- beginning and ending --------------------------------------------------------------------------------------

    def begin(self, new_engine: Callable[[], WorkerEngine]) -> WorkerEngine:
        """Begin a run on the calling thread, and return its engine.

        Args:
            new_engine: Makes the engine. It is called with the lock, or a server that is added now would be missed.

        Raises:
            InvalidWorkerState: one is under way.
        """
        with self._lock:
            if self.engine is not None:
                raise InvalidWorkerState("the worker is running; make another one to work on another thread")
            engine = new_engine()
            self._lent = False
            self._begin(engine)
        self.runs_tasks_here(True)
        return engine

    def _begin(self, engine: WorkerEngine) -> None:
        self._ended = threading.Event()
        self.engine = engine

    def end(self, stats: WorkerStats) -> None:
        """End the run, which the calling thread has begun."""
        self.runs_tasks_here(False)
        with self._lock:
            ended = self._end(stats)
        ended.set()

    def _end(self, stats: WorkerStats) -> threading.Event:
        self.last_stats = stats
        self.engine = None
        self._stop_asked = False
        self._stop_timeout = None
        return self._ended

    @contextmanager
    def borrow(self, lend: Callable[[], WorkerEngine], ready: threading.Event) -> Iterator[WorkerEngine]:
        """Have the worker run with a lent engine for the length of a block, which this thread calls tasks in.

        A lent engine has no loop, and is neither started nor ended. Several threads may be in such blocks at a time:
        the first one's engine serves all, and the run ends with the last one. A stop that was asked for before the
        first one does not count.

        Args:
            lend: Gives the engine, as one that was not told to stop. It is called with the lock: it must take none.
            ready: Set while the run goes on.

        Raises:
            InvalidWorkerState: the worker works for servers.
        """
        with self._lock:
            engine = self.engine
            if engine is None:
                engine = lend()
                self._lent = True
                self._stop_asked = False
                self._stop_timeout = None
                self._begin(engine)
                ready.set()
            elif not self._lent:
                raise InvalidWorkerState("the worker is running; give the EagerClient one that is not")
            self._borrowers += 1
            self._borrowings += 1
        works = self.runs_tasks_here(True)
        try:
            yield engine
        finally:
            self.runs_tasks_here(works)
            self._give_back(engine, ready)

    def _give_back(self, engine: WorkerEngine, ready: threading.Event) -> None:
        with self._lock:
            self._borrowers -= 1
            last = not self._borrowers
            borrowings = self._borrowings
        if not last:
            return
        # Without the lock, for the counts have one of their own.
        stats = stats_of(engine, False)
        ended = None
        with self._lock:
            # Who has borrowed the engine meanwhile sees to its end, with counts that are newer.
            if self._borrowings == borrowings:
                ended = self._end(stats)
                ready.clear()
        if ended is not None:
            ended.set()

    def runs_tasks_here(self, whether: bool) -> bool:
        """Note whether the calling thread runs tasks; return whether it did before."""
        before: bool = getattr(self._local, "works", False)
        self._local.works = whether
        return before

    # ---- stopping --------------------------------------------------------------------------------------------------

    def stop(self, limit: float) -> None:
        """Have the run end when the jobs that are held are done, within so many seconds; else the next one at once.

        It does not wait and takes no lock. When it is called again, the earliest end counts.
        """
        self._stop_timeout = limit if self._stop_timeout is None else min(limit, self._stop_timeout)
        self._stop_asked = True
        engine = self.engine
        if engine is not None:
            engine.begin_stop(limit)

    def stop_limit(self, otherwise: float) -> float:
        """How long the jobs that are held may take, in seconds, as `stop` was told; ``otherwise`` if it was not."""
        return otherwise if self._stop_timeout is None else self._stop_timeout

    def under_way(self) -> threading.Event | None:
        """Return what is set at the end of the run that is under way; None if there is none."""
        with self._lock:
            return None if self.engine is None else self._ended

    @property
    def works_here(self) -> bool:
        """Whether the calling thread runs tasks."""
        works: bool = getattr(self._local, "works", False)
        return works

    @property
    def stop_asked(self) -> bool:
        """Whether `stop` was called for the run that is under way, or for the next one."""
        return self._stop_asked

    @property
    def stopping(self) -> bool:
        """Whether tasks should come to an end."""
        engine = self.engine
        return self._stop_asked or (engine is not None and engine.stopping)

    # ---- jobs ------------------------------------------------------------------------------------------------------

    def send(self, assignment: Assignment, command: Command, *arguments: bytes) -> bool:
        """Send an update for a job; return False if it has ended, or its server has gone."""
        engine = self.engine
        return engine is not None and engine.held.send(assignment, command, *arguments)

    def finish(self, assignment: Assignment, outcome: str, command: Command, *arguments: bytes) -> bool:
        """End a job whose task has yet to return; return False if it has ended, or its server has gone."""
        engine = self.engine
        entry = None if engine is None else engine.held.finish(assignment, outcome, command, *arguments)
        if engine is None or entry is None:
            return False
        engine.held.send_final(assignment, entry)
        return True

    def returned(self, assignment: Assignment, outcome: str, command: Command, *arguments: bytes) -> None:
        """End a job whose task has returned. If results are bundled, its own leaves when its slot is released."""
        engine = self.engine
        entry = None if engine is None else engine.held.finish(assignment, outcome, command, *arguments)
        if self.bundles:
            assignment.final = entry
        elif engine is not None and entry is not None:
            engine.held.send_final(assignment, entry)

    # ---- looking ---------------------------------------------------------------------------------------------------

    def stats(self, ready: bool) -> WorkerStats:
        """Return a snapshot of the run that is under way, or that of the last one."""
        engine = self.engine
        return self.last_stats if engine is None else stats_of(engine, ready)

    def held(self) -> list[Assignment]:
        """Return the jobs that are held, the oldest first."""
        engine = self.engine
        return [] if engine is None else list(engine.held.unfinished)

    # ---- fork ------------------------------------------------------------------------------------------------------

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections, jobs and lock behind."""
        engine = self.engine
        if engine is not None:
            engine.after_fork_in_child()
        self._lock = threading.Lock()


def stats_of(engine: WorkerEngine, ready: bool) -> WorkerStats:
    """Return a snapshot of a run. It takes the lock of the counts: no other may be held."""
    counts = engine.held.snapshot()
    return WorkerStats(
        jobs_done=counts["done"],
        jobs_failed=counts["failed"],
        jobs_timed_out=counts["timed_out"],
        results_lost=counts["results_lost"],
        refused=counts["refused"],
        held=len(engine.held.unfinished),
        waiting=engine.jobs.qsize(),
        ready=ready,
        connections_opened=engine.counters.connections_opened,
        connections_failed=engine.counters.connections_failed,
        connections_lost=engine.counters.connections_lost,
        wakeups=engine.io.wakeups,
        servers=engine.pool.infos(),
    )
