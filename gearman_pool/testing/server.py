"""`EmbeddedServer`: a Gearman job server in pure Python on one thread, for development and tests.

The thread owns the sockets and the state machine of `gearman_pool.protocol.server`. Methods of other threads post a
call to it and wait for what it returns.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from typing_extensions import Self

from .. import __version__
from ..protocol.commands import COMMANDS, Command, Sender
from ..protocol.queues import Ended, Job
from ..protocol.server import JobServer, Peer

if TYPE_CHECKING:
    import ssl

__all__ = ["EmbeddedServer", "ServedJob", "ServerStats", "find_job"]

log: logging.Logger = logging.getLogger("gearman_pool.testing.server")

T = TypeVar("T")

_BACKLOG = 512
_READ_SIZE = 256 * 1024

#: How much is sent to one connection in one turn, so that one with a large result does not hold up the others.
_SEND_SIZE = 1024 * 1024

#: How many jobs that have ended can be looked at.
_HISTORY = 10_000

#: How many jobs a failed assertion lists, and how many bytes of the payload of each.
_LISTED = 30
_SHORT = 100

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


@dataclass(frozen=True)
class ServedJob:
    """A job at an `EmbeddedServer`, as it stood when it was asked.

    Attributes:
        handle, task, unique: Its names.
        data: Its payload.
        state: ``"QUEUED"``, ``"RUNNING"`` or ``"DELAYED"``; once it has ended ``"COMPLETE"``, ``"FAILED"``,
            ``"CANCELLED"``, or ``"ABANDONED"`` because its last client has left.
        priority: ``"HIGH"``, ``"NORMAL"`` or ``"LOW"``.
        background: Whether it was submitted as a background job.
        waiting_clients: How many foreground submits wait for its result, or waited when it ended.
        retries: How often it went back because its worker was lost.
        result: Its result, once it is complete.
        exception: What its worker raised, if that is how it failed.
    """

    handle: str
    task: str
    unique: str
    data: bytes = field(repr=False)
    state: str
    priority: str
    background: bool
    waiting_clients: int
    retries: int
    result: bytes | None = field(default=None, repr=False)
    exception: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ServerStats:
    """Counts of an `EmbeddedServer` since its start, and what it holds now."""

    connections: int
    workers: int
    queued: int
    running: int
    delayed: int
    accepted_connections: int


class EmbeddedServer:
    """A Gearman job server in this process, for development and tests: one thread, no persistence, no authentication.

    It speaks the whole protocol: foreground, background and delayed jobs, three priorities, uniques, status, all kinds
    of updates, exceptions, workers that come and go, and the administrative commands. Methods may be called from any
    thread. After a fork the child has a copy that does not serve.

    Args:
        host: The address to listen on; loopback unless told otherwise.
        port: The port to listen on; a free one if 0. It stays the same when the server is started again.
        max_packet_size: The largest packet taken from a peer, in bytes; a larger one ends its connection.
        max_connections: Further ones are closed at once.
        max_jobs: Unfinished jobs held; further ones are refused with QUEUE_ERROR (`QueueFull`).
        job_retries: How many workers a job may lose before it fails, as with gearmand's option of that name; any number
            if None.
        ssl_context: A server's TLS context; None for plain TCP.
        clock: Gives the time in seconds since the epoch, for delayed jobs and time limits.

    Raises:
        ValueError, TypeError: an argument is not usable.

    Example::

        with EmbeddedServer() as server, GearmanClient([server.address]) as client:
            client.submit_background("mail", b"...")
            server.assert_submitted("mail", data=b"...", background=True)
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        max_packet_size: int = 128 * 1024 * 1024,
        max_connections: int = 1000,
        max_jobs: int = 1_000_000,
        job_retries: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        limits = {"max_packet_size": max_packet_size, "max_connections": max_connections, "max_jobs": max_jobs}
        for name, value in limits.items():
            _check_count(name, value)
        if job_retries is not None:
            _check_count("job_retries", job_retries)
        self.host = host
        self._port = port
        self._max_packet_size = max_packet_size
        self._max_connections = max_connections
        self._max_jobs = max_jobs
        self._job_retries = job_retries
        self._ssl_context = ssl_context
        self._clock = clock
        # Guards starting and stopping; may be held for as long as these take, and the thread never takes it.
        self._lock = threading.Lock()
        self._loop: _Loop | None = None
        _servers.add(self)

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<EmbeddedServer {self.host}:{self._port} {state}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- running ---------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it serves."""
        loop = self._loop
        return loop is not None and loop.thread.is_alive()

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the first start, if none was asked for."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port``, as a client takes it.

        Raises:
            RuntimeError: it has no port yet.
        """
        if not self._port:
            raise RuntimeError("the server has no port yet; call start(), or use it in a with statement")
        return f"[{self.host}]:{self._port}" if ":" in self.host else f"{self.host}:{self._port}"

    @property
    def url(self) -> str:
        """The address as a DSN, ``gearman://host:port/`` (``gearmans://`` with TLS)."""
        return f"{'gearmans' if self._ssl_context is not None else 'gearman'}://{self.address}/"

    def start(self) -> Self:
        """Listen, and serve on a thread. Does nothing if it does. It has no jobs at first.

        Raises:
            OSError: the address cannot be listened on.
        """
        with self._lock:
            if self._loop is not None:
                return self
            listener = _listen(self.host, self._port)
            self._port = listener.getsockname()[1]
            jobs = JobServer(
                socket.gethostname(),
                f"2.0.0+gearman_pool.{__version__}",
                os.getpid(),
                max_packet_size=self._max_packet_size,
                max_jobs=self._max_jobs,
                max_out_bytes=max(2 * self._max_packet_size, 16 * 1024 * 1024),
                job_retries=self._job_retries,
                history=_HISTORY,
            )
            self._loop = _Loop(jobs, listener, self._ssl_context, self._max_connections, self._clock)
            self._loop.thread.start()
        if _is_loopback(self.host):
            log.info("a Gearman server for development and tests listens on %s", self.address)
        else:
            text = "a Gearman server for development and tests listens on %s, where anybody who can reach it can use it"
            log.warning(text, self.address)
        return self

    def stop(self) -> None:
        """Close all connections and forget all jobs. May be called again, and by several threads."""
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.end()

    # ---- faults ----------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Freeze: sockets stay open and connections are still taken by the system, but nothing is read or answered."""
        self._call(lambda loop: loop.pause())

    def resume(self) -> None:
        """Go on after `pause`."""
        self._call(lambda loop: loop.resume())

    def kill_connections(self) -> int:
        """Close all connections, as a restart does, but keep the background jobs. Return how many there were."""
        return self._call(lambda loop: loop.close_all())

    def drop_next(self, command: str, count: int = 1) -> None:
        """Do not send the next packets of this command, such as ``"JOB_CREATED"``.

        Args:
            command: The name of a command that a server sends.
            count: How many; they add up with those of earlier calls that are still to come.

        Raises:
            ValueError: a server sends no such command, or ``count`` is no whole number above 0.
        """
        number = Command.__members__.get(command)
        if number is None or number not in COMMANDS or not COMMANDS[number].senders & Sender.SERVER:
            raise ValueError(f"{command!r} is not the name of a command that a server sends, such as 'JOB_CREATED'")
        _check_count("count", count)

        def drop(loop: _Loop) -> None:
            loop.jobs.drops[number] += count

        self._call(drop)

    # ---- looking ---------------------------------------------------------------------------------------------------

    @property
    def jobs(self) -> tuple[ServedJob, ...]:
        """All unfinished jobs, oldest first."""
        return self._call(lambda loop: tuple(_served(job) for job in loop.jobs.table.jobs.values()))

    @property
    def finished(self) -> tuple[ServedJob, ...]:
        """The jobs that have ended since the start, in that order: the last 10,000, or 16 MiB of their payloads."""
        return self._call(lambda loop: tuple(map(_ended, loop.jobs.history)))

    def job(self, handle: str) -> ServedJob | None:
        """Return the job with this handle, among the unfinished ones and those of `finished`."""
        key = handle.encode("utf-8", "surrogateescape")
        return self._call(lambda loop: loop.find(key))

    def assert_submitted(self, task: str, *, timeout: float = 5.0, **expected: Any) -> ServedJob:
        """Return the last job of a task that has these attributes of `ServedJob`, whether or not it has ended.

        Args:
            timeout: How long to wait for it, in seconds: what a client submits is on its way for a moment.
            expected: The attributes; ``data`` and ``result`` may be given as str.

        Raises:
            AssertionError: there is none; the text lists what there is.
            TypeError: a job has no such attribute.

        Example::

            server.assert_submitted("mail", data=b"...", state="COMPLETE")
        """
        __tracebackhide__ = True  # pytest shows the caller's line
        names = [attribute.name for attribute in fields(ServedJob)]
        for name, value in expected.items():
            if name not in names:
                raise TypeError(f"a job has no attribute {name!r}; it has {', '.join(names)}")
            if isinstance(value, str) and name in ("data", "result", "exception"):
                expected[name] = value.encode()
        wanted = task.encode("utf-8", "surrogateescape")

        def look(loop: _Loop) -> ServedJob | None:
            for job in reversed(loop.submitted(wanted)):
                if all(getattr(job, name) == value for name, value in expected.items()):
                    return job
            return None

        found = self._wait(look, timeout)
        if found is None:
            like = ", ".join([repr(task), *(f"{name}={value!r}" for name, value in expected.items())])
            raise AssertionError(f"no job was submitted like {like}; {self._what_there_is()}")
        return found

    def _what_there_is(self) -> str:
        if not self.running:
            return "the server was stopped"
        jobs = self._call(lambda loop: loop.submitted())
        lines = [f"  {job.task} data={_short(job.data)} background={job.background} {job.state}" for job in jobs]
        if len(lines) > _LISTED:
            lines = [f"  ({len(lines) - _LISTED} others)", *lines[-_LISTED:]]
        return "there were:\n" + ("\n".join(lines) or "  none")

    def stats(self) -> ServerStats:
        """Return what it holds now."""
        return self._call(_stats)

    def wait_idle(self, timeout: float = 10.0, *, after: int = 0) -> bool:
        """Wait until there are no unfinished jobs; return False if that is not so after ``timeout`` seconds.

        Args:
            after: How many jobs must have come since the start, or the last `clear`. A job whose submission nobody has
                waited for may still be on its way, and the server idle for that.

        Example::

            client.submit_background("mail", b"...")
            assert server.wait_idle(after=1)
        """

        def look(loop: _Loop) -> bool | None:
            table = loop.jobs.table
            return True if table.accepted >= after and not table.jobs else None

        return self._wait(look, timeout) is not None or not self.running

    def clear(self) -> None:
        """Drop all jobs, and forget those that have ended: for tests that share a server.

        Clients that wait are told that their jobs have failed; workers go on, and their results are refused.
        """
        self._call(lambda loop: loop.jobs.clear())

    def _wait(self, look: Callable[[_Loop], T | None], timeout: float) -> T | None:
        """Have the thread look until there is something, and return that; None after ``timeout``, or at its end."""
        waiter: _Waiter[T] = _Waiter(look)
        self._call(lambda loop: loop.waiters.append(waiter))
        try:
            return waiter.found.result(timeout)
        except FutureTimeoutError:  # not the builtin one before Python 3.11
            with contextlib.suppress(RuntimeError):  # it was stopped
                self._call(lambda loop: loop.waiters.remove(waiter))
            return None

    def _call(self, call: Callable[[_Loop], T]) -> T:
        loop = self._loop
        if loop is None:
            raise RuntimeError("the server is not running; call start(), or use it in a with statement")
        return loop.call(call)


