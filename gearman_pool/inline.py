"""`EagerClient`: a client without servers, for unit tests: it runs each job in the caller's thread, before it returns.

It is `GearmanClient` with another engine, so that arguments are checked, payloads encoded, jobs moved through their
states and futures resolved by the same code; and the tasks are run by `GearmanWorker` with another engine, through the
same hooks.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .client import GearmanClient
from .constants import JOB_FAILED
from .engine.announcer import Announcer
from .engine.client.endings import Endings
from .engine.client.engine import ClientEngine
from .engine.worker.engine import Assignment, Slot
from .errors import ClientClosed, InvalidWorkerState, JobFailed, JobTimeout
from .events import Counters, ServerInfo
from .jobs.flight import Flight
from .jobs.future import JobFuture
from .protocol.client import DATA, STATUS, WARNING
from .protocol.commands import Command
from .protocol.packets import Packet, split_arguments
from .protocol.session import Entry
from .protocol.values import number
from .settings.addresses import ServerAddress, parse_server
from .threads.callbacks import CallbackThreads
from .transport.pool import Query, Server, ServerState
from .worker import GearmanWorker

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .settings.client_options import ClientOptionsDict

__all__ = ["EagerClient", "SubmittedJob"]

log: logging.Logger = logging.getLogger("gearman_pool.testing.eager")

_UPDATES = {Command.WORK_STATUS: STATUS, Command.WORK_DATA: DATA, Command.WORK_WARNING: WARNING}

#: Where jobs seem to be, unless servers are given.
_NOWHERE = "eager.invalid:4730"

_HEADER = 12


@dataclass(frozen=True)
class SubmittedJob:
    """A job that an `EagerClient` was given.

    Attributes:
        task, data, unique, priority, background: What it was submitted with; ``data`` as it was before encoding.
        at: When it was to run, in seconds since the epoch; None for at once.
        future: Its future, which is done.
    """

    task: str
    data: Any = field(repr=False)
    unique: str
    priority: str | None
    background: bool
    at: float | None
    future: JobFuture


class _Callbacks(CallbackThreads):
    """Runs callbacks where they are due, in the caller's thread: a test finds their effects when `submit` returns."""

    def submit(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:  # the user's code; it must not fail the submit() that it runs in
            log.exception("a callback failed")


class _Session:
    """What there is of a connection's session."""

    def forget(self, handle: str, token: object) -> None:
        """Nothing is kept."""

    def find(self, handle: str) -> None:
        """Nothing is in flight."""


class _Connection:
    """What there is of a connection: jobs need to say where they are."""

    closed = False

    def __init__(self, server: Server) -> None:
        self.server = server
        self.session = _Session()


class _Pool:
    """What there is of a worker's pool: servers that seem to be up."""

    def __init__(self, addresses: Iterable[ServerAddress]) -> None:
        self.wanted: dict[str, Server] = {}
        for address in addresses:
            self.add(address)

    @property
    def available(self) -> list[Server]:
        return list(self.wanted.values())

    def add(self, address: ServerAddress) -> None:
        server = Server(address)
        if self.wanted.setdefault(str(address), server) is server:
            _bring_up(server)

    def submit(self, entry: Entry, server: Server, timeout: float) -> None:
        """Answer a question at once."""
        query: Any = entry[2]
        query.answered(_Connection(server), None)

    def infos(self) -> tuple[ServerInfo, ...]:
        return tuple(
            ServerInfo(
                address=server.name,
                state=server.state.value,
                connections=0,
                in_flight=0,
                latency=server.latency,
                last_error=None,
                retry_in=None,
            )
            for server in self.available
        )


class _WorkerEngine:
    """Takes what a task sends straight to the future of its job. Stands where `WorkerEngine` does in a worker.

    It is there while jobs of the worker are run: from the first that begins to the last that ends, whatever threads and
    clients these belong to. So a task finds its worker running.
    """

    def __init__(self, dispatcher: _Dispatcher, worker: GearmanWorker) -> None:
        self.io = dispatcher.io
        self.counters = Counters()
        self.pool = _Pool(worker._addresses)
        self.jobs: queue.SimpleQueue[Assignment] = queue.SimpleQueue()
        self.held: dict[Assignment, None] = {}
        self.stopping = self.draining = False
        #: How many jobs are being run. Guarded by the worker's lock.
        self.users = 0
        self._futures: dict[Assignment, tuple[_Dispatcher, JobFuture]] = {}
        # Guards ``_counts``; held for a few instructions. The worker's lock may be held.
        self._count_lock = threading.Lock()
        self._counts = dict.fromkeys(("done", "failed", "timed_out", "results_lost", "refused"), 0)

    # ---- a job -----------------------------------------------------------------------------------------------------

    def begin(self, assignment: Assignment, dispatcher: _Dispatcher, future: JobFuture) -> None:
        self.held[assignment] = None
        self._futures[assignment] = dispatcher, future

    def forget(self, assignment: Assignment) -> None:
        self.held.pop(assignment, None)
        del self._futures[assignment]

    def send(self, assignment: Assignment, command: Command, *arguments: bytes) -> bool:
        if assignment not in self.held:
            return False
        dispatcher, future = self._futures[assignment]
        dispatcher.update(assignment, future, command, arguments)
        return True

    def finish(self, assignment: Assignment, outcome: str, command: Command, *arguments: bytes) -> Entry | None:
        if self.held.pop(assignment, self) is not self:
            timeout = assignment.ability.timeout
            if timeout is not None and self.io.clock() - assignment.started > timeout:
                text = f"task {assignment.ability.name!r} took longer than its timeout of {timeout:g} s"
                outcome, command, arguments = "timed_out", Command.WORK_EXCEPTION, (text.encode(),)
            with self._count_lock:
                self._counts[outcome] += 1
            dispatcher, future = self._futures[assignment]
            dispatcher.end_job(future, command, arguments)
        return None

    def fence(self, query: Query, connections: list[Any]) -> None:
        for connection in connections:
            query.answered(connection, None)

    # ---- what else a task may ask of its worker ----------------------------------------------------------------------

    def begin_stop(self, timeout: float) -> None:
        """Only the jobs that are being run are told: the next one finds a worker that was started again."""
        self.stopping = self.draining = True

    end = begin_stop

    def after_fork_in_child(self) -> None:
        """The jobs are the parent's."""
        self.held.clear()

    def snapshot(self) -> dict[str, int]:
        with self._count_lock:
            return self._counts.copy()

    def register(self, *_: object) -> None:
        """The worker's own table is looked at for each job."""

    unregister = set_client_id = register


class _Dispatcher(ClientEngine):
    """Runs jobs in place of sending them. No thread, no socket: what is the I/O thread's elsewhere is the caller's."""

    worker: GearmanWorker

    def begin(self, worker: GearmanWorker) -> None:
        """Take the worker whose tasks are run."""
        self.worker = worker
        self.callbacks = _Callbacks(self.io.name, self.io.post_later)
        self.announcer = Announcer(self.callbacks, self.options.listeners, log)
        self._endings = Endings(self)
        self._endings.notices = self.callbacks
        self._finish = self._endings.finish
        # Nobody is to be asked after silent jobs.
        self._lost_jobs.sweeping = True
        self.submitted: list[SubmittedJob] = []
        self._limits: dict[Flight, float] = {}
        self._numbers = itertools.count(1)
        self._engine = _WorkerEngine(self, worker)
        for server in self.pool.servers:
            _bring_up(server)

    def start(self) -> None:
        if self.refusing is not None:
            raise ClientClosed(self.refusing)

    def submit(self, flight: Flight, arguments: tuple[bytes, ...], timeout: float | None) -> None:
        assert isinstance(flight, JobFuture)
        future = flight
        self.start()
        task, unique = arguments[:2]
        payload = arguments[-1]
        ability = self.worker._abilities.get(task)
        if ability is None:
            known = ", ".join(sorted(self.worker.worker_abilities)) or "none"
            name = task.decode("utf-8", "replace")
            raise LookupError(f"no task {name!r} is registered with this EagerClient; there are: {known}")
        started = self.io.clock()
        future.depart(self, started)
        request = future.request
        connection: Any = _Connection(self.pool.servers[next(self._numbers) % len(self.pool.servers)])
        handle = f"H:eager:{next(self._numbers)}"
        if timeout is not None and not request.background:
            self._limits[future] = timeout
        self._accepted(connection, future, handle)
        assignment = Assignment(connection, Slot(), ability, (handle.encode(), task, unique, payload))
        assignment.started = started
        try:
            with _working(self.worker, self._engine) as engine:
                engine.begin(assignment, self, future)
                try:
                    self.worker._execute(assignment)
                finally:
                    engine.forget(assignment)
        finally:
            if not future.done():
                # SystemExit and its like have left the task; the exception goes on to the caller.
                self._endings.fail(future, JobFailed("the task left without a result"))
            self._limits.pop(future, None)
        job = request.gearman_job
        at = float(arguments[2]) if len(arguments) > 3 else None
        name = job.task if isinstance(job.task, str) else bytes(job.task).decode("utf-8", "surrogateescape")
        submitted = SubmittedJob(name, job.data, str(job.unique), request.priority, request.background, at, future)
        self.submitted.append(submitted)

    def update(self, assignment: Assignment, future: JobFuture, command: Command, arguments: tuple[bytes, ...]) -> None:
        """A task has sent something."""
        if future.request.background:
            return
        kind = _UPDATES[command]
        value: Any = (number(arguments[0]), number(arguments[1])) if kind == STATUS else arguments[0]
        self._updated(assignment.connection, future, kind, value)

    def end_job(self, future: JobFuture, command: Command, arguments: tuple[bytes, ...]) -> None:
        """A job is done."""
        if future.request.background:
            return
        limit = self._limits.get(future)
        took = self.io.clock() - future.started
        if limit is not None and took > limit:
            text = f"task {future.job.task!r} took {took:.3f} s, longer than its timeout of {limit:g} s"
            self.counters.jobs_timed_out += 1
            self._finish(future, JOB_FAILED, None, JobTimeout(text, maybe_sent=True))
        elif command == Command.WORK_COMPLETE:
            self._completed(future, arguments[0])
        elif command == Command.WORK_EXCEPTION:
            self._worker_raised(future, arguments[0])
        else:
            self._failed(future)

    def ask(self, key: bytes | Server | None, packet: Packet, reply: int, query: Query, timeout: float) -> None:
        """Answer as a server does that has no jobs: each was done before anybody could ask."""
        self.start()
        assert isinstance(packet, bytes)
        connection: Any = _Connection(key if isinstance(key, Server) else self.pool.servers[0])
        nothing = [b"0", b"0", b"0", b"0"]
        if reply == Command.ECHO_RES:
            query.answered(connection, [packet[_HEADER:]])
        elif reply == Command.STATUS_RES:
            query.answered(connection, [*split_arguments(Command.GET_STATUS, packet[_HEADER:]), *nothing])
        else:
            query.answered(connection, [packet[_HEADER:], *nothing, b"0"])


@contextmanager
def _working(worker: GearmanWorker, engine: _WorkerEngine) -> Iterator[_WorkerEngine]:
    """For the length of a block a worker is running, with the engine that this gives: another job's, if there is one.

    Raises:
        InvalidWorkerState: it works for servers.
    """
    with worker._lock:
        if worker._running:
            found: Any = worker._engine
            if not isinstance(found, _WorkerEngine):
                raise InvalidWorkerState("the worker is running; give the EagerClient one that is not")
            engine = found
        else:
            engine.stopping = engine.draining = worker._stop_asked = False
            worker._running = True
            worker._ended = threading.Event()
            worker._engine = engine  # type: ignore[assignment]
            worker.ready.set()
        engine.users += 1
    works = getattr(worker._local, "works", False)
    worker._local.works = True
    try:
        yield engine
    finally:
        worker._local.works = works
        with worker._lock:
            engine.users -= 1
            if not engine.users:
                worker._engine = None
                worker._stop_asked = worker._running = False
                worker._stop_timeout = None
                worker.ready.clear()
                worker._last_stats = worker._stats(engine)  # type: ignore[arg-type]
                worker._ended.set()


def _bring_up(server: Server) -> None:
    server.move(ServerState.CONNECTING)
    server.move(ServerState.UP)
    server.latency = 0.0


class EagerClient(GearmanClient):
    """A `GearmanClient` without servers, for unit tests: each job runs in the caller's thread before `submit` returns.

    It checks arguments, encodes payloads and results, and gives futures as `GearmanClient` does; they are done at once.
    A task that is not registered is a LookupError. Callbacks run in the caller's thread. ``at=`` does not delay a job.
    No time limit interrupts one, but a job that took longer ends as it would have: with `JobTimeout` after the caller's
    ``timeout=``, with `JobException` after the task's. Threads may share it; each runs its own jobs.

    Args:
        host_list: Servers to seem to talk with; one that does not exist if None.
        worker: A worker whose tasks, hooks and encoder are used; it must not be running. One without tasks, and with
            this client's encoder and prefix, if None.
        options: Those of `GearmanClient`.

    Example::

        client = EagerClient()

        @client.task("reverse")
        def reverse(job):
            return job.data[::-1]

        assert client.submit("reverse", b"abc").result() == b"cba"
        client.assert_submitted("reverse", data=b"abc")
    """

    def __init__(
        self,
        host_list: str | bytes | Iterable[Any] | None = None,
        *,
        worker: GearmanWorker | None = None,
        **options: Unpack[ClientOptionsDict],
    ) -> None:
        super().__init__(_NOWHERE if host_list is None else host_list, **options)
        if worker is None:
            servers = [server.address for server in self._engine.pool.servers]
            worker = GearmanWorker(servers, data_encoder=self.data_encoder, prefix=self.options.prefix)
        #: The worker whose tasks are run.
        self.worker = worker
        dispatcher = self._engine
        assert isinstance(dispatcher, _Dispatcher)
        dispatcher.begin(worker)
        #: All jobs since the start or the last `clear`, oldest first.
        self.submitted: list[SubmittedJob] = dispatcher.submitted

    def _new_engine(self, addresses: tuple[ServerAddress, ...]) -> ClientEngine:
        found = self._connection
        return _Dispatcher(addresses, self.options, found, self.random_unique_bytes)

    # ---- tasks -----------------------------------------------------------------------------------------------------

    def task(self, task: Any, *, timeout: float | None = None) -> Any:
        """Register the decorated function, as `GearmanWorker.task` does."""
        return self.worker.task(task) if callable(task) else self.worker.task(task, timeout=timeout)

    def register_task(
        self, task: str | bytes, callback_function: Callable[..., Any], timeout: float | None = None
    ) -> str | bytes:
        """Run jobs of this task by calling a function, as `GearmanWorker.register_task` does."""
        return self.worker.register_task(task, callback_function, timeout)

    # ---- looking ---------------------------------------------------------------------------------------------------

    def assert_submitted(self, task: str, **expected: Any) -> SubmittedJob:
        """Return the last job of a task that has these attributes of `SubmittedJob`.

        Raises:
            AssertionError: there is none; the text lists what there is.

        Example::

            client.assert_submitted("mail", data=b"...", background=True)
        """
        __tracebackhide__ = True  # pytest shows the caller's line
        for job in reversed(self.submitted):
            if job.task == task and all(getattr(job, name) == value for name, value in expected.items()):
                return job
        found = "\n".join(f"  {job.task} data={job.data!r} background={job.background}" for job in self.submitted)
        wanted = ", ".join([repr(task), *(f"{name}={value!r}" for name, value in expected.items())])
        raise AssertionError(f"no job was submitted like {wanted}; there were:\n{found or '  none'}")

    def clear(self) -> None:
        """Forget what was submitted."""
        self.submitted.clear()

    # ---- servers ---------------------------------------------------------------------------------------------------

    def add_server(self, server: Any) -> None:
        """Seem to talk with one more server."""
        address = parse_server(server)
        pool = self._engine.pool
        if all(other.address != address for other in pool.servers):
            added = Server(address)
            _bring_up(added)
            pool.servers = (*pool.servers, added)
            pool.wanted[str(address)] = added

    def remove_server(self, server: Any, drain: bool = True) -> None:
        """Seem to talk with one server less.

        Raises:
            ValueError: there is no such server, or it is the last one.
        """
        address = parse_server(server)
        pool = self._engine.pool
        left = tuple(other for other in pool.servers if other.address != address)
        if not left or len(left) == len(pool.servers):
            raise ValueError(f"{address} cannot be removed: it is not one of the servers, or it is the last one")
        pool.servers = left
        del pool.wanted[str(address)]
