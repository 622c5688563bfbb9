"""The thread of an `EmbeddedServer`: its sockets and its state machine.

Whatever goes wrong with one connection closes that one, and is logged; the thread goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..protocol.server import JobServer, Peer

if TYPE_CHECKING:
    import ssl

__all__ = ["ServerLoop", "Waiter", "listen"]

log: logging.Logger = logging.getLogger("gearman_pool.testing.server")

T = TypeVar("T")

_BACKLOG = 512
_READ_SIZE = 256 * 1024

#: How much is sent to one connection in one turn, so that one with a large result does not hold up the others.
_SEND_SIZE = 1024 * 1024

#: A call to the thread gives up after this many seconds: the thread is stuck, which is a bug.
_CALL_TIMEOUT = 30.0

#: An unfinished TLS handshake is given up after this many seconds.
_HANDSHAKE_TIMEOUT = 10.0

#: A connection that is to be closed is closed before all is sent when its peer takes nothing for so many seconds.
_FAREWELL = 5.0

#: The longest wait, in seconds, for a job that is due some day: the system takes no more than 2**31 milliseconds.
_LONGEST_WAIT = 3600.0

#: How long to wait, in seconds, where the loop would otherwise spin: without descriptors, and with a clock that fails.
_PAUSE = 0.02


def listen(host: str, port: int) -> socket.socket:
    """Return a non-blocking socket that listens.

    Raises:
        OSError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


class Waiter(Generic[T]):
    """Somebody who waits until there is something to be seen. ``found`` is resolved by the loop's thread."""

    def __init__(self, look: Callable[[ServerLoop], T | None]) -> None:
        self.look = look
        self.found: Future[T | None] = Future()


class _Connection:
    """An accepted socket and what the state machine knows of it. Belongs to the loop's thread."""

    __slots__ = ("events", "peer", "shaking_hands", "sock")

    def __init__(self, sock: socket.socket, peer: Peer, shaking_hands: bool) -> None:
        self.sock = sock
        self.peer = peer
        #: Whether its TLS handshake is not done yet.
        self.shaking_hands = shaking_hands
        self.events = selectors.EVENT_READ


