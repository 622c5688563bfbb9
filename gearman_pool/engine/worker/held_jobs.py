"""The jobs that a worker holds, and what the threads that run them do with them.

Each job that a worker can hold is a `Slot`, and a slot is always in one place: idle on the I/O thread, on its way as
the token of a GRAB_JOB, or with the thread that runs the job it brought. Whoever has a slot owns it; handing it on is
one append. So a thread that has finished a job can send the result and the next GRAB_JOB in one write, without asking
anybody: it reads the tuple of servers that are awake, which the I/O thread replaces whole.

Threads: methods under the banner ANY THREAD may be called from any thread. They take no lock but ``_count_lock``, and
take it while they hold no other; only `HeldJobs.send` and `HeldJobs.wait_until_sent` wait. The others belong to the I/O
thread. Nothing here runs a task, or decides which server is awake.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from ...errors import GearmanError
from ...protocol.commands import Command
from ...protocol.packets import pack, packet_size
from ...protocol.session import NO_REPLY, Entry
from ...protocol.worker import WorkerSession
from ...threads.waiting import Promise
from ...transport.connection import Connection
from ...transport.handler import Query
from ...transport.io_thread import IOThread
from ...transport.pool import Pool
from ..announcer import Announcer

__all__ = ["OUTCOMES", "Ability", "Assignment", "HeldJobs", "Slot", "fence"]

#: What becomes of jobs, as it is counted.
OUTCOMES = ("done", "failed", "timed_out", "results_lost", "refused")

#: What is found in place of a job that somebody else has ended.
_NOT_HELD = object()


@dataclass(frozen=True)
class Ability:
    """A task that the worker can do: its name, what runs it, and its time limit in seconds."""

    name: str
    function: Callable[..., Any]
    takes_worker: bool
    timeout: float | None


class Slot:
    """The right to hold one job."""

    __slots__ = ("connection", "orphan", "since")

    def __init__(self) -> None:
        #: Where it asked last.
        self.connection: Connection | None = None
        #: When it asked.
        self.since: float = 0.0
        #: Whether another slot was made in its place, because its GRAB_JOB was not answered. A job that comes for it
        #: after all is run, but then the slot is used no more.
        self.orphan: bool = False


class Assignment:
    """A job that a server has given to this worker.

    ``lost`` and ``overdue`` are set by the I/O thread, once, and read by any; ``outcome`` belongs to who took the job
    out of `HeldJobs.unfinished`; the rest is the task's thread's.
    """

    __slots__ = (
        "ability",
        "broken",
        "connection",
        "data",
        "final",
        "handle",
        "lost",
        "outcome",
        "overdue",
        "slot",
        "started",
        "task",
        "unique",
    )

    def __init__(self, connection: Connection, slot: Slot, ability: Ability, value: tuple[bytes, ...]) -> None:
        self.connection: Connection = connection
        self.slot: Slot = slot
        self.ability: Ability = ability
        self.handle: bytes
        self.task: bytes
        self.unique: bytes
        self.data: bytes
        self.handle, self.task, self.unique, self.data = value
        #: When the task was called; 0 before.
        self.started: float = 0.0
        #: Its final packet, if that is to leave together with the next question for a job.
        self.final: Entry | None = None
        #: Why its payload could not be decoded.
        self.broken: Exception | None = None
        self.outcome: str = "lost"
        self.lost: bool = False
        self.overdue: bool = False

    @property
    def server(self) -> str:
        """The address of the server that gave it."""
        return self.connection.server.name


class HeldJobs:
    """What one run of a worker holds, and how much of it is done.

    Args:
        asks_again: Whether a slot that is released may ask for the next job at once; else `take_slot` sees to it.
        take_slot: Takes a slot that is given back. Called on the I/O thread.
        on_sent: Called on the I/O thread when the last packet of a job is in line, if somebody waits for that.
    """

    def __init__(
        self,
        io: IOThread,
        pool: Pool,
        announcer: Announcer,
        asks_again: bool,
        take_slot: Callable[[Slot], object],
        on_sent: Callable[[], object],
    ) -> None:
        self._io = io
        self._pool = pool
        self._announcer = announcer
        self._asks_again = asks_again
        self._take_slot = take_slot
        self._on_sent = on_sent
        #: The jobs that have no final packet yet: who takes one out, in one step, is the one to make that packet.
        self.unfinished: dict[Assignment, None] = {}
        #: The jobs whose final packet is not in line on their connection yet.
        self.unsent: dict[Assignment, None] = {}
        #: Whether no new jobs are taken. Set by anybody, and never unset.
        self.draining: bool = False
        #: The servers that are asked for jobs. `Slots` replaces the tuple whole.
        self.awake: tuple[Connection, ...] = ()
        #: The tasks that are taken back from the servers as soon as no job of theirs is in `unsent`. Changed by
        #: `Abilities` on the I/O thread; others only look whether there are any.
        self.leaving: set[bytes] = set()
        # Finished jobs by outcome, and what went wrong. The threads that run tasks share ``_counts`` under
        # ``_count_lock``, which is held for a few instructions. ``_io_counts`` is the I/O thread's, which must not wait
        # for them.
        self._counts = dict.fromkeys(OUTCOMES, 0)
        self._io_counts = dict.fromkeys(OUTCOMES, 0)
        self._count_lock = threading.Lock()

    # ==== ANY THREAD ================================================================================================

    def send(self, assignment: Assignment, command: Command, *arguments: bytes) -> bool:
        """Send an update for a job; return False if it has ended, or its server has gone."""
        if assignment.connection.closed or assignment not in self.unfinished:
            return False
        packet = pack(command, assignment.handle, *arguments)
        size = packet_size(packet)
        # A task that sends faster than the server reads waits here.
        while self._pool.full(size) and not assignment.connection.closed:
            self._pool.wait_for_room(size, self._io.clock() + 1.0)
        assignment.connection.submit((packet, NO_REPLY, None))
        return True

    def finish(self, assignment: Assignment, outcome: str, command: Command, *arguments: bytes) -> Entry | None:
        """End a job: return its final packet, for the caller to hand to `send_final` or `release`.

        None if it has ended, or its server has gone.
        """
        if self.unfinished.pop(assignment, _NOT_HELD) is _NOT_HELD:
            return None
        if assignment.connection.closed:
            self._sent(assignment)
            self.result_lost(assignment, command)
            return None
        assignment.outcome = outcome
        self.count(outcome)
        return pack(command, assignment.handle, *arguments), NO_REPLY, assignment

    def send_final(self, assignment: Assignment, final: Entry) -> None:
        """Send the final packet of a job whose slot is given back later."""
        assignment.connection.submit(final)
        self._sent(assignment)

    def _sent(self, assignment: Assignment) -> None:
        self.unsent.pop(assignment, None)
        if self.leaving or self.draining:
            # The slot may have been given back meanwhile, and these wait for the last job of theirs.
            self._io.post(self._on_sent)

    def drop(self, assignment: Assignment) -> None:
        """Send nothing for a job: the server gives it to another worker."""
        self.unfinished.pop(assignment, None)
        self.unsent.pop(assignment, None)

    def release(self, assignment: Assignment, final: Entry | None) -> None:
        """Give back the slot of a job whose task has returned, after its final packet, or with it."""
        slot = assignment.slot
        connection = assignment.connection
        target = None if not self._asks_again or self.draining or slot.orphan else self._next(slot)
        if target is not None:
            slot.connection = target
            slot.since = self._io.clock()
            grab = WorkerSession.grab(slot)
            if final is None:
                target.submit(grab)
            elif target is connection:
                target.submit(final, grab)
            else:
                connection.submit(final)
                target.submit(grab)
            if final is not None:
                self.unsent.pop(assignment, None)
        else:
            if final is not None:
                connection.submit(final)
                # Before the post: at the end, that call finds everything sent.
                self.unsent.pop(assignment, None)
            self._io.post(partial(self._take_slot, slot))
        if self.leaving:
            self._io.post(self._on_sent)

    def _next(self, slot: Slot) -> Connection | None:
        """Return the server that comes after the one that the slot asked last, of those that are awake."""
        awake = self.awake
        if len(awake) < 2:
            return awake[0] if awake else None
        try:
            return awake[(awake.index(slot.connection) + 1) % len(awake)]
        except ValueError:
            return awake[0]

    def watch(self, assignment: Assignment) -> None:
        """Watch the time limit of a job whose task is being called."""
        timeout = assignment.ability.timeout
        if timeout is not None:
            when = self._io.clock() + timeout
            self._io.post_by(when, partial(self._watch, assignment, when))

    def wait_until_sent(self, assignments: Iterable[Assignment], timeout: float | None) -> None:
        """Wait until the servers have all that was sent for these jobs, or are lost; for ``timeout`` seconds at most.

        Not for the I/O thread.
        """
        deadline = None if timeout is None else monotonic() + timeout
        fences = []
        for connection in {assignment.connection for assignment in assignments}:
            if not connection.closed:
                passed = _Fence()
                fence(passed, [connection])
                fences.append(passed)
        for passed in fences:
            try:
                passed.promise.wait(None if deadline is None else max(0.0, deadline - monotonic()))
            except TimeoutError:
                return

    def count(self, outcome: str) -> None:
        """Count one more of ``outcome``."""
        if self._io.is_current():
            self._io_counts[outcome] += 1
        else:
            with self._count_lock:
                self._counts[outcome] += 1

    def snapshot(self) -> dict[str, int]:
        """Return the counts."""
        with self._count_lock:
            return {outcome: self._counts[outcome] + self._io_counts[outcome] for outcome in OUTCOMES}

    def result_lost(self, assignment: Assignment, command: Command) -> None:
        """Count and log a final packet that could not be sent."""
        self.count("results_lost")
        self._announcer.log(
            logging.WARNING,
            "%s of task %r (%s) could not be sent: the connection to %s was lost while it ran; the server gives the "
            "job to another worker",
            command.name,
            assignment.ability.name,
            assignment.handle.decode("utf-8", "replace"),
            assignment.server,
        )

    # ==== THE CHILD OF A FORK =======================================================================================

    def after_fork_in_child(self) -> None:
        """Forget all jobs: they are the parent's, and nothing is sent for them here."""
        self.lose(None)
        self.unfinished.clear()
        self.unsent.clear()

    # ==== THE I/O THREAD ============================================================================================

    def add(self, assignment: Assignment) -> None:
        """Hold one job more."""
        self.unfinished[assignment] = None
        self.unsent[assignment] = None

    def lose(self, connection: Connection | None) -> None:
        """Tell the tasks of the jobs that came through this connection that it is lost; of all jobs if None."""
        for assignment in list(self.unfinished):
            if connection is None or assignment.connection is connection:
                assignment.lost = True

    def _watch(self, assignment: Assignment, when: float) -> None:
        if assignment in self.unfinished:
            self._io.call_at(when, partial(self._overdue, assignment))

    def _overdue(self, assignment: Assignment) -> None:
        """End a job in its task's place; what the task returns later goes nowhere."""
        timeout = assignment.ability.timeout
        text = f"task {assignment.ability.name!r} took longer than its timeout of {timeout:g} s"
        entry = self.finish(assignment, "timed_out", Command.WORK_EXCEPTION, text.encode())
        if entry is not None:
            assignment.overdue = True
            self.send_final(assignment, entry)
            self._announcer.log(logging.ERROR, "%s; it occupies one of the worker's slots until it returns", text)


def fence(query: Query, connections: Iterable[Connection]) -> None:
    """Have ``query`` answered when the servers have everything that was sent before. Any thread may call this."""
    for connection in connections:
        connection.submit((pack(Command.ECHO_REQ, b"gearman_pool fence"), Command.ECHO_RES.value, query))


class _Fence(Query):
    """Waits until a server has everything."""

    def __init__(self) -> None:
        self.promise = Promise()

    def answered(self, connection: Connection, value: Any) -> None:
        self.promise.set(None)

    def lost(self, error: GearmanError) -> None:
        self.promise.set(None)
