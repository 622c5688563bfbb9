"""The engines of `EagerClient` and of its worker: they run a job where others send it.

They stand in the places of `ClientEngine` and `WorkerEngine`, and so know the insides of both: what is the I/O thread's
elsewhere is done here by the thread that submits, which runs the task. There is no other thread and no socket.

Threads: any may submit; each runs its own jobs. No lock is held while a task, a hook or a callback is called.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from ..constants import JOB_FAILED
from ..engine.announcer import Announcer
from ..engine.client.endings import Endings
from ..engine.client.engine import ClientEngine
from ..engine.worker.held_jobs import OUTCOMES, Ability, Assignment, Slot
from ..engine.worker.task_runner import TaskRunner
from ..errors import ClientClosed, JobFailed, JobTimeout
from ..events import Counters, ServerInfo
from ..jobs.flight import Flight
from ..jobs.future import JobFuture
from ..protocol.client import DATA, STATUS, WARNING
from ..protocol.commands import Command
from ..protocol.packets import Packet, split_arguments
from ..protocol.session import Entry
from ..protocol.values import number
from ..settings.addresses import ServerAddress
from ..threads.callbacks import CallbackThreads
from ..transport.handler import Query
from ..transport.io_thread import IOThread
from ..transport.servers import Server, ServerState
from ..worker import GearmanWorker

if TYPE_CHECKING:
    from ..engine.worker.engine import WorkerEngine

__all__ = ["EagerEngine"]

log: logging.Logger = logging.getLogger("gearman_pool.testing.eager")

_UPDATES = {Command.WORK_STATUS: STATUS, Command.WORK_DATA: DATA, Command.WORK_WARNING: WARNING}

_HEADER = 12

#: What is found in place of a job that somebody else has ended.
_NOT_HELD = object()


class CallbacksAtOnce(CallbackThreads):
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


class WorkerPool:
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


class EagerHeldJobs:
    """Takes what a task sends straight to the future of its job. Stands where `HeldJobs` does in a worker."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.unfinished: dict[Assignment, None] = {}
        self._futures: dict[Assignment, tuple[EagerEngine, JobFuture]] = {}
        # Guards the counts; held for a few instructions.
        self._count_lock = threading.Lock()
        self._counts = dict.fromkeys(OUTCOMES, 0)

    def begin(self, assignment: Assignment, client: EagerEngine, future: JobFuture) -> None:
        """Hold one job more."""
        self.unfinished[assignment] = None
        self._futures[assignment] = client, future

    def forget(self, assignment: Assignment) -> None:
        """Hold one job less."""
        self.unfinished.pop(assignment, None)
        del self._futures[assignment]

    def send(self, assignment: Assignment, command: Command, *arguments: bytes) -> bool:
        if assignment not in self.unfinished:
            return False
        client, future = self._futures[assignment]
        client.update(assignment, future, command, arguments)
        return True

    def finish(self, assignment: Assignment, outcome: str, command: Command, *arguments: bytes) -> Entry | None:
        """End a job. There is no packet left to send for it."""
        if self.unfinished.pop(assignment, _NOT_HELD) is not _NOT_HELD:
            timeout = assignment.ability.timeout
            if timeout is not None and self._clock() - assignment.started > timeout:
                text = f"task {assignment.ability.name!r} took longer than its timeout of {timeout:g} s"
                outcome, command, arguments = "timed_out", Command.WORK_EXCEPTION, (text.encode(),)
            with self._count_lock:
                self._counts[outcome] += 1
            client, future = self._futures[assignment]
            client.end_job(future, command, arguments)
        return None

    def wait_until_sent(self, assignments: Iterable[Assignment], timeout: float | None) -> None:
        """Everything is where it belongs at once."""

    def snapshot(self) -> dict[str, int]:
        with self._count_lock:
            return self._counts.copy()


