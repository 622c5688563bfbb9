"""A worker's half on the I/O thread: which server is asked for a job next, and what is done with the answers.

Each job that a worker can hold is a `Slot`, and a slot is always in one place: idle here, on its way as the token of a
GRAB_JOB, or with the thread that runs the job it brought. Whoever has a slot owns it; handing it on is one append. So
a thread that has finished a job can send the result and the next GRAB_JOB in one write, without asking anybody: it
reads the tuple of servers that are awake, which the I/O thread replaces whole.

Threads: methods under the banner ANY THREAD may be called from any thread and take no lock but `_count_lock`. All
others run on the I/O thread, which owns all other state.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...errors import GearmanError
from ...protocol.commands import Command
from ...protocol.packets import pack, packet_size
from ...protocol.session import ERROR, NO_REPLY, REPLY, TEXT_LINE, Entry
from ...protocol.session import Event as SessionEvent
from ...protocol.text import pack_text_command
from ...protocol.worker import ASSIGNED, NOT_MINE, NOTHING, WOKEN, WorkerSession
from ...settings.addresses import ServerAddress
from ...settings.client_options import ClientOptions
from ...threads.waiting import Promise
from ...transport.connection import Connection, LostEntries
from ...transport.handler import Query
from ...transport.io_thread import Pollable
from ...transport.timers import Timer
from ..base import Engine

__all__ = ["Ability", "Assignment", "Slot", "WorkerEngine"]

log: logging.Logger = logging.getLogger("gearman_pool.worker")

#: A NOOP this soon after PRE_SLEEP, in seconds, was its answer: the server believed that it has a job.
_AT_ONCE = 0.05

#: After this many such NOOPs without a job the worker waits before it believes the next one. gearmand 1.1 with jobs of
#: the future answers each PRE_SLEEP with a NOOP and each GRAB_JOB with NO_JOB, as fast as it can.
_BELIEVED = 3

#: How long a GRAB_JOB may be unanswered before its slot is used elsewhere, in seconds; or this many round trips.
_GRAB_PATIENCE = 0.1
_GRAB_ROUND_TRIPS = 10

_OUTCOMES = ("done", "failed", "timed_out", "results_lost", "refused")

#: How long the servers may take at the end to say that they have the last results, in seconds.
_FAREWELL = 2.0

#: From this major version on gearmand's own time limit for jobs can be relied on (its issue 301).
_TIMEOUT_VERSION = 2

#: How much longer than the worker the server waits for a task, in seconds: it steps in only where this process cannot.
_SERVER_GRACE = 1.0


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
        #: It was replaced because its GRAB_JOB was not answered; if a job comes after all, it is used once more.
        self.orphan: bool = False


class Assignment:
    """A job that a server has given to this worker.

    ``lost`` and ``overdue`` are set by the I/O thread, once, and read by any; ``outcome`` belongs to who took the job
    out of `WorkerEngine.held`; the rest is the task's thread's.
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


class _State:
    """What is known of a connection besides what its session knows."""

    __slots__ = ("answered_at_once", "believed", "fruitless", "slept", "taken_back")

    def __init__(self) -> None:
        self.slept = 0.0
        self.fruitless = 0
        self.answered_at_once = False
        #: Whether it is asked for jobs.
        self.believed = True
        #: Tasks of which it may have assigned a job before it read their CANT_DO; once for each CANT_DO.
        self.taken_back: list[bytes] = []


