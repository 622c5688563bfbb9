"""`TaskRunner`: one run of a worker as its threads see it, from the first question for a job to the last task's end.

Threads: `TaskRunner.run` and `TaskRunner.work` take the calling thread, which runs the tasks itself or starts others
that do. Everything users may override is called here, on those threads and without a lock, through the worker's own
methods (`Hooks`), so that a subclass's are the ones that run. Nothing here touches a connection.
"""

from __future__ import annotations

import inspect
import logging
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ...connection import Connected, GearmanConnection
from ...encoders import BytesEncoder
from ...errors import ForkedProcess
from ...events import TaskFinished, TaskStarted
from ...jobs.job import GearmanJob
from ...protocol.commands import Command
from ...settings.client_options import ClientOptions
from .engine import WorkerEngine
from .held_jobs import Assignment
from .job import Sender, assignment_of, give
from .runs import Runs, stats_of
from .stop_signals import StopSignals

__all__ = ["END_TIMEOUT", "Hooks", "TaskRunner", "call_task", "text_of"]

log: logging.Logger = logging.getLogger("gearman_pool.worker")

#: How long the end of the I/O thread is waited for, in seconds; it only closes sockets then.
END_TIMEOUT = 2.0

#: The longest text of an exception that is sent to the client, in bytes.
_MAX_EXCEPTION = 16 * 1024

#: How long the main thread waits at a stretch, in seconds. A signal that comes in the instant before the wait, or that
#: the system hands to another thread, does not end it; Python sees to the handler when it is over.
_SIGNAL_LOOK = 1.0

#: How long a worker that has given up waits for its lines to be logged before it ends the process, in seconds.
_LAST_WORDS = 1.0


class Hooks(Sender, Connected, Protocol):
    """What a run asks of its worker: the settings, and the methods that a subclass may have overridden."""

    options: ClientOptions
    data_encoder: Any
    concurrency: int
    prefetch: int
    poll_interval: float
    shutdown_timeout: float
    max_jobs: int | None
    ready: threading.Event

    def stop(self) -> None: ...

    def after_poll(self, any_activity: bool, /) -> bool: ...

    def after_job(self) -> bool: ...

    def on_job_execute(self, current_job: GearmanJob, /) -> bool: ...

    def create_job(
        self, command_handler: GearmanConnection, job_handle: str, task: str, unique: str, data: Any, /
    ) -> GearmanJob: ...


