"""`Flight`: a job's way from the thread that submits it to its end, each move of it a method.

`WAY` tells which methods make the moves of `JOB_MOVES`, in what order, and on which threads. What comes of the job for
whoever waits is set after its `end`, by `Outcome.resolve`.

Threads: the one that submits calls the methods up to `depart`, and the I/O thread all others; but any may call `watch`,
`job` and `names`, whoever has set the outcome calls `settle` and `hand_over`, and in the child of a fork `lose`,
`break_off` and `settle` are called for copies. Any thread may read ``ended``, ``connection`` and the request. Nothing
here sends or runs users' code, but for what `update` returns, which is for a callback thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..constants import JOB_COMPLETE, JOB_CREATED, JOB_FAILED, JOB_PENDING, JOB_UNKNOWN
from ..protocol.client import DATA, STATUS, ClientSession
from ..protocol.commands import Command
from ..threads.callbacks import CallbackThreads, Mailbox
from ..threads.outcome import Audience, Outcome
from .job import JOB_MOVES, GearmanJob, GearmanJobRequest
from .views import JobUpdate, as_text

if TYPE_CHECKING:
    from ..transport.connection import Connection
    from ..transport.servers import Server
    from ..transport.timers import Timer

__all__ = ["WAY", "Dispatching", "Flight", "Step", "flight_of", "is_accepted", "to_bytes"]


class Step(NamedTuple):
    """A step of a job's way.

    Attributes:
        method: The method of the future that does it.
        thread: Who calls that.
        what: When it is called, and what comes of it.
        after: What it follows: methods, each with what hands the job over where another thread had it, else "".
        moves: The moves of `JOB_MOVES` that it makes, each from one state to another.
        always: Whether every job comes this way.
    """

    method: str
    thread: str
    what: str
    after: dict[str, str]
    moves: tuple[tuple[str, str], ...] = ()
    always: bool = True


_CALLER, _IO, _CALLBACK = "your thread", "I/O thread", "callback threads"

#: A job's way through the threads. The documentation draws this table.
WAY: tuple[Step, ...] = (
    Step(
        "depart",
        _CALLER,
        "the job was checked and encoded, and its packet goes into line",
        {"client.submit()": ""},
        ((JOB_UNKNOWN, JOB_PENDING),),
    ),
    Step(
        "accept",
        _IO,
        "the packet was sent, and JOB_CREATED has come with the server's handle",
        {"depart": "Connection.queue", "depart_again": ""},
        ((JOB_PENDING, JOB_CREATED),),
    ),
    Step(
        "depart_again",
        _IO,
        "the connection was lost and attempts are left: the packet waits for a server once more",
        {"accept": ""},
        ((JOB_PENDING, JOB_UNKNOWN), (JOB_CREATED, JOB_UNKNOWN), (JOB_UNKNOWN, JOB_PENDING)),
        always=False,
    ),
    Step(
        "update",
        _IO,
        "WORK_DATA, WORK_WARNING or WORK_STATUS has come: kept for updates(), or handed to on_data and its like",
        {"accept": ""},
        always=False,
    ),
    Step(
        "end",
        _IO,
        "the final packet has come, or the engine gives the job up: the reasons stand with the states of a job",
        {"update": ""},
        (
            (JOB_CREATED, JOB_COMPLETE),
            (JOB_CREATED, JOB_FAILED),
            (JOB_CREATED, JOB_UNKNOWN),
            (JOB_PENDING, JOB_FAILED),
            (JOB_PENDING, JOB_UNKNOWN),
        ),
    ),
    Step("resolve", _IO, "sets the result or the error, and releases the locks of those who wait", {"end": ""}),
    Step(
        "result",
        _CALLER,
        "decodes and returns the result, or raises the error, of a job of which the caller waits for the outcome",
        {"resolve": "a lock of its own"},
        always=False,
    ),
    Step(
        "tell_waiters",
        _CALLBACK,
        "tells concurrent.futures.wait(), as_completed() and asyncio's loops, on a thread that runs no code of yours",
        {"resolve": "CallbackThreads"},
        always=False,
    ),
    Step(
        "call_back",
        _CALLBACK,
        "runs done callbacks, after on_data and its like",
        {"resolve": "Mailbox"},
        always=False,
    ),
)


class Dispatching(Protocol):
    """What a future asks of its engine."""

    def cancel(self, flight: Any, /) -> bool:
        """Try to cancel the job; return whether that was done."""

    def before_waiting(self, flight: Any, /) -> None:
        """Raise if the caller is the I/O thread, which must not wait for itself; end a copy of the parent's job."""


