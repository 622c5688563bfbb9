"""What a `FaultProxy` does with the bytes of one direction: hold them back, drop, flip, replace, or pass them on.

No sockets are made or closed here. Everything belongs to the proxy's thread.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from time import monotonic

from ..protocol.packets import HEADER_SIZE, REQ, RES

__all__ = ["Lane", "Pipe", "Rule"]

#: One direction of one connection holds about this many bytes back; then the proxy reads no more from its sender.
_BUFFER_LIMIT = 4 * 1024 * 1024

_READ_SIZE = 64 * 1024

#: A throttled connection sends a portion each so many seconds.
_PORTION_TIME = 0.02


class Lane:
    """The faults of one direction, over all connections."""

    def __init__(self, record: bytearray | None) -> None:
        self.record = record
        self.forwarded = 0
        self.reset()

    def reset(self) -> None:
        self.delay: float = 0.0
        self.rate: float | None = None
        self.swallowing = False
        self.cut_after: int | None = None
        self.flips: tuple[int, int] = (0, 0)

    def flip(self, data: bytes) -> bytes:
        """Return the bytes with those flipped that are to be."""
        skip, count = self.flips
        if not count:
            return data
        end = min(len(data), skip + count)
        bad = bytes(byte ^ 0xFF for byte in data[skip:end])
        self.flips = (max(0, skip - len(data)), count - len(bad))
        return data[:skip] + bad + data[end:] if bad else data


class Rule:
    """Packets of a command that are to be replaced; by nothing, if they are to be dropped."""

    def __init__(self, command: int, data: bytes, count: int, lanes: list[Lane]) -> None:
        self.command = command
        self.data = data
        self.count = count
        self.lanes = lanes


class Framer:
    """Follows one stream from packet to packet, and replaces those that a rule names."""

    def __init__(self, lane: Lane, rules: list[Rule]) -> None:
        self._lane = lane
        self._rules = rules
        self._injected = b""
        # The header that is just coming, and how much of it has been passed on.
        self._head = b""
        self._passed = 0
        # How much of a packet's body is still to come, and whether it is left out.
        self._left = 0
        self._dropping = False
        self._in_line = False
        self._opaque = False

    @property
    def between(self) -> bool:
        """Whether the stream stands between two packets."""
        return self._opaque or not (self._left or self._in_line or self._head)

    def inject(self, data: bytes) -> None:
        """Have these bytes put in at the next place between two packets."""
        self._injected += data

    def feed(self, data: bytes) -> bytes:
        """Return what is to be passed on for these bytes."""
        out = bytearray(self._take_injected())
        position = 0
        while position < len(data):
            position += self._step(data, position, out)
            out += self._take_injected()
        return bytes(out)

    def rest(self) -> bytes:
        """Return what was kept of an unfinished header, at the stream's end."""
        head, self._head = self._head[self._passed :], b""
        return head

    def _take_injected(self) -> bytes:
        if not self._injected or not self.between:
            return b""
        data, self._injected = self._injected, b""
        return data

    def _step(self, data: bytes, position: int, out: bytearray) -> int:
        """Take the next piece of a packet, line or header; return its length."""
        if self._opaque:
            piece = data[position:]
        elif self._left:
            piece = data[position : position + self._left]
            self._left -= len(piece)
            if self._dropping:
                return len(piece)
        elif self._in_line or (not self._head and data[position]):
            end = data.find(b"\n", position)
            self._in_line = end < 0
            piece = data[position:] if end < 0 else data[position : end + 1]
        else:
            return self._step_head(data, position, out)
        out += piece
        return len(piece)

    def _step_head(self, data: bytes, position: int, out: bytearray) -> int:
        piece = data[position : position + HEADER_SIZE - len(self._head)]
        self._head += piece
        if not (self._head.startswith((REQ, RES)) or REQ.startswith(self._head) or RES.startswith(self._head)):
            self._opaque = True
        elif len(self._head) == HEADER_SIZE:
            command, self._left = struct.unpack(">II", self._head[4:])
            rule = None if self._passed else self._rule(command)
            self._dropping = rule is not None
            if rule is not None:
                out += rule.data
                self._passed = HEADER_SIZE
        elif any(rule.count for rule in self._rules):
            # Not passed on before it is known whether a rule names it.
            return len(piece)
        out += self._head[self._passed :]
        self._passed = len(self._head)
        if self._opaque or len(self._head) == HEADER_SIZE:
            self._head, self._passed = b"", 0
        return len(piece)

    def _rule(self, command: int) -> Rule | None:
        for rule in self._rules:
            if rule.command == command and self._lane in rule.lanes:
                rule.count -= 1
                if not rule.count:
                    self._rules.remove(rule)
                return rule
        return None