class WorkerEngine(Engine[WorkerSession]):
    """One run of a worker: its pool, its I/O thread, its slots and the jobs it holds.

    ``jobs`` hands jobs to the threads that run them; None tells one of them to end. ``held`` has every job that was
    assigned and has no final packet yet: whoever takes a job out, in one step, is the one to send that packet. A job
    stays in ``_unsent`` until that packet is in line on its connection.
    """

    def __init__(
        self,
        addresses: tuple[ServerAddress, ...],
        options: ClientOptions,
        capacity: int,
        poll_interval: float,
        client_id: bytes | None,
        abilities: dict[bytes, Ability],
        max_jobs: int | None,
        ready: threading.Event,
        on_give_up: Callable[[], object],
    ) -> None:
        super().__init__("worker", "gearman_pool-worker", addresses, options, self._new_session, log)
        self.jobs: queue.SimpleQueue[Assignment | None] = queue.SimpleQueue()
        self.held: dict[Assignment, None] = {}
        self._unsent: dict[Assignment, None] = {}
        #: Takes no new jobs. Set by anybody, and never unset.
        self.draining: bool = False
        #: Was told to stop, so that tasks should come to an end: besides ``draining``. Set by anybody, and never unset.
        self.stopping: bool = False
        self.given_up: bool = False
        self.ready = ready
        self._on_give_up = on_give_up
        # Finished jobs by outcome, and what went wrong. The threads that run tasks share the first under
        # ``_count_lock``,
        # which is held for a few instructions; the second is the I/O thread's, which must not wait for them.
        self._counts = dict.fromkeys(_OUTCOMES, 0)
        self._io_counts = dict.fromkeys(_OUTCOMES, 0)
        self._count_lock = threading.Lock()
        self._awake: tuple[Connection[WorkerSession], ...] = ()
        self._states: dict[Connection[WorkerSession], _State] = {}
        self._available: object = None
        self._idle = [Slot() for _ in range(capacity)]
        self._capacity = capacity
        #: When what is held is given up.
        self._deadline: Timer | None = None
        #: How many more jobs may be taken; None for any number.
        self._left = max_jobs
        # Questions that are not answered yet; kept right only if ``max_jobs`` is set, for then they all are asked here.
        self._asking = 0
        self._rotation = 0
        self._due: deque[Connection] = deque()
        self._poll_interval = poll_interval
        self._client_id = client_id
        self._abilities = dict(abilities)
        self._leaving: set[bytes] = set()
        self._farewells: set[Connection] | None = None
        self._waning = False
        self.io.post(self._tick)

    # ==== ANY THREAD ================================================================================================

    def enter(self) -> None:
        """Let the calling thread run the loop while it waits for jobs; see `next_job`."""
        started = Promise()
        self.io.post(partial(started.set, None))
        # A worker that is stopped at once may have ended already: then nobody makes that call.
        if not self.io.ended:
            started.wait(None)
        self.io.leadership.enter()

    def leave(self) -> None:
        """Let the I/O thread run the loop from now on."""
        self.io.leadership.leave()

    def next_job(self, timeout: float | None) -> Assignment | None:
        """Return the next job; None at the end. The calling thread has entered.

        Raises:
            queue.Empty: none came within ``timeout`` seconds.
        """
        if self.jobs.empty():
            self.io.run_turns(self._has_job, timeout)
        try:
            return self.jobs.get_nowait()
        except queue.Empty:
            if self.io.stopped:
                return None
            raise

    def wait_for_job(self, timeout: float | None) -> Assignment | None:
        """Return the next job, while the I/O thread runs the loop; None at the end."""
        return self.jobs.get(timeout=timeout)

    def _has_job(self) -> bool:
        return not self.jobs.empty()

    def begin_drain(self) -> None:
        """Take no new jobs, and end when those that are held are done, however long that takes."""
        # At once, for the thread that finishes a job next may not wait for the I/O thread to hear of it.
        self.draining = True
        self.io.post(self._publish)

    def begin_stop(self, timeout: float) -> None:
        """Drain, tell the tasks to come to an end, and give up after ``timeout`` seconds.

        When it is called again, the earliest end counts.
        """
        self.draining = self.stopping = True
        self.io.post(partial(self._begin_stop, timeout))

    def end(self, timeout: float) -> bool:
        """Stop the I/O thread now, whatever is held, and wait for it and the callbacks; return whether it has ended."""
        ended = super().end(timeout)
        self.callbacks.stop()
        self.callbacks.join(timeout)
        return ended

    def send(self, assignment: Assignment, command: Command, *arguments: bytes) -> bool:
        """Send an update for a job; return False if it has ended, or its server has gone."""
        if assignment.connection.closed or assignment not in self.held:
            return False
        packet = pack(command, assignment.handle, *arguments)
        size = packet_size(packet)
        # A task that sends faster than the server reads waits here.
        while self.pool.full(size) and not assignment.connection.closed:
            self.pool.wait_for_room(size, self.io.clock() + 1.0)
        assignment.connection.submit((packet, NO_REPLY, None))
        return True

    def finish(self, assignment: Assignment, outcome: str, command: Command, *arguments: bytes) -> Entry | None:
        """End a job: return its final packet, for the caller to hand to `send_final` or `release`.

        None if it has ended, or its server has gone.
        """
        if self.held.pop(assignment, self) is self:
            return None
        if assignment.connection.closed:
            self._sent(assignment)
            self._result_lost(assignment, command)
            return None
        assignment.outcome = outcome
        self.count(outcome)
        return pack(command, assignment.handle, *arguments), NO_REPLY, assignment

    def send_final(self, assignment: Assignment, final: Entry) -> None:
        """Send the final packet of a job whose slot is given back later."""
        assignment.connection.submit(final)
        self._sent(assignment)

    def _sent(self, assignment: Assignment) -> None:
        self._unsent.pop(assignment, None)
        if self._leaving or self.draining:
            # The slot may have been given back meanwhile, and these wait for the last job of theirs.
            self.io.post(self._take_abilities_back)

    def drop(self, assignment: Assignment) -> None:
        """Send nothing for a job: the server gives it to another worker."""
        self.held.pop(assignment, None)
        self._unsent.pop(assignment, None)

    def release(self, assignment: Assignment, final: Entry | None) -> None:
        """Give back the slot of a job whose task has returned, after its final packet, or with it."""
        slot = assignment.slot
        connection = assignment.connection
        target = None if self._left is not None or self.draining or slot.orphan else self._next(slot)
        if target is not None:
            slot.connection = target
            slot.since = self.io.clock()
            grab = WorkerSession.grab(slot)
            if final is None:
                target.submit(grab)
            elif target is connection:
                target.submit(final, grab)
            else:
                connection.submit(final)
                target.submit(grab)
            if final is not None:
                self._unsent.pop(assignment, None)
        else:
            if final is not None:
                connection.submit(final)
                # Before the post: at the end, that call finds everything sent.
                self._unsent.pop(assignment, None)
            self.io.post(partial(self._take_back, slot))
        if self._leaving:
            self.io.post(self._take_abilities_back)

    def _next(self, slot: Slot) -> Connection | None:
        """Return the server that comes after the one it asked last, of those that may have jobs."""
        awake = self._awake
        if len(awake) < 2:
            return awake[0] if awake else None
        try:
            return awake[(awake.index(slot.connection) + 1) % len(awake)]
        except ValueError:
            return awake[0]

    def count(self, outcome: str) -> None:
        """Count one more of ``outcome``."""
        if self.io.is_current():
            self._io_counts[outcome] += 1
        else:
            with self._count_lock:
                self._counts[outcome] += 1

    def snapshot(self) -> dict[str, int]:
        """Return the counts."""
        with self._count_lock:
            return {outcome: self._counts[outcome] + self._io_counts[outcome] for outcome in _OUTCOMES}

    def _result_lost(self, assignment: Assignment, command: Command) -> None:
        self.count("results_lost")
        self.announcer.log(
            logging.WARNING,
            "%s of task %r (%s) could not be sent: the connection to %s was lost while it ran; the server gives the "
            "job to another worker",
            command.name,
            assignment.ability.name,
            assignment.handle.decode("utf-8", "replace"),
            assignment.server,
        )

    def fence(self, query: Query, connections: list[Connection]) -> None:
        """Have ``query`` answered when the servers have everything that was sent before."""
        for connection in connections:
            connection.submit((pack(Command.ECHO_REQ, b"gearman_pool fence"), Command.ECHO_RES.value, query))

    def attend(self, descriptor: int, pollable: Pollable) -> None:
        """Have ``pollable.on_ready`` called on the I/O thread whenever the descriptor can be read."""
        self.io.post(partial(self._attend, descriptor, pollable))

    def register(self, task: bytes, ability: Ability) -> None:
        """Tell the servers of a task."""
        self.io.post(partial(self._register, task, ability))

    def unregister(self, task: bytes) -> None:
        """Take a task back from the servers, as soon as no job of it runs."""
        self.io.post(partial(self._unregister, task))

    def set_client_id(self, client_id: bytes) -> None:
        """Tell the servers a new name."""
        self.io.post(partial(self._set_client_id, client_id))

    def watch(self, assignment: Assignment) -> None:
        """Watch the time limit of a job whose task is being called."""
        timeout = assignment.ability.timeout
        if timeout is not None:
            when = self.io.clock() + timeout
            self.io.post_by(when, partial(self._watch, assignment, when))

    # ==== THE CHILD OF A FORK =======================================================================================

    def after_fork_in_child(self) -> None:
        """Close what was inherited. The jobs are the parent's: nothing is sent for them here."""
        self.draining = self.stopping = True
        super().after_fork_in_child()
        for assignment in list(self.held):
            assignment.lost = True
        self.held.clear()
        self._unsent.clear()
        self.ready.clear()
        # Whoever of the parent's threads has forked goes on here, and is told to end.
        self.jobs = queue.SimpleQueue()
        self.jobs.put(None)

    # ==== THE I/O THREAD ============================================================================================

    def _turn(self) -> None:
        super()._turn()
        if self.pool.available is not self._available:
            self._available = self.pool.available
            self._meet()
        self._place()
        if self.draining:
            self._see_whether_all_is_done()

    def _on_stop(self) -> None:
        self.draining = True
        self._awake = ()
        for assignment in list(self.held):
            assignment.lost = True
        super()._on_stop()
        self.ready.clear()
        for _ in range(self._capacity):
            self.jobs.put(None)

    def _closed(self) -> GearmanError:
        return GearmanError("the worker has stopped")

    def _attend(self, descriptor: int, pollable: Pollable) -> None:
        with contextlib.suppress(OSError):  # no selector, for want of descriptors: Python's handlers must do
            self.io.watch(descriptor, pollable)

    # ---- servers ---------------------------------------------------------------------------------------------------

    def _new_session(self) -> WorkerSession:
        plain = [(task, 0) for task, ability in self._abilities.items() if ability.timeout is None]
        plain = [item for item in plain if item[0] not in self._leaving]
        return WorkerSession(self.options.max_packet_size, self._client_id, plain)

    def _meet(self) -> None:
        """Servers came or went."""
        up = [connection for server in self.pool.available for connection in server.up]
        self._states = {connection: self._states.get(connection) or self._greet(connection) for connection in up}
        self._publish()

    def _greet(self, connection: Connection[WorkerSession]) -> _State:
        missing = [task for task in self._abilities if task not in connection.session.abilities]
        if any(self._abilities[task].timeout is not None for task in missing):
            packet = pack_text_command("version")
            connection.submit((packet, TEXT_LINE, _VersionQuery(self)))
        return _State()

    def version_known(self, connection: Connection[WorkerSession], version: bytes) -> None:
        """Tell a server of the tasks with time limits, in the way that its version can bear."""
        session = connection.session
        reliable = _major(version) >= _TIMEOUT_VERSION
        for task, ability in self._abilities.items():
            if task not in session.abilities:
                limit = 0 if ability.timeout is None or not reliable else _milliseconds(ability.timeout)
                connection.submit(session.can_do(task, limit))
        self._expect_jobs(connection)
        self._publish()

    def _expect_jobs(self, connection: Connection) -> None:
        """Ask this server: it wakes nobody for jobs that have waited for a task since before it was told of it."""
        state = self._states.get(connection)
        if state is not None:
            state.believed = True

    def _publish(self) -> None:
        """Say which servers are awake, and whether the worker is ready."""
        known = [
            connection
            for connection in self._states
            if all(task in connection.session.abilities for task in self._abilities)
        ]
        self._awake = () if self.draining else tuple(c for c in known if self._states[c].believed)
        if bool(known) != self.ready.is_set():
            (self.ready.set if known else self.ready.clear)()

    # ---- slots -----------------------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Send out idle slots: to servers that are awake in turn, and to those that are due to be asked anyway."""
        if not self._idle or self.draining:
            return
        batches: dict[Connection, list[Entry]] = {}
        now = self.io.clock()
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

    def _next_awake(self) -> Connection | None:
        awake = self._awake
        self._rotation += 1
        return awake[self._rotation % len(awake)] if awake else None

    def _next_due(self) -> Connection | None:
        while self._due:
            connection = self._due.popleft()
            if connection in self._states and not connection.closed:
                return connection
        return None

    def _take_back(self, slot: Slot) -> None:
        if not slot.orphan:
            self._idle.append(slot)

    def _tick(self) -> None:
        """Ask sleeping servers too, from time to time: gearmand before 2.0 wakes nobody for a job that falls due."""
        if self.draining:
            return
        self._due = deque(c for c in self._states if c not in self._awake and not _is_asked(c))
        self._reclaim()
        self.io.call_later(self._poll_interval, self._tick)

    def _reclaim(self) -> None:
        """Replace slots whose question is not answered: a frozen server must not keep them from the others."""
        if len(self.pool.servers) < 2:
            return
        now = self.io.clock()
        for connection in self.pool.connections:
            latency = connection.server.latency or 0.0
            patience = max(_GRAB_PATIENCE, _GRAB_ROUND_TRIPS * latency)
            for slot in connection.unanswered():
                if isinstance(slot, Slot) and not slot.orphan and now - slot.since > patience:
                    slot.orphan = True
                    self._idle.append(Slot())
                    self._rest(connection)

    def _rest(self, connection: Connection) -> None:
        """Ask this server for nothing until it says something."""
        state = self._states.get(connection)
        if state is not None and state.believed:
            state.believed = False
            self._publish()

    # ---- events ----------------------------------------------------------------------------------------------------

    def on_events(self, connection: Connection, events: list[SessionEvent]) -> None:
        """Do what the session's events say."""
        nothing = False
        for kind, token, value in events:
            if kind == ASSIGNED:
                nothing = False
                self._assigned(connection, token, value)
            elif kind == NOTHING:
                nothing = True
                self._asking -= 1
                self._take_back(token)
            elif kind == WOKEN:
                self._woken(connection)
            elif kind == REPLY:
                if token is not None:
                    token.answered(connection, value)
            elif kind == ERROR:
                if token is not None:
                    token.refused(connection, *value)
            elif kind == NOT_MINE:
                self.count("refused")
                text = "%s refused a packet for a job that is not this worker's any more: %s"
                self.announcer.log(logging.INFO, text, connection.server.address, value)
        # The last answer decides, and once for all that came: the server answers each PRE_SLEEP too many with a NOOP.
        if nothing:
            self._nothing(connection)

    def _assigned(self, connection: Connection, slot: Slot, value: tuple[bytes, ...]) -> None:
        self._asking -= 1
        state = self._states.get(connection)
        if state is not None:
            state.fruitless = 0
            if not state.believed:
                state.believed = True
                self._publish()
        ability = self._abilities.get(value[1])
        if ability is None or (state is not None and value[1] in state.taken_back):
            # Assigned before the server read CANT_DO, with which it has queued the job again.
            text = "%s assigned a job of a task that was taken back; it gives the job to another worker"
            self.announcer.log(logging.INFO, text, connection.server.address)
            self._take_back(slot)
            return
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.draining = True
                self._publish()
        assignment = Assignment(connection, slot, ability, value)
        self.held[assignment] = None
        self._unsent[assignment] = None
        self.jobs.put(assignment)

    def _nothing(self, connection: Connection[WorkerSession]) -> None:
        """The last answer was that there is no job: ask no more, and sleep when no question is on its way."""
        self._rest(connection)
        if _is_asked(connection):
            return
        state = self._states.get(connection)
        if state is not None:
            state.fruitless = state.fruitless + 1 if state.answered_at_once else 0
            state.slept = self.io.now
        connection.submit(connection.session.sleep())

    def _woken(self, connection: Connection) -> None:
        state = self._states.get(connection)
        if state is None:
            return
        state.answered_at_once = self.io.now - state.slept < _AT_ONCE
        if not state.answered_at_once:
            state.fruitless = 0
        if state.fruitless < _BELIEVED:
            self._believe(connection)
        else:
            delay = min(self._poll_interval, 0.001 * 2 ** min(state.fruitless, 20))
            self.io.call_later(delay, partial(self._believe, connection))
        if not self._idle:
            # Perhaps it waits for a server that does not answer.
            self.io.call_later(2 * _GRAB_PATIENCE, self._reclaim)

    def _believe(self, connection: Connection) -> None:
        state = self._states.get(connection)
        if state is not None and not state.believed:
            state.believed = True
            self._publish()

    def on_lost(self, connection: Connection, error: GearmanError, entries: LostEntries) -> None:
        """Take slots back, and give up the jobs whose connection is lost."""
        for _, _, token in (*entries.unsent, *entries.unanswered):
            if isinstance(token, Slot):
                self._asking -= 1
                self._take_back(token)
            elif isinstance(token, Query):
                token.lost(error)
            elif isinstance(token, Assignment) and not self.draining:
                self._result_lost(token, Command.WORK_COMPLETE)
        for assignment in list(self.held):
            if assignment.connection is connection:
                assignment.lost = True
        if self._farewells is not None:
            self._farewells.discard(connection)

    # ---- tasks -----------------------------------------------------------------------------------------------------

    def _register(self, task: bytes, ability: Ability) -> None:
        self._leaving.discard(task)
        self._abilities[task] = ability
        for connection in self.pool.connections:
            session = connection.session
            if task in session.abilities:
                continue
            if ability.timeout is None:
                connection.submit(session.can_do(task))
                self._expect_jobs(connection)
            elif connection in self._states:
                self._greet(connection)
        self._publish()

    def _unregister(self, task: bytes) -> None:
        if task in self._abilities:
            self._leaving.add(task)
            self._take_abilities_back()

    def _take_abilities_back(self) -> None:
        """Send CANT_DO for tasks of which no job is here: gearmand gives one that runs to another worker as well."""
        for task in self._leaving - {assignment.task for assignment in list(self._unsent)}:
            self._leaving.discard(task)
            del self._abilities[task]
            for connection in self.pool.connections:
                session = connection.session
                if task not in session.abilities:
                    continue
                connection.submit(session.cant_do(task))
                state = self._states.get(connection)
                if state is not None:
                    # Answers come in order: what is assigned of the task before this one's was so before the CANT_DO,
                    # even if the task is registered again by then.
                    state.taken_back.append(task)
                    self.fence(_TakenBack(state, task), [connection])
        self._publish()

    def _set_client_id(self, client_id: bytes) -> None:
        self._client_id = client_id
        for connection in self.pool.connections:
            connection.submit(WorkerSession.client_id(client_id))

    def _watch(self, assignment: Assignment, when: float) -> None:
        if assignment in self.held:
            self.io.call_at(when, partial(self._overdue, assignment))

    def _overdue(self, assignment: Assignment) -> None:
        """End a job in its task's place; what the task returns later goes nowhere."""
        timeout = assignment.ability.timeout
        text = f"task {assignment.ability.name!r} took longer than its timeout of {timeout:g} s"
        entry = self.finish(assignment, "timed_out", Command.WORK_EXCEPTION, text.encode())
        if entry is not None:
            assignment.overdue = True
            self.send_final(assignment, entry)
            self.announcer.log(logging.ERROR, "%s; it occupies one of the worker's slots until it returns", text)

    # ---- the end ---------------------------------------------------------------------------------------------------

    def _begin_stop(self, timeout: float) -> None:
        self._publish()
        deadline = self._deadline
        if deadline is None or self.io.clock() + timeout < deadline.when:
            if deadline is not None:
                deadline.cancel()
            self._deadline = self.io.call_later(timeout, self._give_up)

    def _see_whether_all_is_done(self) -> None:
        if self._unsent:
            return
        if self._farewells is None:
            if not self._waning:
                self._waning = True
                self.io.call_later(_FAREWELL, self._stop_unless_busy)
            if len(self._idle) < self._capacity:
                return  # a question is on its way, and may be answered with a job
            # Closing a socket with something unread in it destroys what was sent: wait until the server has it all.
            self._farewells = {connection for connection in self.pool.connections if connection.up}
            self.fence(_Farewell(self), list(self._farewells))
        if not self._farewells:
            self.io.stop()

    def _stop_unless_busy(self) -> None:
        """Some server takes too long: it is left without waiting for it."""
        if self._unsent:
            self._waning = False
        else:
            self.io.stop()

    def farewell(self, connection: Connection) -> None:
        """A server has everything."""
        if self._farewells is not None:
            self._farewells.discard(connection)

    def _give_up(self) -> None:
        self.given_up = True
        self._on_give_up()
        for assignment in list(self.held):
            self.announcer.log(
                logging.ERROR,
                "task %r (%s) has not ended within the shutdown timeout; %s gives the job to another worker",
                assignment.ability.name,
                assignment.handle.decode("utf-8", "replace"),
                assignment.server,
            )
        self.io.stop()


