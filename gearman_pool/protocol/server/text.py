"""The server's half of the administrative text commands, with gearmand's answers and line ends.

One thread at a time may use it, as the server whose state it reads and changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..limits import MAX_WORDS
from .queues import JobTable

__all__ = ["Serves", "answer_text"]

_OK = b"OK\r\n"


class Listed(Protocol):
    """What is told of a connection."""

    number: int
    host: str
    client_id: bytes
    abilities: dict[bytes, float | None]


class Serves(Protocol):
    """What the commands ask of a server."""

    table: JobTable[Any]
    version: str
    pid: int

    @property
    def peers(self) -> Mapping[Any, Listed]: ...

    def cancel(self, handle: bytes, /) -> bool: ...


def answer_text(server: Serves, line: bytes) -> bytes | None:
    """Return the answer to a line, line end included; None if the connection is to be closed."""
    words = line.split()
    if len(words) > MAX_WORDS:
        return None
    for length in (3, 2, 1):
        name = b" ".join(words[:length]).lower()
        if len(words) >= length and name in _COMMANDS:
            return _COMMANDS[name](server, words[length:])
    return _refusal(b"UNKNOWN_COMMAND", b"Unknown+server+command" + b"+".join(words[:1]))


def _refusal(code: bytes, text: bytes) -> bytes:
    return b"ERR %s %s\r\n" % (code, text)


def _block(rows: list[bytes]) -> bytes:
    return b"".join([row + b"\n" for row in rows]) + b".\n"


def _status(server: Serves, words: list[bytes]) -> bytes:
    functions = server.table.functions.values()
    return _block([b"%s\t%d\t%d\t%d" % (f.name, f.total, f.running, len(f.workers)) for f in functions])


def _priority_status(server: Serves, words: list[bytes]) -> bytes:
    rows = []
    for function in server.table.functions.values():
        high, normal, low = function.waiting
        rows.append(b"%s\t%d\t%d\t%d\t%d" % (function.name, high, normal, low, len(function.workers)))
    return _block(rows)


def _workers(server: Serves, words: list[bytes]) -> bytes:
    rows = []
    for peer in server.peers.values():
        tasks = b"".join([b" " + task for task in peer.abilities])
        rows.append(b"%d %s %s :%s" % (peer.number, peer.host.encode(), peer.client_id, tasks))
    return _block(rows)


def _show_jobs(server: Serves, words: list[bytes]) -> bytes:
    jobs = server.table.jobs.values()
    return _block([b"%s\t%d\t%d\t%d" % (j.handle, j.retries, not j.wanted, j.background) for j in jobs])


def _show_unique_jobs(server: Serves, words: list[bytes]) -> bytes:
    return _block([job.unique for job in server.table.jobs.values()])


def _show(server: Serves, words: list[bytes]) -> bytes:
    if not words:
        return _refusal(b"UNKNOWN_COMMAND", b"Unknown+server+command+show")
    return _refusal(b"UNKNOWN_SHOW_ARGUMENTS", b"Unknown+show+arguments")


def _version(server: Serves, words: list[bytes]) -> bytes:
    return b"OK %s\n" % server.version.encode()


def _verbose(server: Serves, words: list[bytes]) -> bytes:
    return b"OK ERROR\n"


def _getpid(server: Serves, words: list[bytes]) -> bytes:
    return b"OK %d\n" % server.pid


def _cancel_job(server: Serves, words: list[bytes]) -> bytes:
    if not words:
        return _refusal(b"UNKNOWN_COMMAND", b"Unknown+server+command+cancel")
    return _OK if server.cancel(words[0]) else _refusal(b"UNKNOWN_JOB", b"Unknown+job")


def _create_function(server: Serves, words: list[bytes]) -> bytes:
    if not words:
        return _refusal(b"INCOMPLETE_ARGS", b"An+incomplete+set+of+arguments+was+sent")
    server.table.function(words[0])
    return _OK


def _drop_function(server: Serves, words: list[bytes]) -> bytes:
    if not words:
        return _refusal(b"INCOMPLETE_ARGS", b"An+incomplete+set+of+arguments+was+sent")
    function = server.table.functions.get(words[0])
    if function is None:
        return b"ERR function not found\r\n"
    if function.workers or function.total:
        return b"ERR there are still connected workers or executing clients\r\n"
    del server.table.functions[words[0]]
    return _OK


def _max_queue(server: Serves, words: list[bytes]) -> bytes:
    if not words:
        return _refusal(b"INVALID_ARGUMENTS", b"No+function+was+given")
    try:
        sizes = [max(0, int(word)) for word in words[1:]]
    except ValueError:
        return _refusal(b"INVALID_ARGUMENTS", b"A+size+is+no+number")
    function = server.table.functions.get(words[0])
    if function is not None:
        # One size is for all priorities; of several, those left out have no limit.
        function.limits = sizes * 3 if len(sizes) == 1 else [*sizes, 0, 0, 0][:3]
    return _OK


_COMMANDS: dict[bytes, Callable[[Serves, list[bytes]], bytes]] = {
    b"status": _status,
    b"prioritystatus": _priority_status,
    b"workers": _workers,
    b"show jobs": _show_jobs,
    b"show unique jobs": _show_unique_jobs,
    b"show": _show,
    b"version": _version,
    b"verbose": _verbose,
    b"getpid": _getpid,
    b"cancel job": _cancel_job,
    b"create function": _create_function,
    b"drop function": _drop_function,
    b"maxqueue": _max_queue,
}
