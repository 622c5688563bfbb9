"""DNS, connect and TLS handshake, each attempt on a thread of its own, because each of them can block.

The I/O thread starts an attempt and is handed a connected, non-blocking socket or an error. A resolver that hangs
cannot be interrupted; its attempt then counts as failed after ``timeout``, and what it brings later is closed.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - see below
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import ClientClosed, ConnectionError, ConnectTimeout, GearmanError, ThreadUnavailable, TLSError  # noqa: A004
from ..settings.addresses import ServerAddress
from ..threads.launch import launch
from .timers import Timer
from .tls import tls_error

__all__ = ["Attempt", "connect"]

# getaddrinfo() and TLS encode names by ``encodings.idna``. If the first attempt imported it, a fork meanwhile would
# leave the import's lock taken in the child for ever, and every attempt there would hang.

#: Seconds of silence before TCP keepalive probes, seconds between them, and how many may be missed: middleboxes that
#: drop idle connections are told of this one's life well before their usual 5 minutes.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}

#: For an attempt at the interpreter's end, in seconds.
_LAST_TIMEOUT = 0.5

Outcome = socket.socket | GearmanError
_E = TypeVar("_E", bound=GearmanError)


class Attempt:
    """One attempt to connect. ``done`` is called on the attempt's thread, once, with a socket or an error."""

    def __init__(self, address: ServerAddress, timeout: float, done: Callable[[Attempt, Outcome], None]) -> None:
        self.address = address
        self.timeout: float = timeout
        self.finished: bool = False
        #: Runs out when the attempt takes longer than it may.
        self.timer: Timer | None = None
        self._done = done
        # The socket that was opened last, for the child of a fork. Written by the attempt's thread.
        self._sock: socket.socket | None = None

    def start(self, name: str) -> None:
        """Start the attempt's thread.

        At the interpreter's end no threads can be started any more. Then the attempt is made here and now, for a short
        while: nobody else is kept waiting, and what was submitted a moment ago still wants to be sent. If only the
        system has no room for a thread the attempt has failed, and the next one comes as after any other failure.
        """
        try:
            launch(threading.Thread(target=self._run, name=name, daemon=True))
        except ClientClosed:
            self.timeout = min(self.timeout, _LAST_TIMEOUT)
            self._run()
        except ThreadUnavailable as error:
            self._end(_error(ConnectionError, self.address, f"cannot connect: {error}", error))

    def _run(self) -> None:
        outcome: Outcome
        try:
            outcome = connect(self.address, self.timeout, self._note)
        except GearmanError as error:
            outcome = error
        except Exception as error:  # whatever it is, the I/O thread waits for an outcome
            outcome = _error(ConnectionError, self.address, f"cannot connect: {error!r}", error)
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        self.finished = True
        self._done(self, outcome)

    def _note(self, sock: socket.socket) -> None:
        self._sock = sock

    def close_after_fork(self) -> None:
        """In the child of a fork: close the descriptor, or the server would not see that the parent closes its own."""
        if self._sock is not None and self._sock.fileno() >= 0:
            os.close(self._sock.detach())


def connect(
    address: ServerAddress, timeout: float, opened: Callable[[socket.socket], object] = lambda sock: None
) -> socket.socket:
    """Return a connected, non-blocking socket, after the TLS handshake if the address asks for TLS.

    ``opened`` is told of each socket as soon as there is one.

    The name is resolved anew for each attempt and its addresses are tried in random order. Blocks for at most
    ``timeout`` seconds after the name is resolved.

    Raises:
        ConnectTimeout: the time was up.
        TLSError: the handshake failed, with one of the addresses at least; the text says why.
        ConnectionError: the name has no address, or nobody listens there.
    """
    deadline = time.monotonic() + timeout
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _error(ConnectionError, address, f"cannot resolve the name {address.host!r}: {error}", error) from None
    random.Random().shuffle(found)
    failure: GearmanError | None = None
    for family, kind, protocol, _, target in found:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        try:
            return _connect_one(address, family, kind, protocol, target, remaining, opened)
        except GearmanError as error:
            latest = error
        except TimeoutError:
            latest = _timeout(address, timeout)
        # What one of the addresses refused in the handshake is the news, not that nobody listens on another.
        if not isinstance(failure, TLSError):
            failure = latest
    raise failure or _timeout(address, timeout)


def _connect_one(
    address: ServerAddress,
    family: int,
    kind: int,
    protocol: int,
    target: object,
    timeout: float,
    opened: Callable[[socket.socket], object],
) -> socket.socket:
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _error(ConnectionError, address, f"cannot open a socket: {error.strerror or error}", error) from None
    try:
        opened(sock)
        sock.settimeout(timeout)
        started = time.monotonic()
        sock.connect(target)  # type: ignore[arg-type]
        _set_options(sock)
        if address.ssl_context is not None:
            sock.settimeout(max(0.001, timeout - (time.monotonic() - started)))
            sock = _wrap(address, sock)
            opened(sock)
            _shake_hands(address, sock)
        sock.setblocking(False)
        return sock
    except (GearmanError, TimeoutError):
        sock.close()
        raise
    except OSError as error:
        sock.close()
        raise _error(ConnectionError, address, f"cannot connect: {error.strerror or error}", error) from None
    except BaseException:
        sock.close()
        raise


def _set_options(sock: socket.socket) -> None:
    # Packets are gathered before they are sent, so waiting for more in the kernel would only add delay.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        if hasattr(socket, option):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _wrap(address: ServerAddress, sock: socket.socket) -> ssl.SSLSocket:
    context = address.ssl_context
    assert context is not None
    name = address.server_hostname or address.host
    try:
        return context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
    except (ssl.SSLError, OSError) as error:  # it was closed a moment after it was connected
        raise tls_error(address, error) from None


def _shake_hands(address: ServerAddress, sock: ssl.SSLSocket) -> None:
    try:
        sock.do_handshake()
    except TimeoutError as error:
        text = "connected, but the TLS handshake was not finished within connect_timeout"
        raise _error(ConnectTimeout, address, text, error) from None
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError, EOFError) as error:
        raise tls_error(address, error) from None


def _timeout(address: ServerAddress, timeout: float) -> ConnectTimeout:
    return _error(ConnectTimeout, address, f"no connection within connect_timeout ({timeout:g} s)", None)


def _error(kind: type[_E], address: ServerAddress, text: str, cause: BaseException | None) -> _E:
    error = kind(f"{address}: {text}", server=str(address))
    error.__cause__ = cause
    return error
