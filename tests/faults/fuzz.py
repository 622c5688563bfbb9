"""Feeds the protocol's state machines what no peer should send: ``python -m tests.faults.fuzz --inputs 1000000``.

An input is a stream of valid packets that was then damaged, or bytes at random. It goes to two machines of a kind, to
one whole and to the other in pieces. Both must say the same: the same events, and then nothing or a `ProtocolError` of
the same type. Anything else that is raised, and memory that grows, is a bug. Each input has a number: the same seed
and number make the same input again (``--first NUMBER --inputs 1``).
"""

from __future__ import annotations

import argparse
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from gearman_pool.errors import ProtocolError
from gearman_pool.protocol.admin import AdminSession
from gearman_pool.protocol.client import ClientSession, submit_reply
from gearman_pool.protocol.commands import COMMANDS, Command, Sender
from gearman_pool.protocol.packets import REQ, RES, Decoder
from gearman_pool.protocol.server import JobServer
from gearman_pool.protocol.session import ReplySession
from gearman_pool.protocol.text import TEXT_BLOCK, TEXT_LINE
from gearman_pool.protocol.worker import WorkerSession

__all__ = ["MAX_PACKET_SIZE", "TARGETS", "fuzz"]

#: Small, so that the limit is met.
MAX_PACKET_SIZE = 2000

#: What the damaged size of a packet may be.
_SIZES = (0, 1, 11, 12, 13, MAX_PACKET_SIZE, MAX_PACKET_SIZE + 1, 2**31 - 1, 2**31, 2**32 - 1)

_WORDS = (b"", b"H:1", b"H:2", b"H:3", b"H:server:1", b"H:server:2", b"1", b"-1", b"0", b"9" * 30, b"1e999", b"nan")
_LINES = (
    *(b"OK\n", b"OK\r\n", b".\n", b"ERR X y+z\r\n", b"ERR\n", b"\n", b"a\t1\t2\t3\n", b"status\n", b"workers\r\n"),
    *(
        b"show jobs\n",
        b"cancel job H:server:1\r\n",
        b"maxqueue f 1 2 3\n",
        b"create function f\r\n",
        b"drop function f\n",
    ),
)

Outcome = tuple[Any, Any]


# ---- inputs --------------------------------------------------------------------------------------------------------


def _word(rng: Random) -> bytes:
    if rng.random() < 0.7:
        return rng.choice(_WORDS)
    return rng.randbytes(rng.randrange(80))


def _packet(rng: Random, magic: bytes) -> tuple[int, bytes]:
    if rng.random() < 0.15:
        return TEXT_LINE, rng.choice(_LINES)
    spec = rng.choice(_SPECS if rng.random() < 0.02 else _LEGAL[magic])
    body = b"\0".join([_word(rng) for _ in spec.arguments])
    return spec.command, magic + struct.pack(">II", spec.command, len(body)) + body


_SPECS = tuple(COMMANDS.values())
_LEGAL = {
    RES: tuple(spec for spec in _SPECS if spec.senders & Sender.SERVER),
    REQ: tuple(spec for spec in _SPECS if spec.senders & (Sender.CLIENT | Sender.WORKER)),
}


def _damage(rng: Random, data: bytearray) -> None:
    if not data:
        return
    position = rng.randrange(len(data))
    kind = rng.randrange(8)
    if kind == 0:
        data[position] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[position] = rng.choice((0, 10, 13, 46, 255))
    elif kind == 2:
        del data[position : position + rng.randrange(1, 20)]
    elif kind == 3:
        data[position:position] = rng.randbytes(rng.randrange(1, 20))
    elif kind == 4:
        data[position:position] = data[position : position + rng.randrange(1, 60)]
    elif kind == 5:
        del data[position:]
    else:
        start = data.find(b"\0RE", position)
        if start >= 0 and len(data) >= start + 12:
            offset, value = (8, rng.choice(_SIZES)) if kind == 6 else (4, rng.randrange(60))
            struct.pack_into(">I", data, start + offset, value)


def make_input(rng: Random, magic: bytes) -> tuple[bytes, list[int]]:
    """Return one input, and the commands of the packets that it was made of."""
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(200)), []
    if kind < 0.2:
        return magic + rng.randbytes(rng.randrange(100)), []
    packets = [_packet(rng, magic) for _ in range(rng.randrange(1, 8))]
    data = bytearray(b"".join([packet for _, packet in packets]))
    for _ in range(rng.choice((0, 0, 1, 2, 5))):
        _damage(rng, data)
    return bytes(data), [command for command, _ in packets]


def _owe(session: ReplySession, commands: list[int], replies: Sequence[int], rng: Random) -> None:
    """Have the session wait for what comes, most of the time."""
    for token, command in enumerate(commands):
        if command in _ASKED_FOR:
            reply = command if rng.random() < 0.9 and command in replies else rng.choice(replies)
            session.order.append((b"", reply, token))


#: What answers a request, in the order of the requests.
_ASKED_FOR = frozenset(
    (
        *(TEXT_LINE, Command.JOB_CREATED, Command.ECHO_RES, Command.OPTION_RES, Command.STATUS_RES, Command.ERROR),
        *(Command.STATUS_RES_UNIQUE, Command.NO_JOB, Command.JOB_ASSIGN, Command.JOB_ASSIGN_UNIQ),
    )
)


def _pieces(rng: Random, data: bytes) -> Iterator[bytes]:
    step = rng.choice((1, 2, 5, 12, 13, 50))
    position = 0
    while position < len(data):
        size = step if step < 5 else rng.randrange(1, step + 1)
        yield data[position : position + size]
        position += size


