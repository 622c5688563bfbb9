"""What every peer of a server does: match replies to requests by their order.

gearmand answers the requests of one connection strictly in their order, and neither JOB_CREATED nor ERROR says which
request it answers. So a session keeps one line of what the server still owes, and any reply that does not fit the head
of that line means that the order is in doubt: the session raises `ProtocolError` and the connection must be closed.

Threads: see `ReplySession`. Nothing here reads a socket or a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from operator import itemgetter
from typing import Any

from ..errors import ProtocolError
from .commands import COMMANDS, Command
from .packets import DEFAULT_MAX_PACKET_SIZE, Body, Decoder, Packet, split_arguments
from .text import TEXT_BLOCK, TEXT_LINE, parse_error

__all__ = [
    "ACCEPTED",
    "ERROR",
    "NO_REPLY",
    "REPLY",
    "TEXT_BLOCK",
    "TEXT_LINE",
    "Entry",
    "Event",
    "Kind",
    "ReplySession",
    "error_of",
    "token_of",
]

#: What may stand as an entry's reply besides a command's number, TEXT_LINE and TEXT_BLOCK.
NO_REPLY = 0
#: A JOB_CREATED after which nothing more comes: the answer to a background job.
ACCEPTED = -3

#: A packet, the reply that must answer it, and whatever its sender wants back with that reply.
Entry = tuple[Packet, int, Any]

#: Return the token of an entry.
token_of: Callable[[Entry], Any] = itemgetter(2)


class Kind(IntEnum):
    """What an event tells, and what its value is. Only some sessions have some kinds.

    The events themselves hold plain numbers: comparing these costs half, and there are several for every job.
    """

    # Of all sessions. REPLY: the reply's arguments, a line, or the lines of a block. ERROR: (code, text).
    REPLY = 1
    ERROR = 2
    # Of clients, about a job. CREATED: the handle (str). STATUS: (numerator, denominator). DATA, WARNING, COMPLETE and
    # EXCEPTION: the payload. FAIL: None. LATE, which has no token: the number of a command for a job that has ended.
    CREATED = 3
    STATUS = 4
    DATA = 5
    WARNING = 6
    COMPLETE = 7
    FAIL = 8
    EXCEPTION = 9
    LATE = 10
    # Of workers. ASSIGNED: (handle, task, unique, data), all bytes. NOTHING: the server has no job. WOKEN, without a
    # token: the server may have jobs again. NOT_MINE, without a token: (code, text).
    ASSIGNED = 11
    NOTHING = 12
    WOKEN = 13
    NOT_MINE = 14


#: A `Kind`'s number, the token of the request that the event concerns (None if there is none), and a value.
Event = tuple[int, Any, Any]

REPLY = Kind.REPLY.value
ERROR = Kind.ERROR.value


class ReplySession:
    """The state machine of one connection on which replies are matched by order.

    ``order`` is the line of what the server still owes, oldest first. The transport appends an entry in the same step
    in
    which its bytes are put in line; `receive` takes entries off. ``deque`` makes both safe from two threads. All else
    belongs to the thread that calls `receive`.
    """

    __slots__ = ("_decoder", "failure", "handles", "order")

    def __init__(self, max_packet_size: int = DEFAULT_MAX_PACKET_SIZE) -> None:
        self.order: deque[Entry] = deque()
        #: Accepted, unfinished jobs, by handle; any thread may ask for its length.
        self.handles: dict[str, Any] = {}
        #: Why the session is unusable, if it is.
        self.failure: ProtocolError | None = None
        self._decoder = Decoder(max_packet_size)

    def greeting(self) -> list[Entry]:
        """Return what must be sent first on a new connection."""
        return []

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the server and return what they mean, in order.

        What came before bytes that break the protocol still counts: it is returned, `failure` is set, and the next call
        raises it. So the events do not depend on the pieces in which the bytes come.

        Raises:
            ProtocolError: the bytes break the protocol. The session is then unusable: close the connection. If this
                raises anything else, that is a bug.
        """
        if self.failure is not None:
            raise self.failure
        events: list[Event] = []
        try:
            self._parse(data, events)
        except ProtocolError as error:
            self.failure = error
            if not events:
                raise
        return events

    def room(self) -> memoryview | None:
        """Return where the next bytes of a large payload can be received into, or None if none is arriving."""
        return self._decoder.room()

    def filled(self, count: int) -> list[Event]:
        """Take bytes that were received into `room`; otherwise as `receive`."""
        return self.receive(b"") if self._decoder.filled(count) else []

    def _parse(self, data: bytes, events: list[Event]) -> None:
        """Add to ``events`` what the bytes mean, up to the first that breaks the protocol."""
        self._decoder.feed(data)
        for command, body in self._decoder.packets():
            self._reply(command, body, events)
        self._check_line()

    def abandon(self) -> list[Any]:
        """Forget everything and return the tokens of jobs that were accepted and are not finished."""
        self.order.clear()
        return []

    def _reply(self, command: int, body: Any, events: list[Event]) -> None:
        """Match a reply with the request at the head of the line."""
        try:
            _, expected, token = self.order[0]
        except IndexError:
            raise ProtocolError(f"{_name(command)} came though no request was waiting for a reply") from None
        if expected == command:
            events.append((REPLY, token, split_arguments(command, body)))
        elif command == Command.ERROR:
            events.append((ERROR, token, error_of(body)))
        elif command == Command.TEXT and expected < 0:
            if not self._text(expected, token, body, events):
                return
        else:
            raise ProtocolError(
                f"{_name(command)} came where {_name(expected)} was due: the order of replies is in doubt"
            )
        self.order.popleft()

    def _check_line(self) -> None:
        """Refuse a line whose first bytes have come though no text is due: garbage may never have a line end."""
        if not self._decoder.in_line:
            return
        expected = self.order[0][1] if self.order else NO_REPLY
        if expected not in (TEXT_LINE, TEXT_BLOCK):
            due = f"where {_name(expected)} was due" if expected else "though no request was waiting for a reply"
            raise ProtocolError(f"bytes that start no packet came {due}: the order of replies is in doubt")

    def _text(self, expected: int, token: Any, line: bytes, events: list[Event]) -> bool:
        """Take a line of text; return whether the answer is complete."""
        if expected != TEXT_LINE:
            raise ProtocolError(f"a line of text came where {_name(expected)} was due")
        error = parse_error(line)
        events.append((ERROR, token, error) if error else (REPLY, token, line))
        return True


def error_of(body: Body) -> tuple[str, str]:
    """Return the code and the text of an ERROR packet."""
    code, text = split_arguments(Command.ERROR, body)
    return code.decode("utf-8", "replace"), text.rstrip(b"\0").decode("utf-8", "replace")


_PSEUDO = {
    NO_REPLY: "a line of text",
    TEXT_LINE: "a line of text",
    TEXT_BLOCK: "lines of text",
    ACCEPTED: "JOB_CREATED",
}


def _name(command: int) -> str:
    return COMMANDS[command].name if command in COMMANDS else _PSEUDO.get(command, str(command))