class ServerLoop:
    """One run of the server. All but `call` and `end` belongs to its thread."""

    def __init__(
        self,
        jobs: JobServer,
        listener: socket.socket,
        ssl_context: ssl.SSLContext | None,
        max_connections: int,
        clock: Callable[[], float],
    ) -> None:
        self.jobs = jobs
        self.thread: threading.Thread = threading.Thread(target=self._run, name="gearman_pool-server", daemon=True)
        self.waiters: list[Waiter[Any]] = []
        self.accepted: int = 0
        self._listener = listener
        self._ssl_context = ssl_context
        self._max_connections = max_connections
        self._clock = clock
        self._connections: dict[Peer, _Connection] = {}
        self._deadlines: dict[_Connection, float] = {}
        self._calls: deque[tuple[Callable[[ServerLoop], Any], Future[Any]]] = deque()
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._paused = False
        self._ending = False
        #: Whether the last connection could not be accepted.
        self._refusing = False

    # ---- any thread ------------------------------------------------------------------------------------------------

    def call(self, call: Callable[[ServerLoop], T]) -> T:
        """Have a call made on the thread, and return what it returns."""
        if threading.current_thread() is self.thread:
            return call(self)
        future: Future[T] = Future()
        self._calls.append((call, future))
        self._wake()
        return future.result(_CALL_TIMEOUT)

    def end(self) -> None:
        """Close everything, and wait for the thread."""
        self._ending = True
        self._wake()
        # While the interpreter ends, the thread stands still for good.
        if threading.current_thread() is not self.thread and not sys.is_finalizing():
            self.thread.join(_CALL_TIMEOUT)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def close_after_fork(self) -> None:
        """In the child of a fork: close what was inherited and no more, for the parent has the selector too."""
        self._selector.close()
        for sock in (self._listener, self._reader, self._writer, *(c.sock for c in self._connections.values())):
            with contextlib.suppress(OSError):
                os.close(sock.detach())

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._reader, selectors.EVENT_READ, self._drain_waker)
        try:
            while not self._ending:
                self._turn()
        finally:
            for connection in list(self._connections.values()):
                self._close(connection)
            for end in (self._listener, self._reader, self._writer):
                end.close()
            self._selector.close()
            while self._calls:
                self._calls.popleft()[1].set_exception(RuntimeError("the server was stopped"))
            for waiter in self.waiters:
                waiter.found.set_result(None)

    def _turn(self) -> None:
        timeout = None if self._paused else self._wait()
        self._flush()
        for key, events in self._selector.select(0 if self._calls else timeout):
            # Looked up again: an earlier one of this turn may have closed it.
            if key.fileobj in self._selector.get_map():
                if isinstance(key.data, _Connection):
                    self._contain(key.data, self._serve, events)
                else:
                    key.data()
        self._flush()
        self._give_up()
        while self._calls:
            call, future = self._calls.popleft()
            try:
                future.set_result(call(self))
            except Exception as error:
                future.set_exception(error)
        for waiter in self.waiters.copy():
            self._look_for(waiter)

    def _look_for(self, waiter: Waiter[Any]) -> None:
        try:
            found = waiter.look(self)
        except Exception as error:
            self.waiters.remove(waiter)
            waiter.found.set_exception(error)
        else:
            if found is not None:
                self.waiters.remove(waiter)
                waiter.found.set_result(found)

    def _wait(self) -> float:
        """Do what is due, and return how long there is nothing to do but for peers, in seconds."""
        try:
            now = self._clock()
            due = self.jobs.tick(now)
        except Exception:
            log.exception("an unexpected error at the jobs that are due; please report it, unless the clock is yours")
            return _PAUSE
        timeout = _LONGEST_WAIT if due is None else min(max(0.0, due - now), _LONGEST_WAIT)
        if self._deadlines:
            timeout = min(timeout, max(0.0, min(self._deadlines.values()) - time.monotonic()))
        return timeout

    def _contain(self, connection: _Connection, step: Callable[..., object], *arguments: Any) -> None:
        """Do something for a connection; an error that nobody thought of ends that connection and nothing else."""
        try:
            step(connection, *arguments)
        except Exception:
            text = "an unexpected error at the connection of %s, which is closed; please report it"
            log.exception(text, connection.peer.host)
            self._close(connection)

    def _drain_waker(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)

    def _accept(self) -> None:
        for _ in range(_BACKLOG):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # No descriptor is left, say. The listener stays readable, so that the loop would spin.
                if not self._refusing:
                    self._refusing = True
                    log.warning("no connection can be accepted: %s", error)
                time.sleep(_PAUSE)
                return
            self._refusing = False
            if len(self._connections) >= self._max_connections:
                sock.close()
                continue
            try:
                self._admit(sock, str(address[0]))
            except Exception as error:
                # A peer that has gone already is no news.
                level = logging.INFO if isinstance(error, OSError) else logging.ERROR
                log.log(level, "a connection of %s could not be taken: %s", address[0], error, exc_info=level > 20)
                sock.close()

    def _admit(self, sock: socket.socket, host: str) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._ssl_context is not None:
            sock = self._ssl_context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        self.accepted += 1
        peer = self.jobs.connect(sock.fileno(), host)
        connection = self._connections[peer] = _Connection(sock, peer, self._ssl_context is not None)
        if connection.shaking_hands:
            self._deadlines[connection] = time.monotonic() + _HANDSHAKE_TIMEOUT
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _serve(self, connection: _Connection, events: int) -> None:
        if connection.shaking_hands and not self._handshake(connection):
            return
        if events & selectors.EVENT_READ:
            self._read(connection)
        if events & selectors.EVENT_WRITE and connection.peer in self._connections:
            self._send(connection)

    def _handshake(self, connection: _Connection) -> bool:
        import ssl

        assert isinstance(connection.sock, ssl.SSLSocket)
        try:
            connection.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(connection, selectors.EVENT_WRITE)
        except OSError as error:
            log.info("a TLS handshake with %s failed: %s", connection.peer.host, error)
            self._close(connection)
        else:
            connection.shaking_hands = False
            del self._deadlines[connection]
            self._watch(connection, selectors.EVENT_READ)
            return True
        return False

    def _give_up(self) -> None:
        """Close the connections whose time for a handshake, or to take what is sent at their end, is over."""
        if self._deadlines:
            now = time.monotonic()
            for connection in [c for c, deadline in self._deadlines.items() if deadline <= now]:
                self._close(connection)

    def _read(self, connection: _Connection) -> None:
        while True:
            try:
                data = connection.sock.recv(_READ_SIZE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if not _wants_more(error):
                    self._close(connection)
                return
            if not data:
                self._close(connection)
                return
            self.jobs.receive(connection.peer, data, self._clock())
            # TLS may hold decrypted bytes that the selector knows nothing of.
            if self._ssl_context is None or connection.peer.closing is not None:
                return

    def _flush(self) -> None:
        if self._paused:
            return
        while self.jobs.touched:
            connection = self._connections.get(self.jobs.touched.pop())
            if connection is not None and not connection.shaking_hands:
                self._contain(connection, self._send)

    def _send(self, connection: _Connection) -> None:
        peer = connection.peer
        sent_now = 0
        while peer.out and sent_now < _SEND_SIZE:
            data = peer.out[0] if len(peer.out) == 1 or len(peer.out[0]) > _READ_SIZE else b"".join(_some(peer.out))
            try:
                sent = connection.sock.send(data)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if _wants_more(error):
                    break
                self._close(connection)
                return
            _take_off(peer, sent)
            sent_now += sent
        if peer.closing is not None and not peer.out:
            log.info("closing the connection of %s: %s", peer.host, peer.closing)
            self._close(connection)
            return
        if peer.closing is not None and (sent_now or connection not in self._deadlines):
            self._deadlines[connection] = time.monotonic() + _FAREWELL
        self._watch(connection, selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.out else 0))

    def _watch(self, connection: _Connection, events: int) -> None:
        if connection.events != events:
            connection.events = events
            if not self._paused:
                self._selector.modify(connection.sock, events, connection)

    def _close(self, connection: _Connection) -> None:
        if self._connections.pop(connection.peer, None) is None:
            return
        self._deadlines.pop(connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection.sock)
        connection.sock.close()
        try:
            self.jobs.disconnect(connection.peer)
        except Exception:
            log.exception("an unexpected error when %s had left; please report it", connection.peer.host)

    # ---- faults ----------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        if not self._paused:
            self._paused = True
            for sock in (self._listener, *(connection.sock for connection in self._connections.values())):
                self._selector.unregister(sock)

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            for connection in self._connections.values():
                self._selector.register(connection.sock, connection.events, connection)

    def close_all(self) -> int:
        connections = list(self._connections.values())
        for connection in connections:
            self._close(connection)
        return len(connections)


def _some(buffers: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return the first few buffers, small ones in one write."""
    size = 0
    for index, buffer in enumerate(buffers):
        size += len(buffer)
        if size > _READ_SIZE:
            return buffers[: max(1, index)]
    return buffers


def _take_off(peer: Peer, sent: int) -> None:
    peer.out_size -= sent
    count = 0
    while sent:
        first = peer.out[count]
        if sent < len(first):
            peer.out[count] = memoryview(first)[sent:]
            break
        sent -= len(first)
        count += 1
    del peer.out[:count]


def _wants_more(error: OSError) -> bool:
    import ssl

    return isinstance(error, (ssl.SSLWantReadError, ssl.SSLWantWriteError))