class _VersionQuery(Query):
    """Asks for the server's version."""

    def __init__(self, engine: WorkerEngine) -> None:
        self._engine = engine

    def answered(self, connection: Connection, value: Any) -> None:
        self._engine.version_known(connection, value)

    def refused(self, connection: Connection, code: str, text: str) -> None:
        self._engine.version_known(connection, b"")


class _TakenBack(Query):
    """Asks whether the server has read the CANT_DO of a task."""

    def __init__(self, state: _State, task: bytes) -> None:
        self._state = state
        self._task = task

    def answered(self, connection: Connection, value: Any) -> None:
        self._state.taken_back.remove(self._task)


class _Farewell(Query):
    """Asks whether the server has everything."""

    def __init__(self, engine: WorkerEngine) -> None:
        self._engine = engine

    def answered(self, connection: Connection, value: Any) -> None:
        self._engine.farewell(connection)


def _is_asked(connection: Connection) -> bool:
    """Whether a question for a job is on its way there."""
    return any(isinstance(token, Slot) for token in connection.tokens())


def _major(version: bytes) -> int:
    """Return the first number of ``OK 2.0.1``; 0 if there is none."""
    digits = version.removeprefix(b"OK ").partition(b".")[0]
    return int(digits) if digits.isdigit() and len(digits) < 5 else 0


def _milliseconds(timeout: float) -> int:
    return max(1000, round((timeout + _SERVER_GRACE) * 1000))
