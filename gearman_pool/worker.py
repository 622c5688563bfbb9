"""`GearmanWorker`: takes jobs from all servers, and runs the tasks that are registered with it."""

from __future__ import annotations

import inspect
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .connection import GearmanConnection
from .connection_manager import GearmanConnectionManager
from .encoders import BytesEncoder
from .engine.worker.engine import Ability, Assignment, WorkerEngine
from .engine.worker.stop_signals import StopSignals
from .errors import (
    ConnectionError,  # noqa: A004 - python-gearman's name
    ForkedProcess,
    GearmanError,
    InvalidWorkerState,
)
from .events import TaskFinished, TaskStarted, WorkerStats
from .job import GearmanJob
from .protocol.commands import Command
from .protocol.values import encode_client_id, encode_task
from .python_gearman_worker import ErrorListener, PythonGearmanWorker
from .settings.checks import check_count, check_duration
from .settings.client_options import ClientOptions
from .settings.sources import parse_servers
from .threads import lifecycle
from .threads.waiting import Promise
from .transport.connection import Connection
from .transport.pool import Query
from .worker_job import GearmanWorkerJob, encode_result, takes_worker, whole_number

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from .settings.client_options import ClientOptionsDict

__all__ = [
    "POLL_TIMEOUT_IN_SECONDS",
    "ConnectionError",
    "GearmanConnectionManager",
    "GearmanWorker",
    "GearmanWorkerJob",
    "gearman_logger",
]

log: logging.Logger = logging.getLogger("gearman_pool.worker")

#: python-gearman's name for what a worker logs to; ``self.log`` is the same.
gearman_logger = log

#: How long `GearmanWorker.work` waits for a job before it calls ``after_poll``, unless told otherwise.
POLL_TIMEOUT_IN_SECONDS = 60.0

#: The longest text of an exception that is sent to the client, in bytes.
_MAX_EXCEPTION = 16 * 1024

#: How long the main thread waits at a stretch, in seconds. A signal that comes in the instant before the wait, or that
#: the system hands to another thread, does not end it; Python sees to the handler when it is over.
_SIGNAL_LOOK = 1.0

#: How long the end of the I/O thread is waited for, in seconds; it only closes sockets then.
_END_TIMEOUT = 2.0

#: How long a worker that has given up waits for its lines to be logged before it ends the process, in seconds.
_LAST_WORDS = 1.0

_Task = TypeVar("_Task", bound=Callable[..., Any])


