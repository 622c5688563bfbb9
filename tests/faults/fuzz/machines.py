"""The machines that are fuzzed, and what must hold for each whatever it is sent."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gearman_pool.errors import ProtocolError
from gearman_pool.job import JobReference
from gearman_pool.protocol import packets
from gearman_pool.protocol.admin import AdminSession
from gearman_pool.protocol.client import COMPLETE, CREATED, EXCEPTION, FAIL, ClientSession, submit_reply
from gearman_pool.protocol.commands import Command
from gearman_pool.protocol.packets import HEADER_SIZE, REQ, RES, Decoder
from gearman_pool.protocol.server import JobServer, Peer, machine
from gearman_pool.protocol.server.queues import JobState, JobTable
from gearman_pool.protocol.session import ACCEPTED, ERROR, REPLY, ReplySession
from gearman_pool.protocol.text import (
    TEXT_BLOCK,
    TEXT_COMMANDS,
    TEXT_LINE,
    pack_text_command,
    parse_error,
    split_text_command,
)
from gearman_pool.protocol.worker import ASSIGNED, NOTHING, WorkerSession

__all__ = ["GIVEN_UP", "MACHINES", "MAX_PACKET_SIZE", "Input", "Machine", "Outcome", "check"]

#: Small, so that the limits are met by short inputs.
MAX_PACKET_SIZE = 400
_MAX_LINE = 200
_MAX_OUT_BYTES = 500
_MAX_JOBS = 6
#: Constants of `packets` that have to do with large bodies, and what they are while machines run: a body of more than
#: so many bytes gathers apart, and a payload of more is sent apart; and how much room is made for it.
_SIZES = {"COPY_LIMIT": 150, "_FIRST_ROOM": 40, "_MAX_ROOM": 100}

#: Replies that are owed from this number up are given up.
GIVEN_UP = 128

#: Inputs say in one byte how many replies are owed, and most bytes would say too many.
_MOST_OWED = 32

#: What a machine made of its input, and how it ended: the type of its error, or what it was left with.
Outcome = tuple[Any, Any]


class Input(NamedTuple):
    """What a machine is to be fed. As bytes it is what atheris changes and what the files of the corpus hold.

    Attributes:
        machine: The number of the machine that it was made for; every machine can be fed with it.
        step: How long the pieces are in which the second machine of the kind gets the data.
        owed: What the machine waits for, one byte for each reply: which of those that the machine knows. From 128 up
            it is given up in the middle of the data.
        data: What it is sent.
    """

    machine: int
    step: int
    owed: bytes
    data: bytes

    @classmethod
    def parse(cls, text: bytes) -> Input:
        """Read an input from bytes; any bytes are one."""
        machine, step, count = (text[:3] + b"\0\0\0")[:3]
        end = 3 + count % _MOST_OWED
        return cls(machine, max(1, step), text[3:end], text[end:])

    def __bytes__(self) -> bytes:
        return bytes((self.machine, self.step, len(self.owed))) + self.owed + self.data

    def pieces(self, step: int) -> Iterator[bytes]:
        """Yield the data in pieces; an empty one in the middle, if something is given up there."""
        middle = len(self.data) // 2 if max(self.owed, default=0) >= GIVEN_UP else 0
        for position in range(0, middle, step):
            yield self.data[position : min(position + step, middle)]
        if middle:
            yield b""
        for position in range(middle, len(self.data), step):
            yield self.data[position : position + step]


@dataclass(frozen=True)
class Machine:
    """A machine: what feeds it, the magic of the packets that it is sent, and the replies that it may wait for."""

    run: Callable[[bytes, Iterable[bytes]], Outcome]
    magic: bytes
    replies: tuple[int, ...] = ()


def check(name: str, what: Input) -> Outcome:
    """Feed machines of this name, whole and in pieces, and return what they both said.

    Raises:
        AssertionError: they said different things, or did not keep a promise; the text has the input.
    """
    run = MACHINES[name].run
    try:
        with _small_sizes():
            whole = run(what.owed, what.pieces(max(1, len(what.data))))
            split = run(what.owed, what.pieces(what.step))
        assert whole == split, f"whole: {whole}\nin pieces of {what.step}: {split}"
    except Exception as error:
        raise AssertionError(f"{name} with {what!r}: {type(error).__name__}: {error}") from error
    return whole


@contextlib.contextmanager
def _small_sizes() -> Iterator[None]:
    before = {name: getattr(packets, name) for name in _SIZES}
    vars(packets).update(_SIZES)
    try:
        yield
    finally:
        vars(packets).update(before)


# ---- the decoder ---------------------------------------------------------------------------------------------------


def _run_decoder(owed: bytes, pieces: Iterable[bytes]) -> Outcome:
    decoder = Decoder(MAX_PACKET_SIZE, max_line_length=_MAX_LINE)
    found: list[tuple[int, bytes]] = []
    fed = 0
    try:
        for piece in pieces:
            fed += len(piece)
            found.extend(_decoded(decoder, piece))
            _check_held(decoder, fed)
    except ProtocolError as error:
        return found, type(error)
    assert sum(len(body) for _, body in found) + decoder.pending <= fed
    return found, decoder.pending


def _decoded(decoder: Decoder, piece: bytes) -> Iterator[tuple[int, bytes]]:
    for part, room in _parts(decoder, piece):
        if room is None:
            decoder.feed(part)
        elif not decoder.filled(len(part)):
            continue
        for command, body in decoder.packets():
            yield command, bytes(body)


def _received(session: ReplySession, piece: bytes) -> Iterator[list[Any]]:
    for part, room in _parts(session, piece):
        yield session.receive(part) if room is None else session.filled(len(part))


def _parts(machine: Decoder | ReplySession, piece: bytes) -> Iterator[tuple[bytes, memoryview | None]]:
    """Split a piece as a connection's reads do: what belongs to a large body is put into the room for it.

    Only what is of an odd length is put there, so that both ways are tried, and both for one body.
    """
    while piece:
        room = machine.room() if len(piece) % 2 else None
        part = piece if room is None else piece[: len(room)]
        if room is not None:
            room[: len(part)] = part
        yield part, room
        piece = piece[len(part) :]


def _check_held(decoder: Decoder, fed: int) -> None:
    limit = _MAX_LINE if decoder.in_line else HEADER_SIZE + MAX_PACKET_SIZE
    assert decoder.pending <= min(fed, limit), f"{decoder.pending} bytes are held of {fed}"


# ---- sessions ------------------------------------------------------------------------------------------------------

_CLIENT_REPLIES = (
    *(submit_reply(False), submit_reply(True), Command.ECHO_RES, Command.OPTION_RES, Command.STATUS_RES),
    *(Command.STATUS_RES_UNIQUE, TEXT_LINE),
)
_ADMIN_REPLIES = (TEXT_LINE, TEXT_BLOCK, Command.ECHO_RES)
_WORKER_REPLIES = (Command.JOB_ASSIGN_UNIQ, Command.ECHO_RES, TEXT_LINE)

#: Events after which nothing more comes for a request. A background job's CREATED is one besides.
_LAST = frozenset((REPLY, ERROR, COMPLETE, FAIL, EXCEPTION, ASSIGNED, NOTHING))


def _run_client(owed: bytes, pieces: Iterable[bytes]) -> Outcome:
    session = ClientSession(MAX_PACKET_SIZE)
    outcome = _run_session(session, _CLIENT_REPLIES, owed, pieces)
    for handle, token in session.accepted():
        session.forget(handle, token)
    assert not session.handles, "jobs that nobody waits for are kept"
    return outcome


def _run_admin(owed: bytes, pieces: Iterable[bytes]) -> Outcome:
    return _run_session(AdminSession(MAX_PACKET_SIZE), _ADMIN_REPLIES, owed, pieces)


def _run_worker(owed: bytes, pieces: Iterable[bytes]) -> Outcome:
    return _run_session(WorkerSession(MAX_PACKET_SIZE), _WORKER_REPLIES, owed, pieces)


def _run_session(session: ReplySession, replies: Sequence[int], owed: bytes, pieces: Iterable[bytes]) -> Outcome:
    session._decoder = Decoder(MAX_PACKET_SIZE, max_line_length=_MAX_LINE)
    given_up = {token for token, choice in enumerate(owed) if choice >= GIVEN_UP}
    forgotten: set[int] = set()
    for token, choice in enumerate(owed):
        session.order.append((b"", replies[choice % len(replies)], token))
    waiting = list(session.order)
    events: list[Any] = []
    error: type | None = None
    fed = 0
    try:
        for piece in pieces:
            if not piece and isinstance(session, ClientSession):
                for handle, token in session.accepted():
                    if token in given_up:
                        session.forget(handle, token)
                        forgotten.add(token)
                continue
            fed += len(piece)
            for got in _received(session, piece):
                assert forgotten.isdisjoint(token for _, token, _ in got), "a job that was given up goes on"
                events += got
                if session.failure is not None:
                    break
            if session.failure is not None:
                break
            _check_held(session._decoder, fed)
            if isinstance(session, AdminSession):
                assert session._size <= MAX_PACKET_SIZE
    except ProtocolError as raised:
        error = type(raised)
    if session.failure is not None:
        error = type(session.failure)
    assert _size([value for _, _, value in events]) <= fed, "the events hold more than has come"
    _check_account(session, waiting, events, forgotten)
    return events, error or (len(session.order), len(session.handles))


def _size(value: Any) -> int:
    """How many bytes and characters an event's value holds."""
    if isinstance(value, (bytes, str)):
        return len(value)
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 0


