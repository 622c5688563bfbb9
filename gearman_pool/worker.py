"""`GearmanWorker`: takes jobs from all servers, and runs the tasks that are registered with it.

What is here is what users call and override: the options, the tasks, when it runs, and the hooks. The run itself is
`engine.worker`'s, and what python-gearman's users have besides that of `python_gearman.worker`.

Threads: all methods may be called from any thread.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .connection import GearmanConnection
from .connection_manager import GearmanConnectionManager
from .encoders import BytesEncoder
from .engine.worker.held_jobs import Ability
from .engine.worker.job import GearmanWorkerJob, assignment_of, encode_result, takes_worker
from .engine.worker.runs import Runs
from .engine.worker.task_runner import END_TIMEOUT, TaskRunner, call_task, text_of
from .errors import (
    ConnectionError,  # noqa: A004 - python-gearman's name
    GearmanError,
    InvalidWorkerState,
)
from .events import WorkerStats
from .job import GearmanJob
from .protocol.commands import Command
from .protocol.values import encode_client_id, encode_task
from .python_gearman.worker import ErrorListener, PythonGearmanWorker
from .settings.checks import check_count, check_duration
from .settings.client_options import ClientOptions
from .settings.sources import parse_servers
from .threads import lifecycle

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
        merged = replace(ClientOptions.merge(dsn_options, options), connections_per_server=1)
        if type(self).handle_error is not PythonGearmanWorker.handle_error:
            merged = replace(merged, listeners=(*merged.listeners, ErrorListener(self)))
        context = merged.ssl_context
        name = None if client_id is None else encode_client_id(client_id)
        # A result and the next question for a job leave in one write, unless a hook is to run between the two.
        bundles = all(getattr(type(self), hook) is getattr(GearmanWorker, hook) for hook in _HOOKS)
        runs = Runs(tuple(a if context is None else a.with_ssl(context) for a in addresses), name, bundles)
        super().__init__(merged, runs)
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
        lifecycle.register(self, GearmanWorker._after_fork_in_child, GearmanWorker._at_exit)

    def __repr__(self) -> str:
        engine = self._runs.engine
        state = "stopped" if engine is None else "stopping" if engine.draining else "running"
        servers = ", ".join(map(str, self._runs.addresses))
        return f"<{type(self).__name__} of {servers or 'no server'} {state}, {len(self._runs.abilities)} tasks>"

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
        self._runs.register(encoded, Ability(name, callback_function, takes_worker(callback_function), timeout))
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
        if not self._runs.unregister(encode_task(task, self.options.prefix)):
            raise InvalidWorkerState(f"task {task!r} is not registered")
        return task

    @property
    def worker_abilities(self) -> dict[str, Callable[..., Any]]:
        """The functions by their tasks' names."""
        return {ability.name: ability.function for ability in list(self._runs.abilities.values())}

    def set_client_id(self, client_id: str | bytes) -> str | bytes:
        """Set what the worker is called in the servers' lists, and return it.

        Raises:
            ValueError, TypeError: it has more than 127 bytes, or control characters, or is no text.

        Example::

            worker.set_client_id(f"resizer-{os.getpid()}")
        """
        self._runs.set_client_id(encode_client_id(client_id))
        return client_id

    @property
    def worker_client_id(self) -> str | None:
        """What the worker is called in the servers' lists."""
        name = self._runs.client_id
        return None if name is None else name.decode("utf-8", "surrogateescape")

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
        return TaskRunner(self, self._runs).run()

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
        TaskRunner(self, self._runs).work(poll_timeout)

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
        self._runs.stop(self.shutdown_timeout if timeout is None else timeout)

    def close(self, timeout: float | None = None) -> None:
        """Stop as `stop` does, and wait until `run` or `work` has returned; at once if it does not run.

        Args:
            timeout: How long the jobs that are held may take, in seconds; ``shutdown_timeout`` if None.

        Example::

            worker.close(timeout=10)
        """
        limit = self.shutdown_timeout if timeout is None else timeout
        ended = self._runs.under_way()
        if ended is not None:
            self.stop(limit)
            if not self._runs.works_here:
                ended.wait(limit + END_TIMEOUT)

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
        return self._runs.stopping

    def stats(self) -> WorkerStats:
        """Return a snapshot of counters and gauges; of the last run if it does not run.

        Example::

            print(worker.stats().jobs_done, "done,", worker.stats().jobs_failed, "failed")
        """
        return self._runs.stats(self.ready.is_set())

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
            result = call_task(self, current_job)
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
        assignment = assignment_of(current_job)
        log.error(
            "task %r failed (job %s of %s)", current_job.task, current_job.handle, assignment.server, exc_info=exc_info
        )
        self._runs.returned(assignment, "failed", Command.WORK_EXCEPTION, text_of(exc_info[1]))
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
        self._runs.returned(assignment_of(current_job), "done", Command.WORK_COMPLETE, payload)
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

    # ---- fork and exit ---------------------------------------------------------------------------------------------

    def _after_fork_in_child(self) -> None:
        """In the child of a fork: leave the parent's connections and jobs behind."""
        self._runs.after_fork_in_child()
        self.ready = threading.Event()

    def _at_exit(self) -> None:
        """At the interpreter's end: leave; what is held goes to other workers."""
        engine = self._runs.engine
        if engine is not None:
            engine.end(END_TIMEOUT)


_HOOKS = ("on_job_execute", "on_job_exception", "on_job_complete", "after_job", "after_poll")
