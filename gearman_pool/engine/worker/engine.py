"""`WorkerEngine`: one run of a worker, and what is done with what its connections tell it.

The rooms beside this one hold its parts: `held_jobs` what the threads that run tasks do with jobs, `slots` which server
is asked next, `abilities` what the servers are told of the tasks, `farewell` the end.

Threads: methods under the banner ANY THREAD may be called from any thread and take no lock. All others run on the I/O
thread, which owns all other state. No task and no hook runs here.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from functools import partial

from ...errors import GearmanError
from ...protocol.commands import Command
from ...protocol.session import ERROR, REPLY
from ...protocol.session import Event as SessionEvent
from ...protocol.worker import ASSIGNED, NOT_MINE, NOTHING, WOKEN, WorkerSession
from ...settings.addresses import ServerAddress
from ...settings.client_options import ClientOptions
from ...threads.waiting import Promise
from ...transport.connection import Connection, LostEntries
from ...transport.handler import Query
from ...transport.io_thread import Pollable
from ..base import Engine
from .abilities import Abilities
from .farewell import Farewell
from .held_jobs import Ability, Assignment, HeldJobs, Slot
from .slots import Slots

__all__ = ["WorkerEngine"]

log: logging.Logger = logging.getLogger("gearman_pool.worker")


class WorkerEngine(Engine[WorkerSession]):
    """One run of a worker: its pool, its I/O thread, its slots and the jobs it holds.

    ``jobs`` hands jobs to the threads that run them; None tells one of them to end. ``held`` is what these threads do
    with them.
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
        io, pool, announcer = self.io, self.pool, self.announcer
        self.jobs: queue.SimpleQueue[Assignment | None] = queue.SimpleQueue()
        self.held: HeldJobs = HeldJobs(io, pool, announcer, max_jobs is None, self._take_slot, self._on_sent)
        #: Was told to stop, so that tasks should come to an end: besides ``draining``. Set by anybody, and never unset.
        self.stopping: bool = False
        self._ready = ready
        self._capacity = capacity
        #: Whether there is a last job, of ``max_jobs``.
        self._limited = max_jobs is not None
        self._slots = Slots(io, pool, self.held, ready, capacity, poll_interval, max_jobs)
        self._abilities = Abilities(pool, self.held, self._slots, abilities, client_id, options.max_packet_size)
        self._farewell = Farewell(io, pool, self.held, self._slots, announcer, on_give_up)
        self._available: object = None
        io.post(self._slots.tick)

    # ==== ANY THREAD ================================================================================================

    @property
    def draining(self) -> bool:
        """Whether it takes no new jobs."""
        return self.held.draining

    @property
    def given_up(self) -> bool:
        """Whether jobs were left at the end."""
        return self._farewell.given_up

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
        self.held.draining = True
        self.io.post(self._slots.publish)

    def begin_stop(self, timeout: float) -> None:
        """Drain, tell the tasks to come to an end, and give up after ``timeout`` seconds.

        When it is called again, the earliest end counts.
        """
        self.held.draining = self.stopping = True
        self.io.post(partial(self._farewell.give_up_after, timeout))

    def end(self, timeout: float) -> bool:
        """Stop the I/O thread now, whatever is held, and wait for it and the callbacks; return whether it has ended."""
        ended = super().end(timeout)
        self.callbacks.stop()
        self.callbacks.join(timeout)
        return ended

    def attend(self, descriptor: int, pollable: Pollable) -> None:
        """Have ``pollable.on_ready`` called on the I/O thread whenever the descriptor can be read."""
        self.io.post(partial(self._attend, descriptor, pollable))

    def register(self, task: bytes, ability: Ability) -> None:
        """Tell the servers of a task."""
        self.io.post(partial(self._abilities.register, task, ability))

    def unregister(self, task: bytes) -> None:
        """Take a task back from the servers, as soon as no job of it runs."""
        self.io.post(partial(self._abilities.unregister, task))

    def set_client_id(self, client_id: bytes) -> None:
        """Tell the servers a new name."""
        self.io.post(partial(self._abilities.set_client_id, client_id))

    # ==== THE CHILD OF A FORK =======================================================================================

    def after_fork_in_child(self) -> None:
        """Close what was inherited. The jobs are the parent's: nothing is sent for them here."""
        self.held.draining = self.stopping = True
        super().after_fork_in_child()
        self.held.after_fork_in_child()
        self._ready.clear()
        # Whoever of the parent's threads has forked goes on here, and is told to end.
        self.jobs = queue.SimpleQueue()
        self.jobs.put(None)

    # ==== THE I/O THREAD ============================================================================================

    def _turn(self) -> None:
        super()._turn()
        if self.pool.available is not self._available:
            self._available = self.pool.available
            self._meet()
        self._slots.place()
        if self.held.draining:
            self._farewell.see_whether_all_is_done()

    def _on_stop(self) -> None:
        self.held.draining = True
        self.held.awake = ()
        self.held.lose(None)
        super()._on_stop()
        self._ready.clear()
        for _ in range(self._capacity):
            self.jobs.put(None)

    def _closed(self) -> GearmanError:
        return GearmanError("the worker has stopped")

    def _attend(self, descriptor: int, pollable: Pollable) -> None:
        with contextlib.suppress(OSError):  # no selector, for want of descriptors: Python's handlers must do
            self.io.watch(descriptor, pollable)

    def _new_session(self) -> WorkerSession:
        return self._abilities.new_session()

    def _meet(self) -> None:
        """Servers came or went."""
        for connection in self._slots.meet(c for server in self.pool.available for c in server.up):
            self._abilities.greet(connection)
        self._slots.publish()

    # ---- what the threads that run tasks hand over -----------------------------------------------------------------

    def _take_slot(self, slot: Slot) -> None:
        self._slots.take_back(slot)

    def _on_sent(self) -> None:
        self._abilities.take_back()

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
                self._slots.take_unanswered(token)
            elif kind == WOKEN:
                self._slots.woken(connection)
            elif kind == REPLY:
                if token is not None:
                    token.answered(connection, value)
            elif kind == ERROR:
                if token is not None:
                    token.refused(connection, *value)
            elif kind == NOT_MINE:
                self.held.count("refused")
                text = "%s refused a packet for a job that is not this worker's any more: %s"
                self.announcer.log(logging.INFO, text, connection.server.address, value)
        # The last answer decides, and once for all that came: the server answers each PRE_SLEEP too many with a NOOP.
        if nothing:
            self._slots.no_job_came(connection)

    def _assigned(self, connection: Connection, slot: Slot, value: tuple[bytes, ...]) -> None:
        source = self._slots.job_came(connection)
        ability = self._abilities.table.get(value[1])
        if ability is None or (source is not None and value[1] in source.taken_back):
            # Assigned before the server read CANT_DO, with which it has queued the job again.
            text = "%s assigned a job of a task that was taken back; it gives the job to another worker"
            self.announcer.log(logging.INFO, text, connection.server.address)
            self._slots.take_back(slot)
            return
        if self._limited and self._slots.was_the_last():
            self.held.draining = True
            self._slots.publish()
        assignment = Assignment(connection, slot, ability, value)
        self.held.add(assignment)
        self.jobs.put(assignment)

    def on_lost(self, connection: Connection, error: GearmanError, entries: LostEntries) -> None:
        """Take slots back, and give up the jobs whose connection is lost."""
        for _, _, token in (*entries.unsent, *entries.unanswered):
            if isinstance(token, Slot):
                self._slots.take_unanswered(token)
            elif isinstance(token, Query):
                token.lost(error)
            elif isinstance(token, Assignment) and not self.held.draining:
                self.held.result_lost(token, Command.WORK_COMPLETE)
        self.held.lose(connection)
        self._farewell.no_longer_waits_for(connection)
