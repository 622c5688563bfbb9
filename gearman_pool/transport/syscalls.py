"""send() and recv() on non-blocking sockets, without giving up the interpreter's lock.

``socket.send`` and ``socket.recv`` release the GIL around a call that takes microseconds on a non-blocking socket, and
getting it back beside a thread that computes costs up to ``sys.getswitchinterval()`` (5 ms). Called through
``ctypes.PyDLL`` they keep it, and only the selector's wait gives it up. Measured with 16 callers on one connection
and one CPU-bound thread in the process: 1,500-1,650 jobs/s against 800-1,300 with the plain calls; without such a
neighbour there is no difference.

The plain calls serve where this cannot be had or buys nothing: Windows, TLS, builds without ctypes or without a GIL,
and buffers so large that copying them would hold up the other threads.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from collections.abc import Callable

__all__ = [
    "HAS_GIL",
    "KEEPS_GIL",
    "KEEP_LIMIT",
    "READ_SIZE",
    "receive_into",
    "receive_plain",
    "receiver",
    "send",
    "send_plain",
    "send_tls",
]

#: Whether this interpreter runs one thread at a time.
HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()

#: Larger buffers go through the plain calls: copying 64 KiB takes about as long as handing over the GIL.
KEEP_LIMIT = 64 * 1024

#: One read of the plain call; larger than a socket's default receive buffer, so that one call empties it.
READ_SIZE = 256 * 1024

#: The most that one record of TLS can hold.
_RECORD_SIZE = 16 * 1024

_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def send_plain(sock: socket.socket, data: bytes | memoryview) -> int:
    """Send what fits and return how many bytes that was; 0 if the call would block.

    Raises:
        OSError: the connection is broken.
    """
    try:
        return sock.send(data)
    except _WOULD_BLOCK:
        return 0


def send_tls(sock: socket.socket, data: bytes | memoryview) -> int:
    """Send at most one record of TLS and return how many bytes of ``data`` it held; 0 if it must be tried again.

    A longer send that would block half-way tells of none of its records, though the server has some of them; jobs in
    these would then be taken for unsent, and run twice.

    Raises:
        OSError: the connection is broken.
    """
    return send_plain(sock, memoryview(data)[:_RECORD_SIZE])


def receive_plain(sock: socket.socket) -> bytes | None:
    """Return what has arrived, ``b""`` at the stream's end, or None if the call would block.

    Raises:
        OSError: the connection is broken.
    """
    try:
        return sock.recv(READ_SIZE)
    except _WOULD_BLOCK:
        return None


def receive_into(sock: socket.socket, room: memoryview) -> int | None:
    """Receive into ``room`` and return how many bytes came, 0 at the stream's end, or None if the call would block.

    Raises:
        OSError: the connection is broken.
    """
    try:
        return sock.recv_into(room)
    except _WOULD_BLOCK:
        return None


_Send = Callable[[socket.socket, bytes | memoryview], int]
_Receive = Callable[[socket.socket], bytes | None]


def _load() -> tuple[_Send, Callable[[], _Receive]] | None:
    """Return the calls that keep the GIL, or None where they cannot be had or buy nothing."""
    if sys.platform == "win32" or not HAS_GIL:
        return None
    try:
        import ctypes

        library = ctypes.PyDLL(None, use_errno=True)
        c_send = library.send
        c_recv = library.recv
    except (ImportError, OSError, AttributeError):
        return None
    c_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
    c_send.restype = ctypes.c_ssize_t
    c_recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    c_recv.restype = ctypes.c_ssize_t
    get_errno = ctypes.get_errno
    flags = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
    would_block = frozenset((errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR))
    new_buffer = ctypes.c_char * KEEP_LIMIT

    def send_keeping_gil(sock: socket.socket, data: bytes | memoryview) -> int:
        if type(data) is not bytes or len(data) > KEEP_LIMIT:
            return send_plain(sock, data)
        sent: int = c_send(sock.fileno(), data, len(data), flags)
        if sent >= 0:
            return sent
        error = get_errno()
        if error in would_block:
            return 0
        raise OSError(error, os.strerror(error))

    def new_receiver() -> _Receive:
        buffer = new_buffer()
        view = memoryview(buffer)

        def receive_keeping_gil(sock: socket.socket) -> bytes | None:
            count = c_recv(sock.fileno(), buffer, KEEP_LIMIT, flags)
            if count >= 0:
                return bytes(view[:count])
            error = get_errno()
            if error in would_block:
                return None
            raise OSError(error, os.strerror(error))

        return receive_keeping_gil

    return send_keeping_gil, new_receiver


_kept = _load()

#: Whether `send` and what `receiver` gives keep the interpreter's lock on this system.
KEEPS_GIL = _kept is not None

send: _Send = _kept[0] if _kept else send_plain


def receiver() -> _Receive:
    """Return a `receive_plain` that keeps the GIL if it can.

    It owns a buffer, so each I/O thread makes one for itself.
    """
    return _kept[1]() if _kept else receive_plain