class Flight(Outcome):
    """One job on its way, for the engine; `JobFuture` is what users have of it.

    Attributes:
        request: The `GearmanJobRequest`, which is kept up to date.
        engine: The engine that has it, from `depart` on. A fork leaves that behind.
        key: By what its server is chosen: the user's unique, or the server itself.
        recover: Whether an accepted job may be sent again, which python-gearman's layer never does.
        unique_given: Whether the unique is the user's.
        command: The command that submits it.
        connection: Where it was accepted, while it is there.
        heard: The number of the sweep in which something was heard of it last.
        ended: Whether the engine is done with it, though its outcome may still wait for a lock.
        started: When it was submitted, on the monotonic clock, where somebody wants to know.
    """

    # What a job rarely has stands on the class until it is there, and costs neither time nor memory then.
    __slots__ = (
        "_client",
        "_decodes",
        "_payload",
        "_task",
        "_timer",
        "_undecoded",
        "command",
        "connection",
        "ended",
        "engine",
        "heard",
        "key",
        "recover",
        "request",
        "unique_given",
    )

    started: float = 0.0
    _epoch: bytes | None = None
    _stream: deque[JobUpdate] | None = None
    _mailbox: Mailbox | None = None
    _on_update: dict[str, Callable[..., object]] | None = None

    def __init__(
        self,
        request: GearmanJobRequest,
        client: object,
        command: Command,
        task: bytes,
        payload: bytes,
        key: bytes | None,
        unique_given: bool,
        recover: bool,
        decode: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__()
        self.request: GearmanJobRequest = request
        # A client that nobody else refers to stays until its jobs are done.
        self._client: object = client
        self.engine: Dispatching | None = None
        self.command: Command = command
        self.key: bytes | Server | None = key
        self.unique_given: bool = unique_given
        self.recover: bool = recover
        self.connection: Connection[ClientSession] | None = None
        self.heard: int = 0
        self.ended: bool = False
        self._task = task
        self._payload: bytes | None = payload
        self._timer: Timer | None = None
        self._undecoded = False
        self._decodes = decode is not None
        if decode is not None:
            request._decode = decode
        request._future = self

    @property
    def job(self) -> GearmanJob:
        """The `GearmanJob`."""
        return self.request.gearman_job

    @property
    def names(self) -> tuple[str, str]:
        """Task and unique, as events and errors tell them."""
        job = self.request.gearman_job
        return as_text(job.task), as_text(job.unique)

    def watch(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is so: see `Outcome.watch`; raise where the caller must not wait."""
        if self.engine is not None:
            self.engine.before_waiting(self)
        return super().watch(condition, timeout)

    # ---- before it is submitted ------------------------------------------------------------------------------------

    def wait_until(self, epoch: bytes) -> None:
        """Have the server keep the job until then, in seconds since the epoch."""
        self._epoch = epoch
        self.command = Command.SUBMIT_JOB_EPOCH

    def call_on_update(self, callbacks: dict[str, Callable[..., object]]) -> None:
        """Have updates of these kinds go to these functions, and nowhere else."""
        self._on_update = callbacks

    def send_to(self, server: Server, command: Command) -> None:
        """Let the job wait for this server and no other."""
        self.key = server
        self.command = command

    def take_arguments(self) -> tuple[bytes, ...]:
        """Return what its packet holds, and let go of the payload if the job can be sent only once."""
        request = self.request
        key = self.key
        unique = key if type(key) is bytes else request.gearman_job.unique.encode("utf-8", "surrogateescape")
        payload = self._payload
        assert payload is not None
        if request.max_connection_attempts == 1:
            self._payload = None
        epoch = self._epoch
        return (self._task, unique, payload) if epoch is None else (self._task, unique, epoch, payload)

    def take_back(self) -> None:
        """Leave the request as it was, if the job was refused before it was in line: it can be submitted again."""
        if self.request.state == JOB_UNKNOWN:
            self.request._future = None

    # ---- the moves -------------------------------------------------------------------------------------------------

    def depart(self, engine: Dispatching, now: float = 0.0) -> None:
        """Note that it is submitted, and when, if somebody wants to know."""
        self.engine = engine
        if now:
            self.started = now
        request = self.request
        # `GearmanJobRequest._move` without its call, here and in the next moves of every job: the three calls are 1.5 %
        # of what a job costs. The method raises where the table has no such move.
        if JOB_PENDING not in JOB_MOVES[request.state]:
            request._move(JOB_PENDING)
        request.state = JOB_PENDING
        request.connection_attempts += 1

    def accept(self, connection: Connection[ClientSession], place: Any, handle: str, sweep: int) -> None:
        """Note that the server has it, under this handle; ``place`` is what users see of that server."""
        request = self.request
        job = request.gearman_job
        # In this order: whoever sees the handle, on another thread, sees the connection that it belongs to.
        job.connection = place
        job.handle = handle
        if JOB_CREATED not in JOB_MOVES[request.state]:
            request._move(JOB_CREATED)
        request.state = JOB_CREATED
        self.connection = connection
        self.heard = sweep
        if self._watchers:
            self.tell_watchers()

    def depart_again(self, unique: str | None) -> tuple[bytes, ...]:
        """Note that it is sent once more, under a new unique if one is given; return what its packet holds."""
        request = self.request
        job = request.gearman_job
        if unique is not None:
            job.unique = unique
        request._move(JOB_UNKNOWN)
        request._move(JOB_PENDING)
        request.connection_attempts += 1
        job.handle = None
        self.connection = None
        return self.take_arguments()

    def unsend(self) -> bool:
        """Take the last attempt back: it never left. Return whether no other one did."""
        request = self.request
        request.connection_attempts = max(0, request.connection_attempts - 1)
        return request.connection_attempts == 0

    def end(self, state: str, result: Any = None) -> None:
        """Note that the engine is done with it, and hold nothing any more. Its outcome is set after this.

        The result of a complete job is kept as it came; whoever asks for it decodes it.
        """
        self.ended = True
        request = self.request
        if state == JOB_COMPLETE:
            request.result_data = result
            self._undecoded = self._decodes
        if request.state != state:
            if state not in JOB_MOVES[request.state]:
                request._move(state)
            request.state = state
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._payload = None
        self.connection = None
        # Before the outcome is set: whoever waited for that may submit the request again at once.
        request._future = None

    def break_off(self) -> None:
        """Note that the engine is done with it, in whatever state: something went wrong that nobody thought of."""
        self.ended = True
        self.request._future = None

    def lose(self) -> None:
        """Note that it was lost with its connection."""
        self.request.connection_failed = True

    def settle(self) -> Audience | None:
        """Refer to the client no more, for there is an outcome; return, once, who is to be told of it."""
        self._client = None
        audience, self._audience = self._audience, None
        return audience

    # ---- what comes for it -----------------------------------------------------------------------------------------

    def limit(self, timer: Timer) -> None:
        """Have its time limit cancelled at its end."""
        self._timer = timer

    def take_exception(self, data: bytes) -> None:
        """Keep what the worker said of its exception."""
        self.request.exception_data = data

    def hear(self, sweep: int) -> None:
        """Note that something was heard of it."""
        self.heard = sweep

    def update(self, kind: int, value: Any, sweep: int) -> tuple[JobUpdate, Callable[[], object] | None]:
        """Take an update in: numbers of a status, or a payload.

        Returns:
            What was taken, and what a callback thread is to do with it; None if it was kept.
        """
        self.heard = sweep
        request = self.request
        callbacks = self._on_update
        if kind == STATUS:
            numerator, denominator = value
            request._set_status(True, True, numerator, denominator)
            update = JobUpdate("status", None, numerator, denominator)
        else:
            update = JobUpdate("data" if kind == DATA else "warning", value)
        if callbacks is not None and update.kind in callbacks:
            arguments = value if kind == STATUS else (value,)
            return update, partial(self._call, callbacks[update.kind], kind != STATUS, arguments)
        if kind == DATA:
            if request._raw_data is None:
                request._raw_data = deque()
            request._raw_data.append(value)
            if request._observers is not None:
                request._observers.append(value)
        elif kind != STATUS:
            if request._raw_warnings is None:
                request._raw_warnings = deque()
            request._raw_warnings.append(value)
        if self.recover:
            if self._stream is None:
                self._stream = deque()
            self._stream.append(update)
        if self._watchers:
            self.tell_watchers()
        return update, None

    def _call(self, callback: Callable[..., object], decode: bool, arguments: Sequence[Any]) -> None:
        if decode:
            arguments = [self.request._decode(argument) for argument in arguments]
        callback(*arguments)

    def mailbox(self, threads: CallbackThreads) -> Mailbox:
        """Return where the calls for its updates are put, so that they and its done callbacks come in order."""
        if self._mailbox is None:
            self._mailbox = Mailbox(threads)
        return self._mailbox

    def hand_over(self, call: Callable[[], object], threads: CallbackThreads) -> None:
        """Have ``call`` made on one of the threads, after the calls for its updates."""
        if self._mailbox is not None:
            self._mailbox.put(call)
        else:
            threads.submit(call)

    def share_data(self, request: GearmanJobRequest) -> None:
        """Give another request of the same job what data has come for it since it, or one like it, asked last."""
        mine = self.request
        if mine is request:
            return
        seen = mine._observers
        if seen is None:
            mine._observers = deque()
        elif seen:
            request._raw_data = deque(seen)
            seen.clear()


def flight_of(request: GearmanJobRequest) -> Flight | None:
    """Return the job that a request is of, from the moment it is made ready until the job ends or is given up."""
    flight: Flight | None = request._future
    return flight


def is_accepted(request: GearmanJobRequest) -> bool:
    """Whether a server has the job that a request is of, and has not said that it ended. No background job counts."""
    flight = flight_of(request)
    return flight is not None and flight.connection is not None


def to_bytes(text: str | bytes) -> bytes:
    """Return a unique or a handle for the wire."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