class GearmanWorker(PythonGearmanWorker):
    """A worker for Gearman job servers.

    Creating one does no I/O. `run` or `work` connects to all servers, asks them for jobs in turn, and runs the tasks; a
    server that is down is tried again for ever, while the others go on. All methods may be called from any thread.

    A job whose worker, or whose server connection, is lost before the result was sent is given to another worker by the
    server (a background job and one whose client still waits): tasks should bear being run twice.

    Args:
        host_list: The servers, as for `GearmanClient`.
        concurrency: How many jobs are run at the same time. 1 runs them on the thread that called `run` or `work`; more
            run on as many threads.
        prefetch: How many more jobs are held ready. They start sooner, but no other worker can take them.
        poll_interval: How often sleeping servers are asked for jobs, in seconds: gearmand before 2.0 wakes no worker
            for a job that falls due.
        client_id: What the worker is called in the servers' lists; at most 127 bytes, without control characters.
        shutdown_timeout: How long the jobs that are held may take when the worker is told to stop, in seconds.
        max_jobs: Return after so many jobs; None for any number.
        options: See `ClientOptions`: those about connections, ``prefix``, ``data_encoder``, ``listeners``, ``name``.
            Each may also stand in the DSN.

    Raises:
        ValueError, TypeError: a server or an option is not usable; the text says which and why.

    Example::

        worker = GearmanWorker(["localhost:4730"], concurrency=8)

        @worker.task("reverse")
        def reverse(job):
            return job.data[::-1]

        worker.run()  # until SIGTERM or SIGINT: finishes its jobs, then returns
    """

    #: How payloads become objects and results become bytes, unless the option ``data_encoder`` says otherwise.
    data_encoder: Any = BytesEncoder
    job_class: type[GearmanJob] = GearmanWorkerJob

    def __init__(
        self,
        host_list: str | bytes | Iterable[Any] | None = None,
        *,
        concurrency: int = 1,
        prefetch: int = 0,
        poll_interval: float = 1.0,
        client_id: str | bytes | None = None,
        shutdown_timeout: float = 30.0,
        max_jobs: int | None = None,
        **options: Unpack[ClientOptionsDict],
    ) -> None:
        addresses, dsn_options = parse_servers(host_list)
        merged = ClientOptions.merge(dsn_options, options)
        self.options: ClientOptions = replace(merged, connections_per_server=1)
        self.log: logging.Logger = log
        self.concurrency: int = check_count("concurrency", concurrency, 1)
        self.prefetch: int = check_count("prefetch", prefetch, 0)
        self.poll_interval: float = check_duration("poll_interval", poll_interval)
        self.shutdown_timeout: float = check_duration("shutdown_timeout", shutdown_timeout)
        self.max_jobs: int | None = None if max_jobs is None else check_count("max_jobs", max_jobs, 1)
        #: Set while the tasks are known to a server that can be reached, by the thread that runs the loop.
        self.ready: threading.Event = threading.Event()
        if self.options.data_encoder is not None:
            self.data_encoder = self.options.data_encoder
        if type(self).handle_error is not PythonGearmanWorker.handle_error:
            self.options = replace(self.options, listeners=(*self.options.listeners, ErrorListener(self)))
        context = self.options.ssl_context
        self._addresses = tuple(a if context is None else a.with_ssl(context) for a in addresses)
        self._client_id = None if client_id is None else encode_client_id(client_id)
        self._abilities: dict[bytes, Ability] = {}
        self._engine: WorkerEngine | None = None
        self._last_stats: WorkerStats | None = None
        self._stop_asked = False
        self._stop_timeout: float | None = None
        self._give_up_signal: int | None = None
        self._signals: StopSignals | None = None
        # Guards the change from not running to running, ``_ended``, and ``_addresses`` until the engine has them; held
        # for a moment, with no other lock.
        self._lock = threading.Lock()
        self._running = False
        #: Set at the end of the run that is under way, or was the last: each run has one of its own, so that nobody who
        #: waits for the end of one takes the next for it. Replaced under ``_lock``.
        self._ended = threading.Event()
        self._ended.set()
        self._failure: BaseException | None = None
        self._local = threading.local()
        # A result and the next question for a job leave in one write, unless a hook is to run between the two.
        self._bundles = all(getattr(type(self), hook) is getattr(GearmanWorker, hook) for hook in _HOOKS)
        lifecycle.register(self, GearmanWorker._after_fork_in_child, GearmanWorker._at_exit)

    def __repr__(self) -> str:
        engine = self._engine
        state = "stopped" if engine is None else "stopping" if engine.draining else "running"
        servers = ", ".join(map(str, self._addresses))
        return f"<{type(self).__name__} of {servers or 'no server'} {state}, {len(self._abilities)} tasks>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- tasks -----------------------------------------------------------------------------------------------------

    @overload
    def task(self, task: _Task) -> _Task: ...

    @overload
    def task(self, task: str | bytes, *, timeout: float | None = None) -> Callable[[_Task], _Task]: ...

    def task(self, task: Any, *, timeout: float | None = None) -> Any:
        """Register the decorated function, under a name or under its own; see `register_task`.

        Example::

            @worker.task("resize", timeout=60)
            def resize(job): ...
        """
        if callable(task):
            self.register_task(task.__name__, task)
            return task

        def decorate(function: _Task) -> _Task:
            # python-gearman's method, which a subclass may have overridden, has no timeout.
            options = {} if timeout is None else {"timeout": timeout}
            self.register_task(task, function, **options)
            return function

        return decorate

    def register_task(
        self, task: str | bytes, callback_function: Callable[..., Any], timeout: float | None = None
    ) -> str | bytes:
        """Take jobs of this task, and run them by calling a function with (job) or (worker, job).

        What it returns is the result, encoded; None is an empty one. What a generator yields is sent as data as it
        comes, and what it returns is the result. What it raises reaches the client as `JobException`.

        Args:
            task: The task's name. A function that was registered for it before is replaced.
            callback_function: The function, method or callable. With a concurrency above 1 it is called by several
                threads at once.
            timeout: How long the task may take, in seconds, from 1 on; after that its client gets an exception, and
                ``job.stopping`` becomes true. A server from version 2.0 on is told as well, and gives the job to
                another worker if this process cannot even say that.

        Returns:
            The task's name.

        Raises:
            ValueError, TypeError: the name, the function or the timeout is not usable.

        Example::

            worker.register_task("reverse", lambda job: job.data[::-1])
        """
        encoded = encode_task(task, self.options.prefix)
        if timeout is not None:
            check_duration("timeout", timeout)
            if timeout < 1:
                raise ValueError(f"timeout is {timeout!r}; servers take 1 second or more")
        name = task if isinstance(task, str) else bytes(task).decode("utf-8", "surrogateescape")
        ability = Ability(name, callback_function, takes_worker(callback_function), timeout)
        self._abilities[encoded] = ability
        engine = self._engine
        if engine is not None:
            engine.register(encoded, ability)
        return task

    def unregister_task(self, task: str | bytes) -> str | bytes:
        """Take no more jobs of this task. Jobs of it that run now are finished first.

        Returns:
            The task's name.

        Raises:
            InvalidWorkerState: it is not registered.

        Example::

            worker.unregister_task("reverse")
        """
        encoded = encode_task(task, self.options.prefix)
        if self._abilities.pop(encoded, None) is None:
            raise InvalidWorkerState(f"task {task!r} is not registered")
        engine = self._engine
        if engine is not None:
            engine.unregister(encoded)
        return task

    @property
    def worker_abilities(self) -> dict[str, Callable[..., Any]]:
        """The functions by their tasks' names."""
        return {ability.name: ability.function for ability in list(self._abilities.values())}

    def set_client_id(self, client_id: str | bytes) -> str | bytes:
        """Set what the worker is called in the servers' lists, and return it.

        Raises:
            ValueError, TypeError: it has more than 127 bytes, or control characters, or is no text.

        Example::

            worker.set_client_id(f"resizer-{os.getpid()}")
        """
        self._client_id = encode_client_id(client_id)
        engine = self._engine
        if engine is not None:
            engine.set_client_id(self._client_id)
        return client_id

    @property
    def worker_client_id(self) -> str | None:
        """What the worker is called in the servers' lists."""
        return None if self._client_id is None else self._client_id.decode("utf-8", "surrogateescape")

    # ---- running ---------------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Work until the process gets SIGTERM or SIGINT, or `stop` is called; finish the jobs that are held; return.

        A second signal ends the process at once. So does the end of ``shutdown_timeout`` when a task is still running
        on this thread then (exit status 128 and the signal's number): its job goes to another worker. In any thread but
        the main one signals are left alone.

        Returns:
            Whether all jobs were finished.

        Raises:
            InvalidWorkerState: it is running.

        Example::

            worker = GearmanWorker(["localhost:4730"])
            worker.register_task("reverse", lambda job: job.data[::-1])
            worker.run()
        """
        if threading.current_thread() is not threading.main_thread():
            return self._work(None)
        try:
            with StopSignals(self._stop_by_signal, self._end_by_signal) as self._signals:
                return self._work(None)
        finally:
            self._give_up_signal = self._signals = None

    def work(self, poll_timeout: float | None = POLL_TIMEOUT_IN_SECONDS) -> None:
        """Work until `after_poll` or `after_job` returns something false, or `stop` is called; python-gearman's loop.

        Signals are left alone: KeyboardInterrupt, or whatever a handler raises, ends it at once.

        Args:
            poll_timeout: How long to wait for a job before ``after_poll(False)`` is called, in seconds; for ever if
                None.

        Raises:
            InvalidWorkerState: it is running.

        Example::

            class Worker(GearmanWorker):
                def after_poll(self, any_activity):
                    return any_activity  # work() returns when no job has come for a minute

            worker.work(poll_timeout=60)
        """
        if poll_timeout is not None:
            check_duration("poll_timeout", poll_timeout)
        self._work(poll_timeout)

    def stop(self, timeout: float | None = None) -> None:
        """Have `run` or `work` return when the jobs that are held are done. Does not wait; safe in a signal handler.

        If the worker is not running, the next `run` or `work` returns at once.

        Args:
            timeout: How long they may take, in seconds; ``shutdown_timeout`` if None. What is not done then goes to
                another worker. A second call can make it shorter, and not longer.

        Example::

            @worker.task("last")
            def last(job):
                worker.stop(timeout=10)
        """
        limit = self.shutdown_timeout if timeout is None else timeout
        self._stop_timeout = limit if self._stop_timeout is None else min(limit, self._stop_timeout)
        self._stop_asked = True
        engine = self._engine
        if engine is not None:
            engine.begin_stop(limit)

    def close(self, timeout: float | None = None) -> None:
        """Stop as `stop` does, and wait until `run` or `work` has returned; at once if it does not run.

        Args:
            timeout: How long the jobs that are held may take, in seconds; ``shutdown_timeout`` if None.

        Example::

            worker.close(timeout=10)
        """
        limit = self.shutdown_timeout if timeout is None else timeout
        with self._lock:
            running, ended = self._running, self._ended
        if running:
            self.stop(limit)
            if not getattr(self._local, "works", False):
                ended.wait(limit + _END_TIMEOUT)

    def shutdown(self) -> None:
        """python-gearman's name for `close`.

        Example::

            worker.shutdown()
        """
        self.close()

    @property
    def stopping(self) -> bool:
        """Whether the worker has been told to stop, so that its tasks should come to an end.

        After the last of ``max_jobs`` it takes no new jobs, but finishes those that it has in their own time.
        """
        engine = self._engine
        return self._stop_asked or (engine is not None and engine.stopping)

    def stats(self) -> WorkerStats:
        """Return a snapshot of counters and gauges; of the last run if it does not run.

        Example::

            print(worker.stats().jobs_done, "done,", worker.stats().jobs_failed, "failed")
        """
        engine = self._engine
        if engine is not None:
            return self._stats(engine)
        return self._last_stats or WorkerStats(0, 0, 0, 0, 0, 0, 0, False, 0, 0, 0, 0, ())

    def _stats(self, engine: WorkerEngine) -> WorkerStats:
        counts = engine.snapshot()
        return WorkerStats(
            jobs_done=counts["done"],
            jobs_failed=counts["failed"],
            jobs_timed_out=counts["timed_out"],
            results_lost=counts["results_lost"],
            refused=counts["refused"],
            held=len(engine.held),
            waiting=engine.jobs.qsize(),
            ready=self.ready.is_set(),
            connections_opened=engine.counters.connections_opened,
            connections_failed=engine.counters.connections_failed,
            connections_lost=engine.counters.connections_lost,
            wakeups=engine.io.wakeups,
            servers=engine.pool.infos(),
        )

    # ---- hooks -----------------------------------------------------------------------------------------------------

    def after_poll(self, any_activity: bool) -> bool:
        """Override it to do something after each job, and each time that none came within ``poll_timeout``.

        Runs on the thread that ran the job, or on the one that called `work`.

        Args:
            any_activity: Whether there was a job.

        Returns:
            Whether to go on.

        Example::

            def after_poll(self, any_activity):
                self.database.rollback()
                return True
        """
        return True

    def after_job(self) -> bool:
        """Override it to do something after each job, on the thread that ran it; return whether to go on.

        Example::

            def after_job(self):
                return memory_used() < 500_000_000  # else it stops
        """
        return True

    def on_job_execute(self, current_job: GearmanJob) -> bool:
        """Run a job's task, and hand on what comes of it; override it to wrap that. The return value is not used.

        Example::

            def on_job_execute(self, current_job):
                with tracer.span(current_job.task):
                    return super().on_job_execute(current_job)
        """
        try:
            result = self._call(current_job)
        except Exception:
            return self.on_job_exception(current_job, sys.exc_info())
        return self.on_job_complete(current_job, result)

    def on_job_exception(
        self, current_job: GearmanJob, exc_info: tuple[type[BaseException], BaseException, TracebackType] | Any
    ) -> bool:
        """Log what a task raised, and send its class and text to the client; override it to do something else.

        libgearman's clients wait for ever for a job that ends so, unless they asked for exceptions (its ``gearman``
        tool does not): gearmand 1.1 tells them in a way that they do not understand. For their sake call
        `send_job_failure` here.

        Example::

            def on_job_exception(self, current_job, exc_info):
                self.log.error("%s failed", current_job.task, exc_info=exc_info)
                self.send_job_failure(current_job)
                return False
        """
        assignment = self._assignment(current_job)
        log.error(
            "task %r failed (job %s of %s)", current_job.task, current_job.handle, assignment.server, exc_info=exc_info
        )
        error = exc_info[1]
        text = f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")[:_MAX_EXCEPTION]
        self._end(assignment, "failed", Command.WORK_EXCEPTION, text)
        return False

    def on_job_complete(self, current_job: GearmanJob, job_result: Any) -> bool:
        """Send what a task returned to the client; override it to do something else.

        Example::

            def on_job_complete(self, current_job, job_result):
                self.cache[current_job.unique] = job_result
                return super().on_job_complete(current_job, job_result)
        """
        try:
            payload = encode_result(self.data_encoder, job_result)
        except GearmanError:
            return self.on_job_exception(current_job, sys.exc_info())
        self._end(self._assignment(current_job), "done", Command.WORK_COMPLETE, payload)
        return True

    def create_job(
        self, command_handler: GearmanConnection, job_handle: str, task: str, unique: str, data: Any
    ) -> GearmanJob:
        """Make the object that a task is given; override it, or ``job_class``, to have another.

        Args:
            command_handler: The server that gave the job; python-gearman's name for it.
            job_handle, task, unique: What the server said of the job.
            data: The decoded payload.

        Example::

            def create_job(self, command_handler, job_handle, task, unique, data):
                job = super().create_job(command_handler, job_handle, task, unique, data)
                job.received = time.monotonic()
                return job
        """
        return self.job_class(command_handler, job_handle, task, unique, data)

    # ---- what a task may send --------------------------------------------------------------------------------------

    def send_job_status(
        self, current_job: GearmanJob, numerator: float, denominator: float, poll_timeout: float | None = None
    ) -> None:
        """Tell the client how far a task has come; see `GearmanWorkerJob.send_status`.

        This and the others below do nothing if the job has ended, or its server has gone.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Example::

            worker.send_job_status(job, 1, 3)
        """
        numbers = whole_number(numerator, "numerator"), whole_number(denominator, "denominator")
        self._send(current_job, poll_timeout, Command.WORK_STATUS, *numbers)

    def send_job_data(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """Send the client a part of the result; see `GearmanWorkerJob.send_data`.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            worker.send_job_data(job, b"half way")
        """
        self._send(current_job, poll_timeout, Command.WORK_DATA, encode_result(self.data_encoder, data))

    def send_job_warning(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """Send the client a warning; see `GearmanWorkerJob.send_warning`.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            worker.send_job_warning(job, b"the image is very large")
        """
        self._send(current_job, poll_timeout, Command.WORK_WARNING, encode_result(self.data_encoder, data))

    def send_job_complete(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """End a job with this result. What its task returns later is ignored.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            worker.send_job_complete(job, result)
        """
        self._finish(current_job, poll_timeout, "done", Command.WORK_COMPLETE, encode_result(self.data_encoder, data))

    def send_job_failure(self, current_job: GearmanJob, poll_timeout: float | None = None) -> None:
        """End a job as failed, without saying why. What its task returns later is ignored.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Example::

            worker.send_job_failure(job)
        """
        self._finish(current_job, poll_timeout, "failed", Command.WORK_FAIL)

    def send_job_exception(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """End a job with an exception. What its task returns later is ignored.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            worker.send_job_exception(job, b"out of space")
        """
        payload = encode_result(self.data_encoder, data)
        self._finish(current_job, poll_timeout, "failed", Command.WORK_EXCEPTION, payload)

    def wait_until_updates_sent(
        self, multiple_gearman_jobs: Iterable[GearmanJob], poll_timeout: float | None = None
    ) -> None:
        """Wait until the servers have all that was sent for these jobs, or their connections are lost.

        Args:
            poll_timeout: For how long, in seconds; for ever if None.

        Example::

            worker.wait_until_updates_sent([job], poll_timeout=5)
        """
        engine = self._engine
        connections = {self._assignment(job).connection for job in multiple_gearman_jobs}
        deadline = None if poll_timeout is None else monotonic() + poll_timeout
        fences = []
        for connection in connections:
            if engine is not None and not connection.closed:
                fence = _Fence()
                engine.fence(fence, [connection])
                fences.append(fence)
        for fence in fences:
            try:
                fence.promise.wait(None if deadline is None else max(0.0, deadline - monotonic()))
            except TimeoutError:
                return

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _work(self, poll_timeout: float | None) -> bool:
        with self._lock:
            if self._running:
                raise InvalidWorkerState("the worker is running; make another one to work on another thread")
            self._running = True
            ended = self._ended = threading.Event()
        pid = os.getpid()
        self._local.works = True
        self._failure = None
        with self._lock:  # or a server that is added now would be missed
            engine = self._engine = self._new_engine()
        try:
            engine.start()
            if self._signals is not None and self._signals.descriptor >= 0:
                engine.attend(self._signals.descriptor, self._signals)
            if not self._abilities:
                log.warning("the worker has no tasks: register some")
            if self._stop_asked:
                engine.begin_stop(self._stop_limit())
            if self.concurrency == 1:
                engine.enter()
                try:
                    self._loop(engine, engine.next_job, poll_timeout)
                finally:
                    engine.leave()
            else:
                self._loop_in_threads(engine, poll_timeout)
        finally:
            if os.getpid() == pid:
                engine.end(_END_TIMEOUT)
                self._last_stats = self._stats(engine)
            self._engine = None
            self._stop_asked = False
            self._stop_timeout = None
            self._local.works = False
            self._running = False
            ended.set()
        if os.getpid() != pid:
            raise ForkedProcess(
                "a task has forked, and this is the child: the job is the parent's; leave with os._exit()"
            )
        if self._failure is not None:
            raise self._failure
        return not engine.given_up

    def _new_engine(self) -> WorkerEngine:
        return WorkerEngine(
            self._addresses,
            self.options,
            capacity=self.concurrency + self.prefetch,
            poll_interval=self.poll_interval,
            client_id=self._client_id,
            abilities=self._abilities,
            max_jobs=self.max_jobs,
            ready=self.ready,
            on_give_up=self._gave_up,
        )

    def _stop_limit(self) -> float:
        return self.shutdown_timeout if self._stop_timeout is None else self._stop_timeout

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
                go_on = engine.draining or self.after_poll(False)
            else:
                if assignment is None:
                    return
                go_on = self._do(engine, assignment)
            if not go_on:
                engine.begin_drain()

    def _loop_in_threads(self, engine: WorkerEngine, poll_timeout: float | None) -> None:
        """Run jobs on threads until the engine ends."""
        names = [f"{engine.io.name}-task-{number + 1}" for number in range(self.concurrency)]
        threads = [threading.Thread(target=self._thread, args=(engine,), name=name, daemon=True) for name in names]
        for thread in threads:
            thread.start()
        while not self._wait_stopped(engine, poll_timeout):
            if not engine.draining and not self.after_poll(False):
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
        self._local.works = True
        try:
            self._loop(engine, engine.wait_for_job, None)
        except BaseException as error:
            # A hook failed, or a task raised SystemExit: the others finish, and who called `work` is told.
            self._failure = error
            engine.begin_stop(self._stop_limit())

    def _do(self, engine: WorkerEngine, assignment: Assignment) -> bool:
        """Run one job; return whether to go on."""
        if assignment.lost or assignment.connection.closed:
            # It had not begun when the connection was lost: the server gives it to another worker.
            engine.drop(assignment)
            engine.release(assignment, None)
            return True
        assignment.started = engine.io.clock()
        if assignment.ability.timeout is not None:
            engine.watch(assignment)
        if TaskStarted in engine.announcer.wanted:
            self._tell_started(engine, assignment)
        try:
            self._execute(assignment)
        except BaseException:
            # SystemExit, KeyboardInterrupt and their like end the worker; the job goes to another one.
            engine.drop(assignment)
            engine.begin_stop(self._stop_limit())
            engine.release(assignment, None)
            raise
        if TaskFinished in engine.announcer.wanted:
            self._tell_finished(engine, assignment)
        if self._bundles:
            engine.release(assignment, assignment.final)
            return True
        go_on = bool(self.after_job())
        go_on = bool(self.after_poll(True)) and go_on
        if not go_on:
            engine.begin_drain()
        engine.release(assignment, None)
        return go_on

    def _execute(self, assignment: Assignment) -> None:
        """Run a job's task through the hooks. A hook that fails fails the job, not the worker."""
        try:
            job = self._job(assignment)
            self.on_job_execute(job)
        except Exception as error:
            log.exception("a hook of the worker failed while it ran task %r", assignment.ability.name)
            text = f"{type(error).__name__}: {error}".encode("utf-8", "backslashreplace")[:_MAX_EXCEPTION]
            self._end(assignment, "failed", Command.WORK_EXCEPTION, text)
        else:
            if assignment in self._held():
                # A hook that sends nothing would leave the client waiting for ever.
                log.error("the hooks of the worker did not end the job of task %r; it fails", assignment.ability.name)
                self._end(assignment, "failed", Command.WORK_FAIL)

    def _job(self, assignment: Assignment) -> GearmanJob:
        """Return the object for a task. One whose payload cannot be decoded ends here, through the hook for that."""
        server = assignment.connection.server
        if server.public is None:
            server.public = GearmanConnection.of(self, server.address)
        arguments = (
            server.public,
            assignment.handle.decode("utf-8", "surrogateescape"),
            assignment.ability.name,
            assignment.unique.decode("utf-8", "surrogateescape"),
        )
        data: Any = assignment.data
        try:
            if self.data_encoder is not BytesEncoder:
                data = self.data_encoder.decode(data)
        except Exception as error:
            assignment.broken = error
        job = self.create_job(*arguments, data)
        try:
            job._assignment = assignment  # type: ignore[attr-defined]
            job._worker = self  # type: ignore[attr-defined]
        except AttributeError:
            raise TypeError("create_job must return a GearmanWorkerJob, or an object that takes attributes") from None
        return job

    def _call(self, job: GearmanJob) -> Any:
        """Call a job's task, and send what it yields if it does."""
        assignment = self._assignment(job)
        if assignment.broken is not None:
            raise assignment.broken
        ability = assignment.ability
        result = ability.function(self, job) if ability.takes_worker else ability.function(job)
        if inspect.isgenerator(result):
            while True:
                if assignment.lost or assignment.overdue:
                    result.close()
                    return None
                try:
                    part = next(result)
                except StopIteration as end:
                    return end.value
                self.send_job_data(job, part)
        return result

    def _assignment(self, job: GearmanJob) -> Assignment:
        assignment: Assignment | None = getattr(job, "_assignment", None)
        if assignment is None:
            raise InvalidWorkerState(f"{job!r} was not given to this worker")
        return assignment

    def _held(self) -> dict[Assignment, None]:
        engine = self._engine
        return {} if engine is None else engine.held

    def _send(self, job: GearmanJob, poll_timeout: float | None, command: Command, *arguments: bytes) -> None:
        assignment = self._assignment(job)
        engine = self._engine
        if engine is not None and engine.send(assignment, command, *arguments) and poll_timeout is not None:
            self.wait_until_updates_sent([job], poll_timeout)

    def _finish(
        self, job: GearmanJob, poll_timeout: float | None, outcome: str, command: Command, *arguments: bytes
    ) -> None:
        assignment = self._assignment(job)
        engine = self._engine
        entry = None if engine is None else engine.finish(assignment, outcome, command, *arguments)
        if engine is not None and entry is not None:
            engine.send_final(assignment, entry)
            if poll_timeout is not None:
                self.wait_until_updates_sent([job], poll_timeout)

    def _end(self, assignment: Assignment, outcome: str, command: Command, *arguments: bytes) -> None:
        """End a job whose task has returned."""
        engine = self._engine
        entry = None if engine is None else engine.finish(assignment, outcome, command, *arguments)
        if self._bundles:
            assignment.final = entry
        elif engine is not None and entry is not None:
            engine.send_final(assignment, entry)

    def _tell_started(self, engine: WorkerEngine, assignment: Assignment) -> None:
        engine.announcer.tell(TaskStarted(assignment.server, *_names(assignment)))

    def _tell_finished(self, engine: WorkerEngine, assignment: Assignment) -> None:
        duration = engine.io.clock() - assignment.started
        outcome = assignment.outcome
        engine.announcer.tell(TaskFinished(assignment.server, *_names(assignment), outcome, duration))

    def _gave_up(self) -> None:
        """The time to stop is over, and jobs are left. Runs on the I/O thread."""
        number = self._give_up_signal
        if number is not None and self.concurrency == 1:
            self._end_by_signal(number)

    def _stop_by_signal(self, number: int) -> None:
        self._give_up_signal = number
        self.stop()

    def _end_by_signal(self, number: int) -> None:
        """End the process unless `run` returns: its task has the main thread, which nothing can take away from it."""
        threading.Thread(target=self._end_process, args=(128 + number,), name="gearman_pool-worker-end").start()

    def _end_process(self, status: int) -> None:
        if not self._ended.wait(_LAST_WORDS):
            os._exit(status)

    # ---- fork and exit ---------------------------------------------------------------------------------------------

    def _after_fork_in_child(self) -> None:
        """In the child of a fork: leave the parent's connections and jobs behind."""
        if self._signals is not None:
            self._signals.after_fork_in_child()
        engine = self._engine
        if engine is not None:
            engine.after_fork_in_child()
        self._lock = threading.Lock()
        self.ready = threading.Event()

    def _at_exit(self) -> None:
        """At the interpreter's end: leave; what is held goes to other workers."""
        engine = self._engine
        if engine is not None:
            engine.end(_END_TIMEOUT)


_HOOKS = ("on_job_execute", "on_job_exception", "on_job_complete", "after_job", "after_poll")


class _Fence(Query):
    """Waits until a server has everything."""

    def __init__(self) -> None:
        self.promise = Promise()

    def answered(self, connection: Connection, value: Any) -> None:
        self.promise.set(None)

    def lost(self, error: GearmanError) -> None:
        self.promise.set(None)


def _names(assignment: Assignment) -> tuple[str, str, str]:
    unique = assignment.unique.decode("utf-8", "surrogateescape")
    return assignment.ability.name, unique, assignment.handle.decode("utf-8", "surrogateescape")
