"""The client's state machine for one connection: replies by order, job updates by handle.

Threads: see `ReplySession`. Nothing here reads a socket or a clock, and no future is touched: events carry the tokens
that came with the requests.
"""

from __future__ import annotations

from typing import Any

from ..errors import ProtocolError
from .commands import Command
from .packets import DEFAULT_MAX_PACKET_SIZE, pack
from .session import ACCEPTED, Entry, Event, Kind, ReplySession
from .values import number

__all__ = [
    "COMPLETE",
    "CREATED",
    "DATA",
    "EXCEPTION",
    "FAIL",
    "LATE",
    "STATUS",
    "WARNING",
    "ClientSession",
    "submit_reply",
]

CREATED = Kind.CREATED.value
STATUS = Kind.STATUS.value
DATA = Kind.DATA.value
WARNING = Kind.WARNING.value
COMPLETE = Kind.COMPLETE.value
FAIL = Kind.FAIL.value
EXCEPTION = Kind.EXCEPTION.value
LATE = Kind.LATE.value

_CREATED = Command.JOB_CREATED.value
_COMPLETE = Command.WORK_COMPLETE.value
_UPDATES = {
    Command.WORK_DATA.value: DATA,
    Command.WORK_WARNING.value: WARNING,
    Command.WORK_COMPLETE.value: COMPLETE,
    Command.WORK_EXCEPTION.value: EXCEPTION,
}
_FINAL = frozenset((COMPLETE, FAIL, EXCEPTION))

#: For so many jobs that nobody waits for any more it is kept how many copies of their packets the server still sends:
#: a job of the same unique that joins one of them must not take these for its own.
_FORGOTTEN_LIMIT = 1000
_EXCEPTIONS = b"exceptions"


def submit_reply(background: bool) -> int:
    """Return what to expect as the reply to a job's submission."""
    return ACCEPTED if background else _CREATED


class _Group:
    """Several jobs behind one handle: submits of one unique on one connection.

    gearmand sends every packet of such a job once for each submit. The copies arrive one behind the other, so the
    n-th copy goes to the n-th job, and each job sees each update once. A token of None is a job nobody waits for any
    more; it still takes its copies.
    """

    __slots__ = ("next", "tokens")

    def __init__(self, *tokens: Any) -> None:
        self.tokens: list[Any] = list(tokens)
        self.next = 0

    def take(self, final: bool) -> Any:
        """Return the token that this copy of a packet belongs to."""
        if final:
            self.next = 0
            return self.tokens.pop(0)
        token = self.tokens[self.next]
        self.next = (self.next + 1) % len(self.tokens)
        return token