class EagerWorkerEngine:
    """Stands where `WorkerEngine` does in a worker.

    It is there while jobs of the worker are run: from the first that begins to the last that ends, whatever threads and
    clients these belong to. So a task finds its worker running.
    """

    def __init__(self, client: EagerEngine, worker: GearmanWorker) -> None:
        self.io: IOThread = client.io
        self.counters: Counters = Counters()
        self.pool: WorkerPool = WorkerPool(worker._runs.addresses)
        self.jobs: queue.SimpleQueue[Assignment] = queue.SimpleQueue()
        self.held: EagerHeldJobs = EagerHeldJobs(self.io.clock)
        self.stopping: bool = False
        self.draining: bool = False

    def lend(self) -> WorkerEngine:
        """Give it to the worker, as one that was not told to stop; see `Runs.borrow`."""
        self.stopping = self.draining = False
        lent: Any = self
        return cast("WorkerEngine", lent)

    # ---- what a task may ask of its worker -------------------------------------------------------------------------

    def begin_stop(self, timeout: float) -> None:
        """Only the jobs that are being run are told: the next one finds a worker that was started again."""
        self.stopping = self.draining = True

    def end(self, timeout: float) -> None:
        """Nothing runs that could be waited for: only the jobs that are being run are told."""
        self.begin_stop(timeout)

    def after_fork_in_child(self) -> None:
        """The jobs are the parent's."""
        self.held.unfinished.clear()

    def register(self, task: bytes, ability: Ability) -> None:
        """The worker's own table is looked at for each job."""

    def unregister(self, task: bytes) -> None:
        """The worker's own table is looked at for each job."""

    def set_client_id(self, client_id: bytes) -> None:
        """No server is there to be told."""


class EagerEngine(ClientEngine):
    """Runs jobs in place of sending them. No thread, no socket: what is the I/O thread's elsewhere is the caller's."""

    worker: GearmanWorker

    def begin(self, worker: GearmanWorker, record: Callable[[JobFuture, float | None], object]) -> None:
        """Take over.

        Args:
            worker: Whose tasks are run.
            record: Called with each job's future, which is done, and when the job was to run; None for at once.
        """
        self.worker = worker
        self.callbacks: CallbackThreads = CallbacksAtOnce(self.io.name, self.io.post_later)
        self.announcer: Announcer = Announcer(self.callbacks, self.options.listeners, log)
        self._endings = Endings(self)
        self._endings.notices = self.callbacks
        self._finish = self._endings.finish
        # Nobody is to be asked after silent jobs.
        self._lost_jobs.sweeping = True
        self._record = record
        self._limits: dict[Flight, float] = {}
        self._numbers = itertools.count(1)
        self._engine = EagerWorkerEngine(self, worker)
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
        ability = self.worker._runs.abilities.get(task)
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
            with self.worker._runs.borrow(self._engine.lend, self.worker.ready) as engine:
                # Another client's, if that runs a job of this worker now.
                held: Any = engine.held
                held.begin(assignment, self, future)
                try:
                    TaskRunner(self.worker, self.worker._runs).execute(assignment)
                finally:
                    held.forget(assignment)
        finally:
            if not future.done():
                # SystemExit and its like have left the task; the exception goes on to the caller.
                self._endings.fail(future, JobFailed("the task left without a result"))
            self._limits.pop(future, None)
        self._record(future, float(arguments[2]) if len(arguments) > 3 else None)

    def seem_to_have(self, address: ServerAddress) -> None:
        """Seem to talk with one more server."""
        if all(other.address != address for other in self.pool.servers):
            added = Server(address)
            _bring_up(added)
            self.pool.servers = (*self.pool.servers, added)
            self.pool.wanted[str(address)] = added

    def seem_not_to_have(self, address: ServerAddress) -> None:
        """Seem to talk with one server less.

        Raises:
            ValueError: there is no such server, or it is the last one.
        """
        left = tuple(other for other in self.pool.servers if other.address != address)
        if not left or len(left) == len(self.pool.servers):
            raise ValueError(f"{address} cannot be removed: it is not one of the servers, or it is the last one")
        self.pool.servers = left
        del self.pool.wanted[str(address)]

    # ---- what a task does ------------------------------------------------------------------------------------------

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


def _bring_up(server: Server) -> None:
    server.move(ServerState.CONNECTING)
    server.move(ServerState.UP)
    server.latency = 0.0
