"""The admin client's state machine for one connection: replies by order, and blocks of text put together.

Threads: see `ReplySession`. Nothing here reads a socket or a clock.
"""

from __future__ import annotations

from typing import Any

from ..errors import ProtocolError
from .commands import Command
from .packets import DEFAULT_MAX_PACKET_SIZE
from .session import ERROR, REPLY, Event, ReplySession
from .text import TEXT_BLOCK, parse_error

__all__ = ["AdminSession"]


class AdminSession(ReplySession):
    """What an admin client's connection knows: the line of replies due, and the block that is just arriving.

    The reply to an entry of ``TEXT_LINE`` is the line; that to one of ``TEXT_BLOCK`` is the list of the block's lines,
    without the ``.`` that ends it. A line ``ERR ...`` in place of either is an ERROR event. Within a block no error can
    come, so a row that reads like one is a row; a first row like that is taken for an error unless it has columns.
    """

    __slots__ = ("_lines", "_max_size", "_size")

    def __init__(self, max_packet_size: int = DEFAULT_MAX_PACKET_SIZE) -> None:
        super().__init__(max_packet_size)
        self._max_size = max_packet_size
        self._lines: list[bytes] = []
        self._size = 0

    def abandon(self) -> list[Any]:
        """Forget everything; an admin client has no jobs, so there is nothing to return."""
        self._lines = []
        self._size = 0
        return super().abandon()

    def _reply(self, command: int, body: bytes, events: list[Event]) -> None:
        if self._lines and command != Command.TEXT:
            raise ProtocolError(f"command {command} came in the middle of a block of text")
        super()._reply(command, body, events)

    def _text(self, expected: int, token: Any, line: bytes, events: list[Event]) -> bool:
        if expected != TEXT_BLOCK:
            return super()._text(expected, token, line, events)
        error = None if self._lines else parse_error(line, coded=True)
        if error:
            events.append((ERROR, token, error))
        elif line == b".":
            events.append((REPLY, token, self._lines))
            self._lines = []
            self._size = 0
        else:
            self._add(line)
            return False
        return True

    def _add(self, line: bytes) -> None:
        # Each line costs memory besides its bytes, empty ones too.
        self._size += len(line) + 1
        if self._size > self._max_size:
            raise ProtocolError(f"a block of text longer than max_packet_size, {self._max_size} bytes, came")
        self._lines.append(line)