def _check_account(session: ReplySession, waiting: list[Any], events: list[Any], forgotten: set[int]) -> None:
    """Each request is still owed its reply, is an accepted job, was given up, or has ended: one of these, and once."""
    background = {token for _, reply, token in waiting if reply == ACCEPTED}
    tokens = [*forgotten, *(token for _, _, token in session.order)]
    tokens += [token for kind, token, _ in events if kind in _LAST or (kind == CREATED and token in background)]
    if isinstance(session, ClientSession):
        tokens += [token for _, token in session.accepted()]
    assert sorted(tokens) == list(range(len(waiting))), f"requests are lost or end twice: {sorted(tokens)}"


# ---- the server ----------------------------------------------------------------------------------------------------


def _run_server(owed: bytes, pieces: Iterable[bytes]) -> Outcome:
    jobs = JobServer(max_packet_size=MAX_PACKET_SIZE, max_jobs=_MAX_JOBS, max_out_bytes=_MAX_OUT_BYTES)
    # Another peer works and waits for jobs, so that the input finds some.
    other, peer = jobs.connect(1, "127.0.0.1"), jobs.connect(2, "127.0.0.1")
    peer.decoder = Decoder(MAX_PACKET_SIZE, REQ, machine._ANSWERED, _MAX_LINE)
    jobs.receive(other, _SETUP, 0.0)
    for piece in pieces:
        jobs.receive(peer, piece, 1.0)
        jobs.tick(1.0)
        assert sum(map(len, peer.out)) <= _MAX_OUT_BYTES
        assert len(jobs.table.jobs) <= _MAX_JOBS
        if peer.closing is not None:
            break
    # Time limits of jobs end, and delayed jobs are due.
    jobs.tick(1e9)
    said = b"".join(map(bytes, peer.out)), b"".join(map(bytes, other.out))
    ended = peer.closing is not None
    jobs.disconnect(peer)
    jobs.disconnect(other)
    _check_table(jobs.table)
    return said, ended


