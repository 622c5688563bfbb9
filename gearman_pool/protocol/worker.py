"""The worker's state machine for one connection: replies by order, jobs that are assigned, and when to sleep.

A worker asks for a job with GRAB_JOB_UNIQ and is answered with JOB_ASSIGN_UNIQ or NO_JOB, in the order of its
questions. After NO_JOB it says PRE_SLEEP, and the server wakes it with NOOP. An ERROR is never the answer to a
question of a worker's: it says that a job which the worker sent something for is not its own any more, and may come
between any two replies.

Threads: see `ReplySession`. Nothing here reads a socket or a clock, and no task is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import ProtocolError
from .commands import Command
from .packets import DEFAULT_MAX_PACKET_SIZE, pack, split_arguments
from .session import NO_REPLY, REPLY, TEXT_LINE, Entry, Event, Kind, ReplySession, error_of

__all__ = ["ASSIGNED", "NOTHING", "NOT_MINE", "WOKEN", "WorkerSession"]

ASSIGNED = Kind.ASSIGNED.value
NOTHING = Kind.NOTHING.value
WOKEN = Kind.WOKEN.value
NOT_MINE = Kind.NOT_MINE.value

_GRAB = pack(Command.GRAB_JOB_UNIQ)
_PRE_SLEEP = pack(Command.PRE_SLEEP)
_ASSIGN_UNIQ = Command.JOB_ASSIGN_UNIQ.value
_ASSIGN = Command.JOB_ASSIGN.value
_NO_JOB = Command.NO_JOB.value
_NOOP = Command.NOOP.value
_ERROR = Command.ERROR.value


class WorkerSession(ReplySession):
    """What a worker's connection knows.

    Attributes:
        abilities: The tasks that the server was told of, by their names on the wire, with their time limits in
            milliseconds (0 for none). gearmand counts a CAN_DO that is sent twice twice, so each is sent once.
    """

    __slots__ = ("_greeting", "abilities")

    def __init__(
        self,
        max_packet_size: int = DEFAULT_MAX_PACKET_SIZE,
        client_id: bytes | None = None,
        abilities: Iterable[tuple[bytes, int]] = (),
    ) -> None:
        super().__init__(max_packet_size)
        self.abilities: dict[bytes, int] = {}
        self._greeting = [self.client_id(client_id)] if client_id else []
        self._greeting += [self.can_do(task, limit) for task, limit in abilities]

    def greeting(self) -> list[Entry]:
        """Say who this is and what it can do."""
        return list(self._greeting)

    @staticmethod
    def client_id(client_id: bytes) -> Entry:
        """Say what the worker is to be called in the server's list."""
        return pack(Command.SET_CLIENT_ID, client_id), NO_REPLY, None

    def can_do(self, task: bytes, limit: int = 0) -> Entry:
        """Tell the server of a task; ``limit`` is in milliseconds, and 0 means none."""
        self.abilities[task] = limit
        if limit:
            return pack(Command.CAN_DO_TIMEOUT, task, str(limit).encode()), NO_REPLY, None
        return pack(Command.CAN_DO, task), NO_REPLY, None

    def cant_do(self, task: bytes) -> Entry:
        """Take a task back. gearmand gives a job of it that runs here to another worker."""
        del self.abilities[task]
        return pack(Command.CANT_DO, task), NO_REPLY, None

    @staticmethod
    def grab(token: Any) -> Entry:
        """Ask for a job. Any thread may."""
        return _GRAB, _ASSIGN_UNIQ, token

    @staticmethod
    def sleep() -> Entry:
        """Ask to be woken when there are jobs."""
        return _PRE_SLEEP, NO_REPLY, None

    def _parse(self, data: bytes, events: list[Event]) -> None:
        self._decoder.feed(data)
        for command, body in self._decoder.packets():
            if command == _ASSIGN_UNIQ:
                parts = body.split(b"\0", 3)
                if len(parts) != 4:
                    raise ProtocolError("JOB_ASSIGN_UNIQ came without all its arguments")
                events.append((ASSIGNED, self._grabbed(command, events), tuple(parts)))
            elif command == _NO_JOB:
                events.append((NOTHING, self._grabbed(command, events), None))
            elif command == _NOOP:
                events.append((WOKEN, None, None))
            elif command == _ERROR:
                events.append((NOT_MINE, None, error_of(body)))
            elif command == _ASSIGN:
                handle, task, payload = split_arguments(command, body)
                events.append((ASSIGNED, self._grabbed(command, events), (handle, task, b"", payload)))
            else:
                self._reply(command, body, events)
        self._check_line()

    def _grabbed(self, command: int, events: list[Event]) -> Any:
        """Take the question off the line that this answers, and return its token."""
        self._skip_text(events)
        if not self.order or self.order[0][1] != _ASSIGN_UNIQ:
            raise ProtocolError(f"{Command(command).name} came though it was not asked for")
        return self.order.popleft()[2]

    def _reply(self, command: int, body: bytes, events: list[Event]) -> None:
        if command != Command.TEXT:
            self._skip_text(events)
        super()._reply(command, body, events)

    def _skip_text(self, events: list[Event]) -> None:
        # Not every server answers the text command ``version``; the answer to what came after it tells.
        while self.order and self.order[0][1] == TEXT_LINE:
            events.append((REPLY, self.order.popleft()[2], b""))
