"""A minimal Gearman peer on a raw socket, independent of the library's own code."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from typing_extensions import Self

__all__ = [
    "CANT_DO",
    "CAN_DO",
    "CAN_DO_TIMEOUT",
    "Closed",
    "ECHO_REQ",
    "ECHO_RES",
    "ERROR",
    "GET_STATUS",
    "GRAB_JOB",
    "GRAB_JOB_ALL",
    "GRAB_JOB_UNIQ",
    "JOB_ASSIGN",
    "JOB_ASSIGN_ALL",
    "JOB_ASSIGN_UNIQ",
    "JOB_CREATED",
    "NOOP",
    "NO_JOB",
    "OPTION_REQ",
    "OPTION_RES",
    "PRE_SLEEP",
    "Packet",
    "RESET_ABILITIES",
    "RawConnection",
    "SET_CLIENT_ID",
    "STATUS_RES",
    "SUBMIT_JOB",
    "SUBMIT_JOB_BG",
    "SUBMIT_JOB_HIGH",
    "SUBMIT_JOB_HIGH_BG",
    "SUBMIT_JOB_LOW",
    "SUBMIT_JOB_LOW_BG",
    "SUBMIT_REDUCE_JOB",
    "SUBMIT_REDUCE_JOB_BACKGROUND",
    "WORK_COMPLETE",
    "WORK_DATA",
    "WORK_EXCEPTION",
    "WORK_FAIL",
    "WORK_STATUS",
    "WORK_WARNING",
    "pack",
    "pack_response",
]

CAN_DO = 1
CANT_DO = 2
RESET_ABILITIES = 3
PRE_SLEEP = 4
NOOP = 6
SUBMIT_JOB = 7
JOB_CREATED = 8
GRAB_JOB = 9
NO_JOB = 10
JOB_ASSIGN = 11
WORK_STATUS = 12
WORK_COMPLETE = 13
WORK_FAIL = 14
GET_STATUS = 15
ECHO_REQ = 16
ECHO_RES = 17
SUBMIT_JOB_BG = 18
ERROR = 19
STATUS_RES = 20
SUBMIT_JOB_HIGH = 21
SET_CLIENT_ID = 22
CAN_DO_TIMEOUT = 23
WORK_EXCEPTION = 25
OPTION_REQ = 26
OPTION_RES = 27
WORK_DATA = 28
WORK_WARNING = 29
GRAB_JOB_UNIQ = 30
JOB_ASSIGN_UNIQ = 31
SUBMIT_JOB_HIGH_BG = 32
SUBMIT_JOB_LOW = 33
SUBMIT_JOB_LOW_BG = 34
SUBMIT_REDUCE_JOB = 37
SUBMIT_REDUCE_JOB_BACKGROUND = 38
GRAB_JOB_ALL = 39
JOB_ASSIGN_ALL = 40


class Closed(Exception):
    """The peer closed the connection (or reset it)."""


class Packet(NamedTuple):
    """One binary packet as it came: ``magic`` is REQ or RES, ``body`` is everything after the header."""

    magic: bytes
    command: int
    body: bytes

    def arguments(self, count: int) -> list[bytes]:
        """The body cut at its first ``count - 1`` NULs."""
        return self.body.split(b"\0", count - 1)


def pack(command: int, *arguments: bytes) -> bytes:
    """A request packet (client or worker to server)."""
    return _pack(b"\0REQ", command, arguments)


def pack_response(command: int, *arguments: bytes) -> bytes:
    """A response packet (server to client or worker), for tests that play the server."""
    return _pack(b"\0RES", command, arguments)


def _pack(magic: bytes, command: int, arguments: tuple[bytes, ...]) -> bytes:
    body = b"\0".join(arguments)
    return magic + struct.pack(">II", command, len(body)) + body


class RawConnection:
    """A blocking connection that sends and reads whole packets and text lines.

    ``timeout`` (seconds) bounds each read: past it TimeoutError is raised. Use it as a context manager. One thread
    may send while another reads; nothing else is shared.
    """

    def __init__(self, address: tuple[str, int], timeout: float = 10.0) -> None:
        self.sock = socket.create_connection(address, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    @classmethod
    def adopt(cls, sock: socket.socket, timeout: float | None = 10.0) -> RawConnection:
        """Wrap a socket that is connected already, such as one from ``accept``."""
        connection = cls.__new__(cls)
        sock.settimeout(timeout)
        connection.sock = sock
        connection._buffer = bytearray()
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a thread that is blocked in a read gets Closed."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def send(self, command: int, *arguments: bytes) -> None:
        """Send one request packet."""
        self.sock.sendall(pack(command, *arguments))

    def receive(self, timeout: float | None = None) -> Packet:
        """The next packet; ``timeout`` replaces the connection's own from now on. Raises Closed at the end."""
        if timeout is not None:
            self.sock.settimeout(timeout)
        self._fill(12)
        magic, command, size = struct.unpack(">4sII", self._buffer[:12])
        self._fill(12 + size)
        body = bytes(self._buffer[12 : 12 + size])
        del self._buffer[: 12 + size]
        return Packet(magic, command, body)

    def expect(self, command: int, timeout: float | None = None) -> Packet:
        """The next packet, which must be of this command."""
        packet = self.receive(timeout)
        assert packet.command == command, f"expected command {command}, got {packet}"
        return packet

    def request(self, command: int, *arguments: bytes) -> Packet:
        """Send a packet and read the next one that comes."""
        self.send(command, *arguments)
        return self.receive()

    def submit(self, function: str, data: bytes, unique: bytes = b"", command: int = SUBMIT_JOB) -> bytes:
        """Submit a job and return its handle, once the server has accepted it."""
        self.send(command, function.encode(), unique, data)
        return self.expect(JOB_CREATED).body

    def run(self, function: str, data: bytes, unique: bytes = b"") -> list[Packet]:
        """Submit a foreground job and return its packets up to the final one, which is the last of the list."""
        handle = self.submit(function, data, unique)
        packets: list[Packet] = []
        while not packets or packets[-1].command not in (WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION):
            packet = self.receive()
            if packet.body.split(b"\0", 1)[0] == handle:
                packets.append(packet)
        return packets

    def call(self, function: str, data: bytes, unique: bytes = b"") -> bytes:
        """The result of a foreground job, which must complete."""
        final = self.run(function, data, unique)[-1]
        assert final.command == WORK_COMPLETE, f"expected WORK_COMPLETE, got {final}"
        return final.body.split(b"\0", 1)[1]

    def next_is_text(self) -> bool:
        """Whether what comes next is a line of text and not a packet; waits for its first byte."""
        self._fill(1)
        return self._buffer[:1] != b"\0"

    def line(self) -> bytes:
        """The next line of text, without its end."""
        while b"\n" not in self._buffer:
            self._read()
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        return line.rstrip(b"\r")

    def text(self, command: str, block: bool | None = None) -> str:
        """Send a text command and return its answer, without the "." that ends a block.

        ``block`` says whether the answer is a block; by default it is for status, prioritystatus, workers and show.
        """
        self.sock.sendall(command.encode() + b"\r\n")
        if block is None:
            block = command.lower().startswith(("status", "prioritystatus", "workers", "show"))
        lines = [self.line()]
        while block and lines[-1] != b"." and not lines[0].startswith(b"ERR"):
            lines.append(self.line())
        if block and lines[-1] == b".":
            lines.pop()
        return "\n".join(line.decode("utf-8", "replace") for line in lines)

    def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            self._read()

    def _read(self) -> None:
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError:
            raise
        except OSError as error:
            raise Closed(str(error)) from error
        if not data:
            raise Closed(f"the peer closed the connection with {len(self._buffer)} bytes of an unfinished packet")
        self._buffer += data
