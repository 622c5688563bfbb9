"""The server's state machine: connections that submit jobs, and connections that do them. No I/O and no clock.

It does what gearmand does, and follows gearmand 2.0 where that differs from 1.1 (jobs of all functions by priority,
functions in turn, sleeping workers are woken for delayed jobs). Where gearmand has a bug it does the right thing:

* A job whose last client has left is forgotten, so a later one of the same unique is a new job. (gearmand keeps it, and
  drops the new one without a word: the zombie unique.)
* A background job outlives a foreground client that joined it and left, whichever came first.
* WORK_FAIL made of a WORK_EXCEPTION has no NUL behind the handle.
* Each request that has an answer gets one, also with a handle, a unique or a time that cannot be.
* A unique of 64 bytes is refused as longer ones are, not cut.
* ``create function`` takes lines that end with LF alone; ``drop function`` refuses while there are jobs.
* A cancelled job is dropped at once, and its clients are told once.

Not supported, and answered with ERROR INVALID_COMMAND as gearmand does: SUBMIT_JOB_SCHED and ALL_YOURS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ...errors import ProtocolError
from ..commands import COMMANDS, Command, Sender
from ..limits import MAX_CLIENT_ID_BYTES, MAX_COMMAND_LENGTH, MAX_SERVER_TASK_BYTES, MAX_UNIQUE_BYTES
from ..packets import (
    DEFAULT_MAX_PACKET_SIZE,
    REQ,
    RES,
    WRONG_MAGIC,
    Decoder,
    Packet,
    pack,
    packet_size,
    split_arguments,
)
from ..values import number
from .queues import Agenda, History, Job, JobState, JobTable, Priority
from .text import answer_text

__all__ = ["JobServer", "Peer"]

#: The least time limit of a task, in milliseconds.
_MIN_TIMEOUT = 1000

#: The greatest, likewise: gearmand's number has 64 bits.
_MAX_TIMEOUT = 2**63

_MAX_EPOCH = 2**63

#: How many bytes of payloads and results are remembered of jobs that have ended.
_MAX_HISTORY_BYTES = 16 * 1024 * 1024

#: Numbers that are commands, or were, and are answered; any other ends the connection.
_ANSWERED = frozenset(COMMANDS) | {5}
_FROM_PEERS = frozenset(c for c, spec in COMMANDS.items() if spec.senders & (Sender.CLIENT | Sender.WORKER)) - {
    Command.SUBMIT_JOB_SCHED,
    Command.ALL_YOURS,
}

_SUBMITS: dict[int, tuple[Priority, bool]] = {
    Command.SUBMIT_JOB: (Priority.NORMAL, False),
    Command.SUBMIT_JOB_BG: (Priority.NORMAL, True),
    Command.SUBMIT_JOB_HIGH: (Priority.HIGH, False),
    Command.SUBMIT_JOB_HIGH_BG: (Priority.HIGH, True),
    Command.SUBMIT_JOB_LOW: (Priority.LOW, False),
    Command.SUBMIT_JOB_LOW_BG: (Priority.LOW, True),
    Command.SUBMIT_JOB_EPOCH: (Priority.NORMAL, True),
    Command.SUBMIT_REDUCE_JOB: (Priority.NORMAL, False),
    Command.SUBMIT_REDUCE_JOB_BACKGROUND: (Priority.NORMAL, True),
}


def _response(command: Command, *arguments: bytes) -> Packet:
    return pack(command, *arguments, magic=RES)


_NO_JOB = _response(Command.NO_JOB)
_NOOP = _response(Command.NOOP)


class Peer:
    """A connection, as the server knows it.

    Attributes:
        out: What is to be sent, oldest first; whoever sends it takes it off.
        out_size: How many bytes that is.
        closing: Why the connection must be closed, once ``out`` is sent; None if it need not.
    """

    def __init__(self, number: int, host: str, max_packet_size: int) -> None:
        self.number = number
        self.host = host
        self.decoder: Decoder = Decoder(max_packet_size, REQ, _ANSWERED, MAX_COMMAND_LENGTH, RES)
        self.client_id = b"-"
        #: What it can do, with time limits in seconds; the task that was done last stands last.
        self.abilities: dict[bytes, float | None] = {}
        self.sleeping = False
        self.exceptions = False
        self.held: dict[bytes, Job[Peer]] = {}
        self.watched: Counter[Job[Peer]] = Counter()
        self.out: list[bytes | memoryview] = []
        self.out_size = 0
        self.closing: str | None = None

    def __repr__(self) -> str:
        return f"<Peer {self.number} {self.host}, {len(self.abilities)} abilities, {len(self.held)} jobs>"


class JobServer:
    """A job server: `receive` takes what peers send, and what they are to be sent gathers in `Peer.out`.

    One thread at a time may use it. ``now`` is always the time in seconds since the epoch, as SUBMIT_JOB_EPOCH has it.

    Attributes:
        touched: The peers that something was put out for, or that must be closed; whoever serves them clears it.
        history: The last jobs that have ended, as many as asked for.
    """

    def __init__(
        self,
        name: str = "server",
        version: str = "2.0.0",
        pid: int = 0,
        *,
        max_packet_size: int = DEFAULT_MAX_PACKET_SIZE,
        max_jobs: int = 1_000_000,
        max_out_bytes: int = 2 * DEFAULT_MAX_PACKET_SIZE,
        job_retries: int | None = None,
        history: int = 0,
    ) -> None:
        self.version = version
        self.pid = pid
        self.table: JobTable[Peer] = JobTable(name.encode("utf-8", "replace"), max_jobs)
        self.history: History[Peer] = History(history, _MAX_HISTORY_BYTES)
        self.peers: dict[int, Peer] = {}
        self.touched: set[Peer] = set()
        #: Names of packets to be swallowed in place of being sent, for tests of peers; see `drop_next`.
        self.drops: Counter[Command] = Counter()
        self._max_packet_size = max_packet_size
        self._max_out_bytes = max_out_bytes
        self._job_retries = job_retries
        #: Until when jobs that run must be done.
        self.limits: Agenda[Job[Peer]] = Agenda()
        self._now = 0.0

    # ---- connections and time --------------------------------------------------------------------------------------

    def connect(self, number: int, host: str) -> Peer:
        """A connection has been accepted; ``number`` is one that no other has, such as its descriptor."""
        peer = self.peers[number] = Peer(number, host, self._max_packet_size)
        return peer

    def disconnect(self, peer: Peer) -> None:
        """A connection has ended: its jobs go to other workers, and what it waited for is dropped unless others do."""
        del self.peers[peer.number]
        self.touched.discard(peer)
        for task in peer.abilities:
            self.table.function(task).workers.pop(peer, None)
        # First, so that a job it both waits for and holds is not given to anybody.
        for job in list(peer.watched):
            job.clients = [client for client in job.clients if client is not peer]
            if not job.wanted and job.state in (JobState.QUEUED, JobState.DELAYED):
                self._abandon(job)
        peer.watched.clear()
        for job in list(peer.held.values()):
            self._lose(job)

    def receive(self, peer: Peer, data: bytes, now: float) -> None:
        """Take bytes from a peer. What breaks the protocol makes it ``closing``; nothing is raised.

        What comes from one that is to be closed is not looked at, nor kept.
        """
        self._now = now
        if peer.closing is None:
            self._take(peer, data)

    def _take(self, peer: Peer, data: bytes) -> None:
        peer.decoder.feed(data)
        try:
            for command, body in peer.decoder.packets():
                if peer.closing is not None:
                    return
                if command == Command.TEXT:
                    self._text(peer, body)
                elif command in _FROM_PEERS:
                    _HANDLERS[command](self, peer, _arguments(command, body), command)
                elif command & WRONG_MAGIC:
                    self.refuse(peer, b"INVALID_MAGIC", b"Request magic expected")
                else:
                    self.refuse(peer, b"INVALID_COMMAND", b"Command not expected")
        except ProtocolError as error:
            self.end(peer, str(error))

    def tick(self, now: float) -> float | None:
        """Do what is due; return when something is next."""
        self._now = now
        for job in self.table.due(now):
            self._wake(job)
        for job in self.limits.due(now):
            self._lose(job)
        moments = [when for when in (self.table.delayed.next(), self.limits.next()) if when is not None]
        return min(moments, default=None)

    def send(self, peer: Peer, packet: Packet, command: Command | None = None) -> None:
        """Put a packet out for a peer."""
        if command is not None and self.drops and self.drops[command] > 0:
            self.drops[command] -= 1
            return
        if peer.closing is not None:
            return
        if isinstance(packet, bytes):
            peer.out.append(packet)
        else:
            peer.out.extend(packet)
        peer.out_size += packet_size(packet)
        self.touched.add(peer)
        if peer.out_size > self._max_out_bytes:
            peer.out.clear()
            self.end(peer, "it does not read what it is sent")

    def refuse(self, peer: Peer, code: bytes, text: bytes) -> None:
        """Answer with ERROR."""
        self.send(peer, _response(Command.ERROR, code, text), Command.ERROR)

    def end(self, peer: Peer, why: str) -> None:
        """Have a connection closed."""
        peer.closing = peer.closing or why
        self.touched.add(peer)

    def _text(self, peer: Peer, line: bytes) -> None:
        answer = answer_text(self, line)
        if answer is None:
            self.end(peer, "a line of text with too many words")
        else:
            self.send(peer, answer)

    # ---- clients ---------------------------------------------------------------------------------------------------

    def _submit(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        task, unique, *middle, data = arguments
        if (
            len(unique) > MAX_UNIQUE_BYTES
            or len(task) > MAX_SERVER_TASK_BYTES
            or any(len(more) > MAX_SERVER_TASK_BYTES for more in middle)
        ):
            self.refuse(peer, b"ARGUMENT_TOO_LARGE", b"An argument is too large")
            return
        when = None
        if command == Command.SUBMIT_JOB_EPOCH:
            seconds = number(middle[0])
            if not -_MAX_EPOCH <= seconds < _MAX_EPOCH:
                self.refuse(peer, b"ARGUMENT_TOO_LARGE", b"The epoch does not fit into 64 bits")
                return
            when = float(seconds) if seconds > self._now else None
        reducer = middle[0] if command in _REDUCES else None
        priority, background = _SUBMITS[command]
        job = self.table.find(task, unique, data)
        joined = job is not None
        if job is None:
            if self.table.full(task, priority):
                self.refuse(peer, b"QUEUE_ERROR", b"Job queue is full")
                return
            job = self.table.add(task, unique, data, priority, background, reducer, when)
        if background:
            job.background = True
        else:
            job.clients.append(peer)
            peer.watched[job] += 1
        self.send(peer, _response(Command.JOB_CREATED, job.handle), Command.JOB_CREATED)
        if not joined and job.state is JobState.QUEUED:
            self._wake(job)

    def _wake(self, job: Job[Peer]) -> None:
        for worker in job.function.workers:
            if worker.sleeping:
                worker.sleeping = False
                self.send(worker, _NOOP, Command.NOOP)

    def _get_status(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        handle = arguments[0]
        status = _status(self.table.jobs.get(handle))
        self.send(peer, _response(Command.STATUS_RES, handle, *status), Command.STATUS_RES)

    def _get_status_unique(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        unique = arguments[0]
        job = None if unique in (b"", b"-") else self.table.by_unique(unique)
        waiting = b"%d" % (0 if job is None else len(job.clients))
        packet = _response(Command.STATUS_RES_UNIQUE, unique, *_status(job), waiting)
        self.send(peer, packet, Command.STATUS_RES_UNIQUE)

    def _option(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        if arguments[0].lower() == b"exceptions":
            peer.exceptions = True
            self.send(peer, _response(Command.OPTION_RES, arguments[0]), Command.OPTION_RES)
        else:
            self.refuse(peer, b"UNKNOWN_OPTION", b"Server does not recognize given option")

    def _echo(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        self.send(peer, _response(Command.ECHO_RES, arguments[0]), Command.ECHO_RES)

    # ---- workers ---------------------------------------------------------------------------------------------------

    def _set_client_id(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        peer.client_id = arguments[0][:MAX_CLIENT_ID_BYTES] or b"-"

    def _can_do(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        task = arguments[0]
        if len(task) > MAX_SERVER_TASK_BYTES:
            self.refuse(peer, b"ARGUMENT_TOO_LARGE", b"An argument is too large")
            return
        limit = None
        if command == Command.CAN_DO_TIMEOUT:
            milliseconds = number(arguments[1])
            limit = min(max(milliseconds, _MIN_TIMEOUT), _MAX_TIMEOUT) / 1000 if milliseconds > 0 else None
        peer.abilities[task] = limit
        self.table.function(task).workers[peer] = None
        if peer.sleeping and self.table.runnable((task,)):
            peer.sleeping = False
            self.send(peer, _NOOP, Command.NOOP)

    def _cant_do(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        self._forget(peer, arguments[0])

    def _reset_abilities(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        for task in list(peer.abilities):
            self._forget(peer, task)

    def _forget(self, peer: Peer, task: bytes) -> None:
        """A worker takes a task back; jobs of it that it holds go to others, as with gearmand."""
        if task not in peer.abilities:
            return
        del peer.abilities[task]
        self.table.function(task).workers.pop(peer, None)
        for job in [job for job in peer.held.values() if job.function.name == task]:
            self._lose(job)

    def _pre_sleep(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        if self.table.runnable(peer.abilities):
            self.send(peer, _NOOP, Command.NOOP)
        else:
            peer.sleeping = True

    def _grab(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        peer.sleeping = False
        job = self.table.take(peer.abilities, peer)
        if job is None:
            self.send(peer, _NO_JOB, Command.NO_JOB)
            return
        task = job.function.name
        limit = peer.abilities.pop(task)
        peer.abilities[task] = limit
        peer.held[job.handle] = job
        if limit is not None:
            self.limits.add(self._now + limit, job)
        if command == Command.GRAB_JOB:
            answer, more = Command.JOB_ASSIGN, ()
        elif command == Command.GRAB_JOB_ALL and job.reducer is not None:
            answer, more = Command.JOB_ASSIGN_ALL, (job.unique, job.reducer)  # type: ignore[assignment]
        else:
            answer, more = Command.JOB_ASSIGN_UNIQ, (job.unique,)  # type: ignore[assignment]
        self.send(peer, _response(answer, job.handle, task, *more, job.data), answer)

    def _lose(self, job: Job[Peer]) -> None:
        """A running job has lost its worker, or the worker its right to it: it goes to another one."""
        self.limits.discard(job)
        worker = job.worker
        if worker is not None:
            del worker.held[job.handle]
        if not job.wanted:
            self._abandon(job)
        elif self._job_retries is not None and job.retries + 1 >= self._job_retries:
            self._finish(job, "FAILED", Command.WORK_FAIL)
        else:
            self.table.put_back(job)
            self._wake(job)

    def _update(self, peer: Peer, arguments: list[bytes], command: int) -> None:
        handle = arguments[0].rstrip(b"\0")
        job = peer.held.get(handle)
        if job is None:
            self.refuse(peer, b"JOB_NOT_FOUND", b"Job given in work result not found")
            return
        if command == Command.WORK_STATUS:
            job.numerator, job.denominator = (_unsigned(number(text)) for text in arguments[1:])
        if command in _FINAL:
            self.limits.discard(job)
            del peer.held[handle]
            outcome = "COMPLETE" if command == Command.WORK_COMPLETE else "FAILED"
            self._finish(job, outcome, Command(command), *arguments[1:])
        else:
            self._relay(job, Command(command), *arguments[1:])

    def _finish(self, job: Job[Peer], outcome: str, command: Command, *more: bytes) -> None:
        """Tell all that wait for a job how it ended, and forget it."""
        self._relay(job, command, *more)
        result = more[0] if command == Command.WORK_COMPLETE else None
        exception = more[0] if command == Command.WORK_EXCEPTION else None
        self.history.add(job, outcome, result, exception)
        for client in job.clients:
            client.watched.pop(job, None)
        job.clients = []
        self.table.remove(job)

    def _abandon(self, job: Job[Peer]) -> None:
        """Nobody wants a job any more."""
        self.history.add(job, "ABANDONED")
        self.table.remove(job)

    def _relay(self, job: Job[Peer], command: Command, *more: bytes) -> None:
        packet = _response(command, job.handle, *more)
        for client in job.clients:
            if command == Command.WORK_EXCEPTION and not client.exceptions:
                self.send(client, _response(Command.WORK_FAIL, job.handle), Command.WORK_FAIL)
            else:
                self.send(client, packet, command)

    def cancel(self, handle: bytes) -> bool:
        """Drop a job, and tell those that wait for it; one that runs goes on for nobody. Return whether it is known."""
        job = self.table.jobs.get(handle)
        if job is None:
            return False
        if job.worker is not None:
            job.background = False
            self._relay(job, Command.WORK_FAIL)
            for client in job.clients:
                client.watched.pop(job, None)
            job.clients = []
        else:
            self._finish(job, "CANCELLED", Command.WORK_FAIL)
        return True

    def clear(self) -> None:
        """Drop all jobs, those that run included, and forget those that have ended."""
        for job in list(self.table.jobs.values()):
            self.limits.discard(job)
            if job.worker is not None:
                del job.worker.held[job.handle]
            self._finish(job, "CANCELLED", Command.WORK_FAIL)
        self.history.clear()
        self.table.accepted = 0


_FINAL = frozenset((Command.WORK_COMPLETE, Command.WORK_FAIL, Command.WORK_EXCEPTION))
_REDUCES = frozenset((Command.SUBMIT_REDUCE_JOB, Command.SUBMIT_REDUCE_JOB_BACKGROUND))

_Handler = Callable[[JobServer, Peer, list[bytes], int], None]
_HANDLERS: dict[int, _Handler] = {
    **dict.fromkeys(_SUBMITS, JobServer._submit),
    **dict.fromkeys((Command.GRAB_JOB, Command.GRAB_JOB_UNIQ, Command.GRAB_JOB_ALL), JobServer._grab),
    **dict.fromkeys((Command.WORK_DATA, Command.WORK_WARNING, Command.WORK_STATUS, *_FINAL), JobServer._update),
    Command.GET_STATUS: JobServer._get_status,
    Command.GET_STATUS_UNIQUE: JobServer._get_status_unique,
    Command.OPTION_REQ: JobServer._option,
    Command.ECHO_REQ: JobServer._echo,
    Command.SET_CLIENT_ID: JobServer._set_client_id,
    Command.CAN_DO: JobServer._can_do,
    Command.CAN_DO_TIMEOUT: JobServer._can_do,
    Command.CANT_DO: JobServer._cant_do,
    Command.RESET_ABILITIES: JobServer._reset_abilities,
    Command.PRE_SLEEP: JobServer._pre_sleep,
}


def _arguments(command: int, body: bytes) -> list[bytes]:
    """Split a packet's body; one where none belongs is ignored, as by gearmand."""
    return split_arguments(command, body) if COMMANDS[command].arguments else []


def _status(job: Job[Peer] | None) -> tuple[bytes, ...]:
    if job is None:
        return b"0", b"0", b"0", b"0"
    running = b"1" if job.state is JobState.RUNNING else b"0"
    return b"1", running, b"%d" % job.numerator, b"%d" % job.denominator


def _unsigned(value: int) -> int:
    """gearmand keeps 32 bits."""
    return value & 0xFFFFFFFF
