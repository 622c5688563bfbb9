"""No client at all: blocking sockets by hand, as fast as Python can be."""

from __future__ import annotations

import select
import socket
import struct
from time import perf_counter

from ..works import HOST, PAYLOAD, TASK, Load, Numbers, Work, alone, rate, shared

__all__ = ["WORKS"]

_HEADER = struct.Struct(">4sII")
_REQUEST = b"\0REQ"
_SUBMIT_JOB = 7
_WORK_COMPLETE = 13
_SUBMIT_JOB_BG = 18
_CREATED = b"\0RES\0\0\0\x08"
_CHUNK = 64 * 1024


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class _Caller:
    """A blocking socket and what it takes to do one job on it."""

    def __init__(self, port: int) -> None:
        self._socket = _connect(port)
        self._number = 0

    def __call__(self) -> bytes:
        self._number += 1
        body = b"%b\0%032x\0%b" % (TASK.encode(), self._number, PAYLOAD)
        self._socket.sendall(_HEADER.pack(_REQUEST, _SUBMIT_JOB, len(body)) + body)
        buffer = b""
        while True:
            buffer += self._socket.recv(_CHUNK)
            while len(buffer) >= 12:
                _, command, size = _HEADER.unpack_from(buffer)
                if len(buffer) < 12 + size:
                    break
                if command == _WORK_COMPLETE:
                    return buffer[12 : 12 + size].partition(b"\0")[2]
                buffer = buffer[12 + size :]


def _alone(load: Load) -> Numbers:
    return alone(_Caller(load.port), load)


def _shared(load: Load) -> Numbers:
    return shared(lambda _: _Caller(load.port), load)


def _background(load: Load) -> Numbers:
    """Ready-made packets of background jobs, written as fast as the server takes them."""
    packets = []
    for number in range(load.count):
        body = b"%b\0%032x\0%b" % (TASK.encode(), number, PAYLOAD)
        packets.append(_HEADER.pack(_REQUEST, _SUBMIT_JOB_BG, len(body)) + body)
    data = memoryview(b"".join(packets))
    with _connect(load.port) as connection:
        connection.setblocking(False)
        sent = accepted = 0
        tail = b""
        start = perf_counter()
        while accepted < load.count:
            readable, writable, _ = select.select([connection], [connection] if sent < len(data) else [], [], 60.0)
            if writable:
                sent += connection.send(data[sent : sent + _CHUNK])
            if readable:
                received = connection.recv(_CHUNK)
                if not received:
                    raise ConnectionError("the server closed the connection")
                received = tail + received
                accepted += received.count(_CREATED)
                # A mark that is cut by the end of what came must count once, and a whole one not twice.
                tail = received[-(len(_CREATED) - 1) :]
        return rate(load.count, perf_counter() - start)


def _payload(load: Load) -> Numbers:
    """Large payloads there and back, received into one object without a copy."""
    payload = bytes(load.size)
    with _connect(load.port) as connection:

        def receive(size: int) -> bytes:
            data = connection.recv(size, socket.MSG_WAITALL)
            if len(data) != size:
                raise ConnectionError("the server closed the connection")
            return data

        def call() -> None:
            start = b"%b\0unique\0" % TASK.encode()
            connection.sendall(_HEADER.pack(_REQUEST, _SUBMIT_JOB, len(start) + load.size) + start)
            connection.sendall(payload)
            handle = receive(_HEADER.unpack(receive(12))[2])
            receive(12 + len(handle) + 1)
            receive(load.size)

        call()
        jobs = 0
        start = end = perf_counter()
        while end - start < load.seconds:
            call()
            jobs += 1
            end = perf_counter()
    return {"megabytes": jobs * load.size / 1e6 / (end - start), "jobs": jobs}


WORKS: dict[str, Work] = {"alone": _alone, "shared": _shared, "background": _background, "payload": _payload}