def _check_table(table: JobTable[Peer]) -> None:
    """What must hold when all peers have gone."""
    for job in table.jobs.values():
        assert job.background, "a job is kept that nobody waits for"
        assert job.state in (JobState.QUEUED, JobState.DELAYED), f"a job is {job.state} without a worker"
    known = set(table.jobs.values())
    assert known.issuperset(table._keys.values()), "a job that is gone can be joined"
    assert known.issuperset(job for same in table._uniques.values() for job in same), "a job that is gone is kept"
    for function in table.functions.values():
        kept = [job for job in table.jobs.values() if job.function is function]
        assert (function.total, function.running, function.workers) == (len(kept), 0, {})
        assert sum(function.waiting) == sum(job.state is JobState.QUEUED for job in kept)


def _request(command: int, *arguments: bytes) -> bytes:
    body = b"\0".join(arguments)
    return REQ + struct.pack(">II", command, len(body)) + body


_SETUP = b"".join(
    (
        _request(Command.CAN_DO, b"1"),
        _request(Command.SUBMIT_JOB, b"1", b"u", b"data"),
        _request(Command.SUBMIT_JOB_BG, b"0", b"v", b"data"),
        _request(Command.GRAB_JOB_UNIQ),
        _request(Command.PRE_SLEEP),
    )
)


# ---- text ----------------------------------------------------------------------------------------------------------


def _run_text(owed: bytes, pieces: Iterable[bytes]) -> Outcome:
    """Read the data's lines as the answer to each text command, as a command, and as a job's reference."""
    lines = [line.rstrip(b"\r") for line in b"".join(pieces).split(b"\n")]
    found: list[Any] = [_read(command.parse, lines) for command in TEXT_COMMANDS.values() if command.answer < TEXT_LINE]
    for line in lines:
        found += [_read(command.parse, line) for command in TEXT_COMMANDS.values() if command.answer == TEXT_LINE]
        found += [parse_error(line), parse_error(line, coded=True)]
        found += [_packed(line), _reference(line)]
    return found, ProtocolError if all(item is ProtocolError for item in found[:3]) else None


def _read(parse: Callable[[Any], Any], answer: Any) -> Any:
    try:
        return parse(answer)
    except ProtocolError:
        return ProtocolError


def _packed(line: bytes) -> bytes | None:
    """Take a line that a person wrote for a command; what is then sent must be one line."""
    try:
        name, arguments = split_text_command(line.decode("utf-8", "surrogateescape"))
        packed = pack_text_command(name, *arguments)
    except ValueError:
        return None
    assert packed.find(b"\n") == len(packed) - 1
    assert b"\0" not in packed
    return packed


def _reference(line: bytes) -> JobReference | None:
    try:
        reference = JobReference.parse(line.decode("utf-8", "surrogateescape"))
    except ValueError:
        return None
    assert JobReference.parse(str(reference)) == reference
    return reference


#: Each machine. The corpus's files name them by their place, so new ones go to the end.
MACHINES: dict[str, Machine] = {
    "decoder": Machine(_run_decoder, RES),
    "client": Machine(_run_client, RES, _CLIENT_REPLIES),
    "admin": Machine(_run_admin, RES, _ADMIN_REPLIES),
    "worker": Machine(_run_worker, RES, _WORKER_REPLIES),
    "server": Machine(_run_server, REQ),
    "text": Machine(_run_text, RES),
}