class TaskRunner:
    """One run of a worker.

    Args:
        worker: Whose tasks are run, by its own methods.
        runs: What the run begins with, and where it is noted that it goes on.
    """

    def __init__(self, worker: Hooks, runs: Runs) -> None:
        self._worker = worker
        self._runs = runs
        #: What a task or a hook on another thread has ended the run with.
        self._failure: BaseException | None = None
        self._signals: StopSignals | None = None
        #: The first signal to stop, if one came.
        self._stop_signal: int | None = None
        # What tasks see of each server, by its name. Written by the threads that run tasks, by single operations.
        self._places: dict[str, GearmanConnection] = {}

    # ---- the loop --------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Work until the worker is told to stop, by a signal too if this is the main thread.

        Returns:
            Whether all jobs were finished.

        Raises:
            InvalidWorkerState: the worker is running.
        """
        if threading.current_thread() is not threading.main_thread():
            return self.work(None)
        with StopSignals(self._stop_by_signal, self._end_by_signal) as self._signals:
            return self.work(None)

    def work(self, poll_timeout: float | None) -> bool:
        """Work until the worker is told to stop, or a hook says so; return whether all jobs were finished.

        Raises:
            InvalidWorkerState: the worker is running.
        """
        worker, runs = self._worker, self._runs
        engine = runs.begin(self._new_engine)
        pid = os.getpid()
        try:
            engine.start()
            if self._signals is not None and self._signals.descriptor >= 0:
                engine.attend(self._signals.descriptor, self._signals)
            if not runs.abilities:
                log.warning("the worker has no tasks: register some")
            if runs.stop_asked:
                engine.begin_stop(runs.stop_limit(worker.shutdown_timeout))
            if worker.concurrency == 1:
                engine.enter()
                try:
                    self._loop(engine, engine.next_job, poll_timeout)
                finally:
                    engine.leave()
            else:
                self._loop_in_threads(engine, poll_timeout)
        finally:
            stats = runs.last_stats
            if os.getpid() == pid:
                engine.end(END_TIMEOUT)
                stats = stats_of(engine, worker.ready.is_set())
            runs.end(stats)
        if os.getpid() != pid:
            raise ForkedProcess(
                "a task has forked, and this is the child: the job is the parent's; leave with os._exit()"
            )
        if self._failure is not None:
            raise self._failure
        return not engine.given_up

    def _new_engine(self) -> WorkerEngine:
        worker, runs = self._worker, self._runs
        return WorkerEngine(
            runs.addresses,
            worker.options,
            capacity=worker.concurrency + worker.prefetch,
            poll_interval=worker.poll_interval,
            client_id=runs.client_id,
            abilities=runs.abilities,
            max_jobs=worker.max_jobs,
            ready=worker.ready,
            on_give_up=self._gave_up,
        )

    def _loop(
        self,
        engine: WorkerEngine,
        next_job: Callable[[float | None], Assignment | None],
        poll_timeout: float | None,
    ) -> None:
        """Run jobs on this thread until the engine ends."""
        while True:
            try:
                assignment = next_job(poll_timeout)
            except queue.Empty:
                go_on = engine.draining or self._worker.after_poll(False)
            else:
                if assignment is None:
                    return
                go_on = self._do(engine, assignment)
            if not go_on:
                engine.begin_drain()

    def _loop_in_threads(self, engine: WorkerEngine, poll_timeout: float | None) -> None:
        """Run jobs on threads until the engine ends."""
        names = [f"{engine.io.name}-task-{number + 1}" for number in range(self._worker.concurrency)]
        threads = [threading.Thread(target=self._thread, args=(engine,), name=name, daemon=True) for name in names]
        for thread in threads:
            thread.start()
        while not self._wait_stopped(engine, poll_timeout):
            if not engine.draining and not self._worker.after_poll(False):
                engine.begin_drain()
        if not engine.given_up:
            for thread in threads:
                thread.join()

    def _wait_stopped(self, engine: WorkerEngine, timeout: float | None) -> bool:
        """Wait until the engine has ended, for ``timeout`` seconds at the most; return whether it has."""
        deadline = None if timeout is None else engine.io.clock() + timeout
        while True:
            remaining = _SIGNAL_LOOK if deadline is None else deadline - engine.io.clock()
            if engine.io.wait_stopped(min(remaining, _SIGNAL_LOOK)):
                return True
            if remaining <= 0:
                return False

    def _thread(self, engine: WorkerEngine) -> None:
        self._runs.runs_tasks_here(True)
        try:
            self._loop(engine, engine.wait_for_job, None)
        except BaseException as error:
            # A hook failed, or a task raised SystemExit: the others finish, and who called `work` is told.
            self._failure = error
            engine.begin_stop(self._runs.stop_limit(self._worker.shutdown_timeout))

    # ---- one job ---------------------------------------------------------------------------------------------------

    def _do(self, engine: WorkerEngine, assignment: Assignment) -> bool:
        """Run one job; return whether to go on."""
        held = engine.held
        if assignment.lost or assignment.connection.closed:
            # The job had not begun when its connection was lost: the server gives it to another worker.
            held.drop(assignment)
            held.release(assignment, None)
            return True
        assignment.started = engine.io.clock()
        if assignment.ability.timeout is not None:
            held.watch(assignment)
        if TaskStarted in engine.announcer.wanted:
            self._tell_started(engine, assignment)
        try:
            self.execute(assignment)
        except BaseException:
            # SystemExit, KeyboardInterrupt and their like end the worker; the job goes to another one.
            held.drop(assignment)
            engine.begin_stop(self._runs.stop_limit(self._worker.shutdown_timeout))
            held.release(assignment, None)
            raise
        if TaskFinished in engine.announcer.wanted:
            self._tell_finished(engine, assignment)
        if self._runs.bundles:
            held.release(assignment, assignment.final)
            return True
        go_on = bool(self._worker.after_job())
        go_on = bool(self._worker.after_poll(True)) and go_on
        if not go_on:
            engine.begin_drain()
        held.release(assignment, None)
        return go_on

    def execute(self, assignment: Assignment) -> None:
        """Run a job's task through the hooks. A hook that fails fails the job, not the worker.

        What the task raises beyond Exception goes through.
        """
        try:
            job = self._job(assignment)
            self._worker.on_job_execute(job)
        except Exception as error:
            log.exception("a hook of the worker failed while it ran task %r", assignment.ability.name)
            self._runs.returned(assignment, "failed", Command.WORK_EXCEPTION, text_of(error))
        else:
            engine = self._runs.engine
            if engine is not None and assignment in engine.held.unfinished:
                # A hook that sends nothing would leave the client waiting for ever.
                log.error("the hooks of the worker did not end the job of task %r; it fails", assignment.ability.name)
                self._runs.returned(assignment, "failed", Command.WORK_FAIL)

    def _job(self, assignment: Assignment) -> GearmanJob:
        """Return the object for a task. One whose payload cannot be decoded ends here, through the hook for that."""
        worker = self._worker
        server = assignment.connection.server
        place = self._places.get(server.name)
        if place is None or place.address is not server.address:
            place = self._places[server.name] = GearmanConnection.of(worker, server.address)
        data: Any = assignment.data
        try:
            if worker.data_encoder is not BytesEncoder:
                data = worker.data_encoder.decode(data)
        except Exception as error:
            assignment.broken = error
        handle = assignment.handle.decode("utf-8", "surrogateescape")
        unique = assignment.unique.decode("utf-8", "surrogateescape")
        job = worker.create_job(place, handle, assignment.ability.name, unique, data)
        give(job, worker, assignment)
        return job

    def _tell_started(self, engine: WorkerEngine, assignment: Assignment) -> None:
        engine.announcer.tell(TaskStarted(assignment.server, *_names(assignment)))

    def _tell_finished(self, engine: WorkerEngine, assignment: Assignment) -> None:
        duration = engine.io.clock() - assignment.started
        outcome = assignment.outcome
        engine.announcer.tell(TaskFinished(assignment.server, *_names(assignment), outcome, duration))

    # ---- signals, and a task that keeps the process from its end ---------------------------------------------------

    def _gave_up(self) -> None:
        """The time to stop is over, and jobs are left. Runs on the I/O thread."""
        number = self._stop_signal
        if number is not None and self._worker.concurrency == 1:
            self._end_by_signal(number)

    def _stop_by_signal(self, number: int) -> None:
        self._stop_signal = number
        self._worker.stop()

    def _end_by_signal(self, number: int) -> None:
        """End the process unless `run` returns: its task has the main thread, which nothing can take away from it."""
        threading.Thread(target=self._end_process, args=(128 + number,), name="gearman_pool-worker-end").start()

    def _end_process(self, status: int) -> None:
        ended = self._runs.under_way()
        if ended is not None and not ended.wait(_LAST_WORDS):
            os._exit(status)


def call_task(worker: Hooks, job: GearmanJob) -> Any:
    """Call a job's task, send what it yields if it does, and return its result."""
    assignment = assignment_of(job)
    if assignment.broken is not None:
        raise assignment.broken
    ability = assignment.ability
    result = ability.function(worker, job) if ability.takes_worker else ability.function(job)
    if inspect.isgenerator(result):
        while True:
            if assignment.lost or assignment.overdue:
                result.close()
                return None
            try:
                part = next(result)
            except StopIteration as end:
                return end.value
            worker.send_job_data(job, part)
    return result


def text_of(error: BaseException) -> bytes:
    """Return what a client is told of an exception: its class and its text."""
    return f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")[:_MAX_EXCEPTION]


def _names(assignment: Assignment) -> tuple[str, str, str]:
    """Return a job's task, unique and handle as users see them."""
    unique = assignment.unique.decode("utf-8", "surrogateescape")
    return assignment.ability.name, unique, assignment.handle.decode("utf-8", "surrogateescape")