class Pipe:
    """One direction of one connection: what has come from one socket and waits to go out of the other."""

    def __init__(self, lane: Lane, rules: list[Rule]) -> None:
        self.lane = lane
        self.ended: bool = False
        self.end_passed: bool = False
        self.blocked: bool = False
        self.forwarded: int = 0
        #: What `forwarded` was when a cut was armed.
        self.mark = 0
        self._framer = Framer(lane, rules)
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._portion = 0.0
        self._portion_time = monotonic()

    @property
    def wants_more(self) -> bool:
        """Whether its source should be read."""
        return not self.ended and self._held < _BUFFER_LIMIT

    @property
    def cut_due(self) -> bool:
        """Whether as much has passed as may before the connection is cut."""
        limit = self.lane.cut_after
        return limit is not None and self.forwarded - self.mark >= limit and (limit > 0 or bool(self._waiting))

    def inject(self, data: bytes) -> None:
        """Put in bytes that nobody sent."""
        self._framer.inject(data)
        self._put(self._framer.feed(b""))

    def receive(self, source: socket.socket) -> None:
        """Read what has come.

        Raises:
            OSError: the connection is broken.
        """
        try:
            data = source.recv(_READ_SIZE)
        except BlockingIOError:
            return
        self.ended = not data
        self._put(self._framer.feed(data) if data else self._framer.rest())

    def _put(self, data: bytes) -> None:
        if data and not self.lane.swallowing:
            self._waiting.append((monotonic(), self.lane.flip(data)))
            self._held += len(data)

    def send(self, sink: socket.socket, now: float) -> float | None:
        """Pass on what is due; return when more will be.

        Raises:
            OSError: the connection is broken.
        """
        self.blocked = False
        if self.lane.swallowing:
            self._waiting.clear()
            self._held = 0
            return None
        self._fill_portion(now)
        while self._waiting:
            came, data = self._waiting[0]
            if came + self.lane.delay > now:
                return came + self.lane.delay
            room = self._room(len(data))
            if not room:
                return None if self.cut_due else now + _PORTION_TIME
            try:
                sent = sink.send(data[:room])
            except BlockingIOError:
                sent = 0
            if not sent:
                self.blocked = True
                return None
            self._sent(data, sent)
        if self.ended and not self.end_passed:
            self.end_passed = True
            sink.shutdown(socket.SHUT_WR)
        return None

    def _fill_portion(self, now: float) -> None:
        rate = self.lane.rate
        if rate is not None:
            # One portion at the most: a connection that was idle must not make up for it.
            limit = max(1.0, rate * _PORTION_TIME)
            self._portion = min(limit, self._portion + rate * (now - self._portion_time))
        self._portion_time = now

    def _room(self, size: int) -> int:
        """Return how many of so many bytes may go out now."""
        if self.lane.rate is not None:
            size = min(size, int(self._portion))
        if self.lane.cut_after is not None:
            size = min(size, max(0, self.mark + self.lane.cut_after - self.forwarded))
        return size

    def _sent(self, data: bytes, sent: int) -> None:
        if sent < len(data):
            self._waiting[0] = (self._waiting[0][0], data[sent:])
        else:
            self._waiting.popleft()
        self._held -= sent
        self._portion -= sent
        self.forwarded += sent
        self.lane.forwarded += sent
        if self.lane.record is not None:
            self.lane.record += data[:sent]