class _Waiter(Generic[T]):
    """Somebody who waits until there is something to be seen. ``found`` is resolved by the loop's thread."""

    def __init__(self, look: Callable[[_Loop], T | None]) -> None:
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


class _Loop:
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
        self.thread = threading.Thread(target=self._run, name="gearman_pool-server", daemon=True)
        self.waiters: list[_Waiter[Any]] = []
        self.accepted = 0
        self._listener = listener
        self._ssl_context = ssl_context
        self._max_connections = max_connections
        self._clock = clock
        self._connections: dict[Peer, _Connection] = {}
        self._deadlines: dict[_Connection, float] = {}
        self._calls: deque[tuple[Callable[[_Loop], Any], Future[Any]]] = deque()
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._paused = False
        self._ending = False
        #: Whether the last connection could not be accepted.
        self._refusing = False

    # ---- any thread ------------------------------------------------------------------------------------------------

    def call(self, call: Callable[[_Loop], T]) -> T:
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
        if threading.current_thread() is not self.thread:
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

    def _look_for(self, waiter: _Waiter[Any]) -> None:
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

    # ---- looking ---------------------------------------------------------------------------------------------------

    def find(self, handle: bytes) -> ServedJob | None:
        job = self.jobs.table.jobs.get(handle)
        if job is not None:
            return _served(job)
        ended = self.jobs.history.find(handle)
        return None if ended is None else _ended(ended)

    def submitted(self, task: bytes | None = None) -> list[ServedJob]:
        """Return the jobs of a task, or all, in the order of their submission, as far as they are remembered."""
        jobs = [(job, _served(job)) for job in self.jobs.table.jobs.values() if task in (None, job.function.name)]
        jobs += [(e.job, _ended(e)) for e in self.jobs.history if task in (None, e.job.function.name)]
        return [served for _, served in sorted(jobs, key=lambda pair: pair[0].number)]

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