# ---- machines ------------------------------------------------------------------------------------------------------


def _run_decoder(pieces: Iterator[bytes], commands: list[int], rng: Random) -> Outcome:
    decoder = Decoder(MAX_PACKET_SIZE)
    found: list[tuple[int, bytes]] = []
    fed = 0
    try:
        for piece in pieces:
            decoder.feed(piece)
            fed += len(piece)
            found.extend(decoder.packets())
            assert decoder.pending <= fed
    except ProtocolError as error:
        return found, type(error)
    return found, decoder.pending


def _run_session(session: ReplySession, pieces: Iterator[bytes]) -> Outcome:
    events: list[Any] = []
    try:
        for piece in pieces:
            events += session.receive(piece)
            if session.failure is not None:
                break
    except ProtocolError as error:
        return events, type(error)
    if session.failure is not None:
        return events, type(session.failure)
    return events, (len(session.order), len(session.handles))


def _run_client(pieces: Iterator[bytes], commands: list[int], rng: Random) -> Outcome:
    session = ClientSession(MAX_PACKET_SIZE)
    replies = (
        *(submit_reply(False), submit_reply(True), Command.ECHO_RES, Command.OPTION_RES, Command.STATUS_RES),
        *(Command.STATUS_RES_UNIQUE, TEXT_LINE),
    )
    _owe(session, commands, replies, rng)
    return _run_session(session, pieces)


def _run_admin(pieces: Iterator[bytes], commands: list[int], rng: Random) -> Outcome:
    session = AdminSession(MAX_PACKET_SIZE)
    replies = (TEXT_LINE, TEXT_BLOCK, Command.ECHO_RES)
    _owe(session, commands, replies, rng)
    return _run_session(session, pieces)


def _run_worker(pieces: Iterator[bytes], commands: list[int], rng: Random) -> Outcome:
    session = WorkerSession(MAX_PACKET_SIZE)
    replies = (Command.JOB_ASSIGN_UNIQ, Command.JOB_ASSIGN_UNIQ, Command.ECHO_RES, TEXT_LINE)
    _owe(session, commands, replies, rng)
    return _run_session(session, pieces)


def _run_server(pieces: Iterator[bytes], commands: list[int], rng: Random) -> Outcome:
    server = JobServer(max_packet_size=MAX_PACKET_SIZE, max_jobs=20)
    # Another peer works and waits for jobs, so that the input finds some.
    other, peer = server.connect(1, "127.0.0.1"), server.connect(2, "127.0.0.1")
    setup = b"".join(_request(*packet) for packet in _SETUP)
    server.receive(other, setup, 0.0)
    for piece in pieces:
        server.receive(peer, piece, 1.0)
        server.tick(1.0)
        if peer.closing is not None:
            break
    said = b"".join(map(bytes, peer.out)), b"".join(map(bytes, other.out))
    ended = peer.closing is not None
    server.disconnect(peer)
    server.disconnect(other)
    return said, ended


def _request(command: int, *arguments: bytes) -> bytes:
    body = b"\0".join(arguments)
    return REQ + struct.pack(">II", command, len(body)) + body


_SETUP = (
    (Command.CAN_DO, b"1"),
    (Command.SUBMIT_JOB, b"1", b"u", b"data"),
    (Command.SUBMIT_JOB_BG, b"0", b"v", b"data"),
    (Command.GRAB_JOB_UNIQ,),
    (Command.PRE_SLEEP,),
)

#: Each machine, and the magic of the packets that it is sent.
TARGETS: dict[str, tuple[Callable[[Iterator[bytes], list[int], Random], Outcome], bytes]] = {
    "decoder": (_run_decoder, RES),
    "client": (_run_client, RES),
    "admin": (_run_admin, RES),
    "worker": (_run_worker, RES),
    "server": (_run_server, REQ),
}


# ---- the run -------------------------------------------------------------------------------------------------------


def fuzz(inputs: int, seed: int, first: int = 0) -> Counter[str]:
    """Run so many inputs, in turn through all machines; return how they ended.

    Raises:
        AssertionError: a machine did not keep its promise; the text says with which input.
    """
    outcomes: Counter[str] = Counter()
    names = list(TARGETS)
    for number in range(first, first + inputs):
        name = names[number % len(names)]
        outcomes[f"{name} {_one(name, seed, number)}"] += 1
    return outcomes


def _one(name: str, seed: int, number: int) -> str:
    run, magic = TARGETS[name]
    rng = Random(f"{seed}/{number}")
    data, commands = make_input(rng, magic)
    state = rng.getrandbits(64)
    try:
        whole = run(iter([data]), commands, Random(state))
        split = run(_pieces(rng, data), commands, Random(state))
        assert whole == split, f"whole: {whole}\nsplit: {split}"
    except Exception as error:
        raise AssertionError(
            f"{name} with input {number} of seed {seed}, {data!r}: {type(error).__name__}: {error}"
        ) from error
    end = whole[1]
    return end.__name__ if isinstance(end, type) else "closed" if end is True else "went on"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None, help="random if not given")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    arguments = parser.parse_args()
    seed = Random().getrandbits(32) if arguments.seed is None else arguments.seed
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    outcomes = fuzz(arguments.inputs, seed, arguments.first)
    elapsed = time.monotonic() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9,d}  {outcome}")
    print(f"{arguments.inputs:,d} inputs of seed {seed} in {elapsed:.0f} s; the memory grew by {grown} KiB")


if __name__ == "__main__":
    main()