class ClientSession(ReplySession):
    """What a client's connection knows: the line of replies due, and the accepted jobs by handle.

    A handle means nothing without its connection: servers on one host, and one server before and after a restart,
    give out the same ones.
    """

    __slots__ = ("_exceptions", "_forgotten")

    def __init__(self, max_packet_size: int = DEFAULT_MAX_PACKET_SIZE, exceptions: bool = True) -> None:
        super().__init__(max_packet_size)
        self._exceptions = exceptions
        # How many copies of its packets come for a job that nobody waits for any more, by handle, oldest first.
        self._forgotten: dict[str, int] = {}

    def greeting(self) -> list[Entry]:
        """Ask for WORK_EXCEPTION packets: without the option gearmand turns them into WORK_FAIL without a text."""
        if not self._exceptions:
            return []
        return [(pack(Command.OPTION_REQ, _EXCEPTIONS), Command.OPTION_RES, None)]

    def accepted(self) -> list[tuple[str, Any]]:
        """Return (handle, token) of every accepted, unfinished foreground job."""
        pairs: list[tuple[str, Any]] = []
        for handle, holder in self.handles.items():
            if type(holder) is _Group:
                pairs.extend((handle, token) for token in holder.tokens if token is not None)
            else:
                pairs.append((handle, holder))
        return pairs

    def find(self, handle: str) -> Any:
        """Return the token of an accepted, unfinished foreground job, or None."""
        holder = self.handles.get(handle)
        if type(holder) is _Group:
            return next((token for token in holder.tokens if token is not None), None)
        return holder

    def abandon(self) -> list[Any]:
        """Forget everything and return the tokens of accepted, unfinished foreground jobs."""
        tokens = [token for _, token in self.accepted()]
        self.handles.clear()
        self.order.clear()
        return tokens

    def forget(self, handle: str, token: Any) -> None:
        """Nobody waits for this job any more. What still comes for it is reported as LATE."""
        holder = self.handles.get(handle)
        if type(holder) is _Group:
            holder.tokens[:] = [None if other is token else other for other in holder.tokens]
            if not any(other is not None for other in holder.tokens):
                self._drop(handle, len(holder.tokens))
        elif holder is not None and holder is token:
            self._drop(handle, 1)

    def shares(self, handle: str) -> bool:
        """Whether more than one job of this connection waits for that handle."""
        holder = self.handles.get(handle)
        return type(holder) is _Group and sum(token is not None for token in holder.tokens) > 1

    def _drop(self, handle: str, copies: int) -> None:
        del self.handles[handle]
        self._forgotten[handle] = copies
        if len(self._forgotten) > _FORGOTTEN_LIMIT:
            del self._forgotten[next(iter(self._forgotten))]

    def _parse(self, data: bytes, events: list[Event]) -> None:
        decoder = self._decoder
        decoder.feed(data)
        order = self.order
        handles = self.handles
        # The two packets that every job has are handled here, without a call: this loop costs every job.
        for command, body in decoder.packets():
            if command == _CREATED and order:
                _, expected, token = order[0]
                if expected == _CREATED:
                    handle = str(body, "utf-8", "surrogateescape")
                    if handle in handles or handle in self._forgotten:
                        self._join(handle, token)
                    else:
                        handles[handle] = token
                    events.append((CREATED, token, handle))
                elif expected == ACCEPTED:
                    events.append((CREATED, token, str(body, "utf-8", "surrogateescape")))
                else:
                    self._reply(command, body, events)
                    continue
                order.popleft()
            elif command == _COMPLETE:
                name, separator, payload = body.partition(b"\0")
                if not separator:
                    raise ProtocolError("WORK_COMPLETE came without a payload")
                handle = str(name, "utf-8", "surrogateescape")
                holder = handles.get(handle)
                if holder is None or type(holder) is _Group:
                    self._update(COMPLETE, handle, payload, command, events)
                else:
                    del handles[handle]
                    events.append((COMPLETE, holder, payload))
            elif command in _UPDATES:
                name, separator, payload = body.partition(b"\0")
                if not separator:
                    raise ProtocolError(f"{Command(command).name} came without a payload")
                self._update(_UPDATES[command], str(name, "utf-8", "surrogateescape"), payload, command, events)
            elif command == Command.WORK_FAIL:
                # gearmand ends the handle with a NUL when it makes this packet of a WORK_EXCEPTION.
                self._update(FAIL, str(body.rstrip(b"\0"), "utf-8", "surrogateescape"), None, command, events)
            elif command == Command.WORK_STATUS:
                parts = body.split(b"\0", 2)
                if len(parts) != 3:
                    raise ProtocolError("WORK_STATUS came without its numbers")
                value = (number(parts[1]), number(parts[2]))
                self._update(STATUS, str(parts[0], "utf-8", "surrogateescape"), value, command, events)
            else:
                self._reply(command, body, events)
        self._check_line()

    def _join(self, handle: str, token: Any) -> None:
        holder = self.handles.get(handle)
        if holder is None:
            # After those that nobody waits for, whose copies come first.
            holder = self.handles[handle] = _Group(*[None] * self._forgotten.pop(handle))
        elif type(holder) is not _Group:
            holder = self.handles[handle] = _Group(holder)
        holder.tokens.append(token)

    def _update(self, kind: int, handle: str, value: Any, command: int, events: list[Event]) -> None:
        holder = self.handles.get(handle)
        if holder is None:
            # A late packet of a job that was given up, timed out or cancelled: normal, and never an error.
            events.append((LATE, None, command))
            if kind in _FINAL and self._forgotten.get(handle, 0) > 1:
                self._forgotten[handle] -= 1
            elif kind in _FINAL:
                self._forgotten.pop(handle, None)
            return
        final = kind in _FINAL
        if type(holder) is _Group:
            token = holder.take(final)
            if final and not any(other is not None for other in holder.tokens):
                copies = len(holder.tokens)
                if copies:
                    self._drop(handle, copies)
                else:
                    del self.handles[handle]
        else:
            token = holder
            if final:
                del self.handles[handle]
        events.append((LATE, None, command) if token is None else (kind, token, value))
