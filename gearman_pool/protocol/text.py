"""The administrative text commands: what to send, and what the answers mean.

A command is one line of words. It is answered by one line, or by a block of lines that ends with a line ``.``; either
may be replaced by one line ``ERR code text``. Source: gearmand's ``PROTOCOL`` document, corrected by what gearmand
1.1.20 was seen to send.

Threads: any may call these functions, which keep nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict
from urllib.parse import unquote_to_bytes

from ..errors import ProtocolError
from .limits import MAX_COMMAND_LENGTH, MAX_WORDS

__all__ = [
    "TEXT_BLOCK",
    "TEXT_COMMANDS",
    "TEXT_LINE",
    "JobRow",
    "PriorityStatusRow",
    "StatusRow",
    "TextCommand",
    "UniqueJobRow",
    "WorkerRow",
    "pack_text_command",
    "parse_error",
    "parse_jobs",
    "parse_ok",
    "parse_priority_status",
    "parse_status",
    "parse_unique_jobs",
    "parse_value",
    "parse_workers",
    "split_text_command",
]

#: What a command is answered with, in place of a binary reply's number: a line, or lines up to one that is ``.``.
TEXT_LINE = -1
TEXT_BLOCK = -2

#: gearmand's ``create function`` takes two bytes off the end of the line, whatever they are: after a bare newline the
#: function's last letter is lost. All other commands take both line ends, so one serves for all.
_LINE_END = b"\r\n"

#: gearmand itself splits at spaces only; other servers split at any white space.
_SPLITS_WORDS = re.compile(rb"[ \t\r\n\v\f\0]")


class StatusRow(TypedDict):
    """One function that the server knows. ``queued`` counts all its unfinished jobs, the running ones included."""

    task: str
    queued: int
    running: int
    workers: int


class PriorityStatusRow(TypedDict):
    """One function that the server knows, with its waiting jobs by priority; running jobs are not counted."""

    task: str
    high: int
    normal: int
    low: int
    workers: int


class WorkerRow(TypedDict):
    """One connection to the server: workers, clients and admin clients alike.

    ``client_id`` is ``"-"`` for a peer that gave itself no name. The server writes client id and functions without
    quoting. The row is split at its last colon between spaces, so that an id may hold spaces; a function
    with a space in its name shows as several. gearmand may list a peer that is leaving, with the descriptor ``-1``.
    """

    file_descriptor: str
    ip: str
    client_id: str
    tasks: tuple[str, ...]


class JobRow(TypedDict):
    """One unfinished job.

    ``retries``: how often it went back to the waiting jobs because its worker was lost. ``ignored``: 1 if nobody wants
    its result any more, because it was cancelled or its foreground client has gone; it is dropped when a worker asks
    for it. ``queued``: 1 for a background job, which the server keeps in its (perhaps persistent) queue until it is
    done or cancelled; 0 for a foreground job. No column tells whether it runs.

    ``canceled`` and ``enabled`` are python-gearman's names for the columns ``ignored`` and ``queued``. What
    python-gearman called ``queued`` is the column ``retries``.
    """

    handle: str
    retries: int
    ignored: int
    queued: int
    canceled: int
    enabled: int


class UniqueJobRow(TypedDict):
    """The unique of one unfinished job."""

    unique: str


def parse_status(lines: list[bytes]) -> tuple[StatusRow, ...]:
    """Read the answer to ``status``.

    Raises:
        ProtocolError: the lines are no such answer. So do all the parsers of this module.
    """
    return tuple(
        StatusRow(task=_text(task), queued=queued, running=running, workers=workers)
        for task, (queued, running, workers) in _table(lines, 3)
    )


def parse_priority_status(lines: list[bytes]) -> tuple[PriorityStatusRow, ...]:
    """Read the answer to ``prioritystatus``."""
    return tuple(
        PriorityStatusRow(task=_text(task), high=high, normal=normal, low=low, workers=workers)
        for task, (high, normal, low, workers) in _table(lines, 4)
    )


def parse_workers(lines: list[bytes]) -> tuple[WorkerRow, ...]:
    """Read the answer to ``workers``."""
    return tuple(_worker(row) for row in _worker_rows(lines))


def parse_jobs(lines: list[bytes]) -> tuple[JobRow, ...]:
    """Read the answer to ``show jobs``."""
    return tuple(
        JobRow(handle=_text(handle), retries=retries, ignored=ignored, queued=queued, canceled=ignored, enabled=queued)
        for handle, (retries, ignored, queued) in _table(lines, 3)
    )


def parse_unique_jobs(lines: list[bytes]) -> tuple[UniqueJobRow, ...]:
    """Read the answer to ``show unique jobs``."""
    return tuple(UniqueJobRow(unique=_text(line)) for line in lines)


def parse_value(line: bytes) -> str:
    """Read an answer of one line that holds a value, with or without ``OK`` before it."""
    return _text(line[2:].lstrip() if line == b"OK" or line.startswith(b"OK ") else line)


def parse_ok(line: bytes) -> str:
    """Read an answer that says no more than that the command was obeyed, and return ``"OK"``."""
    if line != b"OK" and not line.startswith(b"OK "):
        raise ProtocolError(f"the server answered {line[:80]!r} where OK was due")
    return "OK"


# An error's code is one word and its text is URL-encoded, that is, one word too. gearmand breaks that rule in the
# answers to ``drop function``, which are sentences; no code can be read from those.
_CODED_ERROR = re.compile(rb"ERR (\w+)(?: (\S*))?")


def parse_error(line: bytes, *, coded: bool = False) -> tuple[str, str] | None:
    """Return (code, text) of a line that reports an error, or None for any other line.

    The code of an error that comes without one is ``"ERR"``. With ``coded``, such errors are taken for any other line:
    where rows of names are due instead, less looks like an error.
    """
    match = _CODED_ERROR.fullmatch(line)
    if match:
        code, text = match.groups(b"")
        return code.decode("ascii"), unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8", "replace")
    if coded or not (line == b"ERR" or line.startswith(b"ERR ")):
        return None
    return "ERR", line[4:].decode("utf-8", "replace")


@dataclass(frozen=True)
class TextCommand:
    """One row of the table: what the command is called, what it takes and how its answer is read.

    ``answer`` is ``TEXT_LINE`` or ``TEXT_BLOCK``, and ``parse`` takes that line, or the block's list of lines. Of
    ``arguments``, the first ``required`` must be given.
    """

    name: str
    answer: int
    parse: Callable[[Any], Any]
    arguments: tuple[str, ...] = ()
    required: int = 0


#: Every text command, by name.
TEXT_COMMANDS: dict[str, TextCommand] = {
    command.name: command
    for command in (
        TextCommand("status", TEXT_BLOCK, parse_status),
        TextCommand("prioritystatus", TEXT_BLOCK, parse_priority_status),
        TextCommand("workers", TEXT_BLOCK, parse_workers),
        TextCommand("show jobs", TEXT_BLOCK, parse_jobs),
        TextCommand("show unique jobs", TEXT_BLOCK, parse_unique_jobs),
        TextCommand("version", TEXT_LINE, parse_value),
        TextCommand("verbose", TEXT_LINE, parse_value),
        TextCommand("getpid", TEXT_LINE, parse_value),
        TextCommand("cancel job", TEXT_LINE, parse_ok, ("handle",), 1),
        TextCommand("create function", TEXT_LINE, parse_ok, ("task",), 1),
        TextCommand("drop function", TEXT_LINE, parse_ok, ("task",), 1),
        TextCommand("maxqueue", TEXT_LINE, parse_ok, ("task", "high", "normal", "low"), 1),
        TextCommand("shutdown", TEXT_LINE, parse_ok, ("graceful",)),
    )
}


def pack_text_command(name: str, *arguments: str | bytes) -> bytes:
    """Build the line of a text command, line end included.

    Args:
        name: one of `TEXT_COMMANDS`.
        arguments: the words after the name; text as UTF-8.

    Raises:
        ValueError: no such command; too few or too many arguments; an argument that is empty or holds white space or a
            NUL byte; a line longer than `MAX_COMMAND_LENGTH`.
        TypeError: an argument is neither str nor bytes.
    """
    command = TEXT_COMMANDS.get(name)
    if command is None:
        raise ValueError(f"{name!r} is not an administrative command; those are {', '.join(TEXT_COMMANDS)}")
    if not command.required <= len(arguments) <= len(command.arguments):
        takes = " ".join(command.arguments) or "none"
        raise ValueError(f"{name} takes the arguments: {takes} ({command.required} required), not {len(arguments)}")
    labelled = zip(command.arguments, arguments, strict=False)
    words = [name.encode("ascii"), *(_word(name, label, value) for label, value in labelled)]
    line = b" ".join(words) + _LINE_END
    if len(line) > MAX_COMMAND_LENGTH:
        raise ValueError(f"the command {name} has {len(line)} bytes; the server takes {MAX_COMMAND_LENGTH} at most")
    return line


def split_text_command(line: str) -> tuple[str, list[str]]:
    """Split a line, as a person would write it, into the name of the command and its arguments.

    Raises:
        ValueError: the line does not start with one of `TEXT_COMMANDS`, or has more than `MAX_WORDS` words.
    """
    words = line.split()
    if len(words) > MAX_WORDS:
        raise ValueError(f"a text command has {MAX_WORDS} words at most, not {len(words)}")
    for length in range(1, len(words) + 1):
        name = " ".join(words[:length]).lower()
        if name in TEXT_COMMANDS:
            return name, words[length:]
    raise ValueError(f"{line!r} is not an administrative command; those are {', '.join(TEXT_COMMANDS)}")


def _word(command: str, label: str, value: str | bytes) -> bytes:
    if isinstance(value, str):
        # As listings are read, so that a name which is no UTF-8 can be given back as it was listed.
        word = value.encode("utf-8", "surrogateescape")
    elif isinstance(value, bytes):
        word = value
    else:
        raise TypeError(f"the {label} of {command} is {value!r}; it must be str or bytes")
    if not word:
        raise ValueError(f"the {label} of {command} is empty")
    if _SPLITS_WORDS.search(word):
        raise ValueError(
            f"the {label} of {command} is {value!r}; it must hold no white space and no NUL byte, "
            "which would make other words or another command of it"
        )
    return word


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


_NUMBERS = {count: re.compile(rb"(.*?)" + rb"\t(\d{1,20})" * count, re.DOTALL) for count in (3, 4)}


def _table(lines: list[bytes], count: int) -> Iterator[tuple[bytes, list[int]]]:
    """Yield a name and ``count`` numbers for each row of tab-separated columns.

    A name is written as its owner chose it, so tabs in it belong to it, and a newline in it makes two lines of the row.
    """
    parts: list[bytes] = []
    for line in lines:
        match = _NUMBERS[count].fullmatch(line)
        if match is None:
            parts.append(line)
            continue
        name, *numbers = match.groups()
        yield b"\n".join((*parts, name)), [int(number) for number in numbers]
        parts = []
    if parts:
        raise ProtocolError(f"the row {parts[0][:80]!r} lacks the {count} numbers of its kind")


_WORKER_START = re.compile(rb"-?\d+ \S+ ")
_WORKER = re.compile(rb"(-?\d+) (\S+) (.*)", re.DOTALL)


def _worker_rows(lines: list[bytes]) -> Iterator[bytes]:
    """Yield the rows of ``workers``. A newline in a client id makes two lines of a row."""
    parts: list[bytes] = []
    complete = False
    for line in lines:
        if complete and _WORKER_START.match(line):
            yield b"\n".join(parts)
            parts = []
            complete = False
        parts.append(line)
        complete = complete or b" :" in line
    if parts:
        yield b"\n".join(parts)


def _worker(row: bytes) -> WorkerRow:
    match = _WORKER.fullmatch(row)
    if match is None:
        raise ProtocolError(f"the row {row[:80]!r} is not one of the answer to workers")
    file_descriptor, ip, rest = match.groups()
    if rest.endswith(b" :"):
        client_id, tasks = rest[:-2], b""
    else:
        client_id, separator, tasks = rest.rpartition(b" : ")
        if not separator:
            raise ProtocolError(f"the row {row[:80]!r} lacks the colon between client id and functions")
    return WorkerRow(
        file_descriptor=_text(file_descriptor),
        ip=_text(ip),
        client_id=_text(client_id),
        tasks=tuple(_text(task) for task in tasks.split(b" ") if task),
    )