def _listen(host: str, port: int) -> socket.socket:
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


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number above 0")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _served(job: Job[Peer]) -> ServedJob:
    return ServedJob(
        handle=_text(job.handle),
        task=_text(job.function.name),
        unique=_text(job.unique),
        data=job.data,
        state=job.state.value,
        priority=job.priority.name,
        background=job.background,
        waiting_clients=len(job.clients),
        retries=job.retries,
    )


def _ended(ended: Ended[Peer]) -> ServedJob:
    # The job itself has neither payload nor clients any more.
    return replace(
        _served(ended.job),
        data=ended.data,
        state=ended.outcome,
        waiting_clients=ended.waiting_clients,
        result=ended.result,
        exception=ended.exception,
    )


def _short(data: bytes) -> str:
    return repr(data if len(data) <= _SHORT else data[:_SHORT] + b"...")


def _stats(loop: _Loop) -> ServerStats:
    states = [job.state.value for job in loop.jobs.table.jobs.values()]
    return ServerStats(
        connections=len(loop.jobs.peers),
        workers=sum(bool(peer.abilities) for peer in loop.jobs.peers.values()),
        queued=states.count("QUEUED"),
        running=states.count("RUNNING"),
        delayed=states.count("DELAYED"),
        accepted_connections=loop.accepted,
    )


def find_job(handle: str, unique: str) -> ServedJob | None:
    """Return the job with these names, whichever running server of this process has it; None if it is elsewhere."""
    for server in list(_servers):
        with contextlib.suppress(RuntimeError):  # it does not run
            job = server.job(handle)
            if job is not None and job.unique == unique:
                return job
    return None


_servers: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for server in list(_servers):
        loop, server._loop = server._loop, None
        server._lock = threading.Lock()
        if loop is not None:
            loop.close_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
