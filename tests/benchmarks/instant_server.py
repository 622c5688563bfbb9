"""instant_server.c's twin in asyncio, for machines without a compiler.

Usage: ``python -m tests.benchmarks.instant_server LAG``. It is slower than a good client, so figures
measured on it tell about the server as well; the table says which was used.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections import deque

__all__ = ["main"]

_HEADER = struct.Struct(">4sII")
_FOREGROUND = frozenset({7, 21, 33})
_BACKGROUND = frozenset({18, 32, 34, 36})
_SUBMIT_JOB_EPOCH = 36
_LINES = {b"version": b"OK 1.1.20\n", b"status": b".\n"}


class _Counts:
    def __init__(self, lag: int) -> None:
        self.lag = lag
        self.jobs = 0
        self.echoes = 0


def _reply(command: int, body: bytes) -> bytes:
    return _HEADER.pack(b"\0RES", command, len(body)) + body


class _Connection(asyncio.Protocol):
    def __init__(self, counts: _Counts) -> None:
        self._counts = counts
        self._input = bytearray()
        self._held: deque[bytes] = deque()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._input += data
        out: list[bytes] = []
        position = 0
        buffer = self._input
        try:
            while position < len(buffer):
                end = self._one(buffer, position, out)
                if end is None:
                    break
                position = end
        except ValueError:
            self._transport.close()
        del buffer[:position]
        self._transport.write(b"".join(out))

    def _one(self, buffer: bytearray, start: int, out: list[bytes]) -> int | None:
        """Handle the packet or line at ``start`` and return where it ends, or None if it is not there whole."""
        if buffer[start]:
            newline = buffer.find(b"\n", start)
            if newline < 0:
                return None
            out.append(self._line(bytes(buffer[start:newline]).rstrip(b"\r")))
            return newline + 1
        if len(buffer) - start < _HEADER.size:
            return None
        magic, command, size = _HEADER.unpack_from(buffer, start)
        end: int = start + _HEADER.size + size
        if magic != b"\0REQ":
            raise ValueError(magic)
        if len(buffer) < end:
            return None
        self._packet(command, bytes(buffer[start + _HEADER.size : end]), out)
        return end

    def _line(self, line: bytes) -> bytes:
        if line == b"echoes":
            return b"OK %d\n" % self._counts.echoes
        return _LINES.get(line, b"ERR UNKNOWN_COMMAND Unknown+server+command\r\n")

    def _packet(self, command: int, body: bytes, out: list[bytes]) -> None:
        if command in _FOREGROUND or command in _BACKGROUND:
            self._submit(command, body, out)
        elif command == 16:
            self._counts.echoes += 1
            out.append(_reply(17, body))
        elif command == 26:
            out.append(_reply(27, body))
        elif command == 15:
            out.append(_reply(20, body + b"\x001\x001\x000\x000"))
        elif command == 41:
            out.append(_reply(42, body + b"\x001\x001\x000\x000\x001"))
        else:
            out.append(_reply(19, b"INVALID_COMMAND\0Command not expected"))

    def _submit(self, command: int, body: bytes, out: list[bytes]) -> None:
        arguments = 3 if command == _SUBMIT_JOB_EPOCH else 2
        payload = body.split(b"\0", arguments)[arguments:]
        if not payload:
            raise ValueError(body)
        self._counts.jobs += 1
        handle = b"H:bench:%d" % self._counts.jobs
        out.append(_reply(8, handle))
        if command not in _FOREGROUND or self._counts.lag < 0:
            return
        self._held.append(_reply(13, handle + b"\0" + payload[0]))
        if len(self._held) > self._counts.lag:
            out.append(self._held.popleft())


async def _serve(lag: int) -> None:
    loop = asyncio.get_running_loop()
    counts = _Counts(lag)
    server = await loop.create_server(lambda: _Connection(counts), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Ends with its input, like its twin.
    ended = asyncio.Event()

    def read_input() -> None:
        if not os.read(sys.stdin.fileno(), 1):
            ended.set()

    loop.add_reader(sys.stdin.fileno(), read_input)
    await ended.wait()


def main(lag: int) -> None:
    """Serve until standard input ends."""
    asyncio.run(_serve(lag))


if __name__ == "__main__":
    main(int(sys.argv[1]))
