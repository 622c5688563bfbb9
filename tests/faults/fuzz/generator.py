"""Inputs from a seed. Each has a number: the same seed and number make the same input again."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from random import Random

from gearman_pool.protocol.commands import COMMANDS, Command, CommandSpec, Sender
from gearman_pool.protocol.packets import REQ, RES
from gearman_pool.protocol.text import TEXT_LINE

from .machines import GIVEN_UP, MACHINES, MAX_PACKET_SIZE, Input, check

__all__ = ["fuzz", "make_input"]

#: What the damaged size of a packet may be.
_SIZES = (0, 1, 11, 12, 13, MAX_PACKET_SIZE, MAX_PACKET_SIZE + 1, 2**31 - 1, 2**31, 2**32 - 1)

_WORDS = (b"", b"H:1", b"H:2", b"H:3", b"H:server:1", b"H:server:2", b"1", b"-1", b"0", b"9" * 30, b"1e999", b"nan")
#: Handles and functions, which come first and must meet their like to do anything.
_NAMES = {RES: (b"H:1", b"H:1", b"H:2"), REQ: (b"H:server:1", b"H:server:2", b"0", b"1", b"1")}
_LINES = (
    *(b"OK\n", b"OK\r\n", b".\n", b"ERR X y+z\r\n", b"ERR\n", b"\n", b"a\t1\t2\t3\n", b"a\tb\t1\t2\t3\t4\n"),
    *(b"3 ::1 - : a b\n", b"4 127.0.0.1 me :\n", b"h:4730/H:1/%20u\n"),
    *(b"status\n", b"workers\r\n", b"show jobs\n", b"prioritystatus\n", b"show unique jobs\n", b"version\n"),
    *(b"cancel job H:server:1\r\n", b"maxqueue f 1 2 3\n", b"create function f\r\n", b"drop function f\n"),
)

#: What answers a request, in the order of the requests.
_ASKED_FOR = frozenset(
    (
        *(TEXT_LINE, Command.JOB_CREATED, Command.ECHO_RES, Command.OPTION_RES, Command.STATUS_RES, Command.ERROR),
        *(Command.STATUS_RES_UNIQUE, Command.NO_JOB, Command.JOB_ASSIGN, Command.JOB_ASSIGN_UNIQ),
    )
)


def fuzz(inputs: int, seed: int, first: int = 0) -> Counter[str]:
    """Run so many inputs, in turn through all machines; return how they ended.

    Raises:
        AssertionError: a machine did not keep its promise; the text says with which input.
    """
    outcomes: Counter[str] = Counter()
    names = list(MACHINES)
    for number in range(first, first + inputs):
        name = names[number % len(names)]
        try:
            _, end = check(name, make_input(Random(f"{seed}/{number}"), name))
        except AssertionError as error:
            raise AssertionError(f"input {number} of seed {seed}: {error}") from error
        ended = end.__name__ if isinstance(end, type) else "closed" if end is True else "went on"
        outcomes[f"{name} {ended}"] += 1
    return outcomes


def make_input(rng: Random, name: str) -> Input:
    """Return one input for a machine."""
    machine = MACHINES[name]
    number, step = list(MACHINES).index(name), rng.choice((1, 1, 2, 5, 12, 13, 50))
    kind = rng.random()
    if kind < 0.2:
        return Input(number, step, b"", (machine.magic if kind < 0.1 else b"") + rng.randbytes(rng.randrange(150)))
    text = 0.9 if name == "text" or (name == "admin" and rng.random() < 0.5) else 0.15
    specs = _TALK[name] if name in _TALK and rng.random() < 0.5 else _LEGAL[machine.magic]
    count = rng.randrange(1, 10) if rng.random() < 0.9 else 20
    packets = [_packet(rng, machine.magic, specs, text) for _ in range(count)]
    data = bytearray(b"".join([packet for _, packet in packets]))
    for _ in range(rng.choice((0, 0, 1, 2, 5))):
        _damage(rng, data)
    return Input(number, step, _owed(rng, [command for command, _ in packets], machine.replies), bytes(data))


def _packet(rng: Random, magic: bytes, specs: Sequence[CommandSpec], text: float) -> tuple[int, bytes]:
    if rng.random() < text:
        line = rng.choice(_LINES)
        return TEXT_LINE, line if rng.random() < 0.9 else b"x" * rng.choice((100, 180, 199, 200)) + line
    spec = rng.choice(_SPECS if rng.random() < 0.02 else specs)
    words = [_word(rng) for _ in spec.arguments]
    if words and rng.random() < 0.6:
        words[0] = rng.choice(_NAMES[magic])
    body = b"\0".join(words)
    # Now and then a number that is no command, or not any more.
    command = spec.command if rng.random() < 0.99 else rng.choice((0, 5, 43))
    return command, magic + struct.pack(">II", command, len(body)) + body


def _word(rng: Random) -> bytes:
    kind = rng.random()
    if kind < 0.7:
        return rng.choice(_WORDS)
    return rng.randbytes(rng.randrange(80)) if kind < 0.97 else b"x" * rng.randrange(450)


_SPECS = tuple(COMMANDS.values())
_LEGAL = {
    RES: tuple(spec for spec in _SPECS if spec.senders & Sender.SERVER),
    REQ: tuple(spec for spec in _SPECS if spec.senders & (Sender.CLIENT | Sender.WORKER)),
}
_UPDATES = tuple(spec for spec in _SPECS if spec.name.startswith("WORK_"))
#: What belongs together: drawn from all packets, a job would hardly ever get from its beginning to its end.
_TALK = {
    "client": (*[COMMANDS[Command.JOB_CREATED]] * len(_UPDATES), *_UPDATES),
    "worker": tuple(COMMANDS[c] for c in (Command.JOB_ASSIGN_UNIQ, Command.JOB_ASSIGN, Command.NO_JOB, Command.NOOP)),
    "server": (
        *_UPDATES,
        *(spec for spec in _LEGAL[REQ] if spec.name.startswith(("SUBMIT_JOB", "CAN", "GRAB", "GET", "PRE"))),
    ),
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


def _owed(rng: Random, commands: list[int], replies: tuple[int, ...]) -> bytes:
    """Have the machine wait for what comes, most of the time."""
    if not replies:
        return b""
    asked_for = [command for command in commands if command in _ASKED_FOR]
    owed = [
        replies.index(command) if command in replies and rng.random() < 0.9 else rng.randrange(len(replies))
        for command in asked_for
    ]
    if rng.random() < 0.2:
        # Numbers stand for the same reply when they differ by as many as there are.
        later = GIVEN_UP - GIVEN_UP % -len(replies)
        owed = [reply + later if rng.random() < 0.6 else reply for reply in owed]
    return bytes(owed)
