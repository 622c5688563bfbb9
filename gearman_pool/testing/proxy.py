"""`FaultProxy`: a TCP proxy in front of a Gearman server that makes the network misbehave on demand.

The proxy's thread owns every socket and every setting. A control posts its change to that thread and waits until it is
made: when the call returns, the fault is in force, for the connections that live as for those that come.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..options import parse_server
from ..protocol.commands import Command
from .streams import Lane, Pipe, Rule

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Direction", "FaultProxy"]

#: Which way bytes flow: from the proxy's client to the server behind it, back, or either.
Direction = Literal["to_server", "to_client", "both"]

T = TypeVar("T")

_BACKLOG = 128

_LANES = ("to_server", "to_client")

#: A control gives up after this many seconds: its thread is stuck, which is a bug.
_CONTROL_TIMEOUT = 30.0


class FaultProxy:
    """A TCP proxy for tests: hand its `address` to a client or worker, and break the network between it and the server.

    All methods may be called from any thread. Each change is in force when the call returns, on live connections and
    on new ones, and `pass_through` takes all of them back. A ``direction`` is ``"to_server"``, ``"to_client"`` or
    ``"both"``. Bytes pass through as they come; only `drop_next`, `replace_next` and `inject` look at packets, and a
    stream that is not Gearman's, such as TLS, has none.

    It listens on loopback, has no authentication, and is not for production.

    Args:
        target_address: The server: ``"host:port"``, ``(host, port)``, or whatever else a client takes for one server.
        host: The address to listen on.
        port: The port to listen on; a free one if 0. It stays the same until the proxy is thrown away.
        record: Keep what is forwarded, for `recorded`.

    Example::

        with FaultProxy("127.0.0.1:4730") as proxy, GearmanClient([proxy.address]) as client:
            proxy.delay(0.2)
            client.submit("resize", image).result(5)
            proxy.cut()
    """

    def __init__(self, target_address: Any, *, host: str = "127.0.0.1", port: int = 0, record: bool = False) -> None:
        self._target = parse_server(target_address)
        self._host = host
        self._port = port
        self._place: tuple[int, Any] | None = None
        self._thread: threading.Thread | None = None
        self._inbox: deque[Callable[[], object]] = deque()
        self._waker: tuple[socket.socket, socket.socket] | None = None
        # From here on the thread's, while it runs.
        self._selector: selectors.BaseSelector | None = None
        self._listener: socket.socket | None = None
        self._listening = False
        self._stopping = False
        self._links: list[_Link] = []
        self._rules: list[Rule] = []
        self._lanes = {name: Lane(bytearray() if record else None) for name in _LANES}
        self._accepted = 0

    # ---- life ------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen, and start the thread. Does nothing if it runs.

        Raises:
            OSError: the port cannot be had, or the target's name cannot be resolved.
        """
        if self._thread is not None:
            return self
        found = socket.getaddrinfo(self._target.host, self._target.port, type=socket.SOCK_STREAM)
        self._place = (found[0][0], found[0][4])
        self._listener = self._listen()
        self._selector = selectors.DefaultSelector()
        self._waker = socket.socketpair()
        for end in self._waker:
            end.setblocking(False)
        self._selector.register(self._waker[0], selectors.EVENT_READ)
        self._watch_listener()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="gearman_pool-fault-proxy", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close everything and end the thread. May be called again; `start` then listens on the same port."""
        thread = self._thread
        if thread is None:
            return
        self._inbox.append(self._stop)
        self._wake()
        thread.join(_CONTROL_TIMEOUT)
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        # No control: a repr must not wait for the thread.
        where = self.address if self._port else "not started"
        return f"<FaultProxy {where} -> {self._target}, {len(self._links)} connections>"

    @property
    def address(self) -> str:
        """``"host:port"``, where it listens.

        Raises:
            RuntimeError: it was never started, and ``port`` is 0.
        """
        if not self._port:
            raise RuntimeError("the proxy has no address before its first start()")
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    @property
    def connections(self) -> int:
        """How many connections live now."""
        return self._control(lambda: len(self._links))

    @property
    def accepted(self) -> int:
        """How many connections have been accepted since the proxy was made."""
        return self._accepted

    def forwarded(self, direction: Direction = "both") -> int:
        """Return how many bytes were passed on, over all connections."""
        lanes = self._of(direction)
        return self._control(lambda: sum(lane.forwarded for lane in lanes))

    def recorded(self, direction: Direction) -> bytes:
        """Return what was passed on in one direction, over all connections, in order.

        Raises:
            ValueError: the proxy was made without ``record=True``, or the direction is ``"both"``.
        """
        (lane, *more) = self._of(direction)
        if lane.record is None or more:
            raise ValueError("recorded() needs FaultProxy(..., record=True) and one direction")
        record = lane.record
        return self._control(lambda: bytes(record))

    # ---- faults that last ------------------------------------------------------------------------------------------

    def delay(self, seconds: float, direction: Direction = "both") -> None:
        """Pass all bytes on that many seconds after they came. 0 lets go at once of what is held back."""
        if seconds < 0:
            raise ValueError(f"seconds is {seconds!r}; it must be 0 or more")
        self._set(direction, "delay", seconds)

    def throttle(self, bytes_per_second: float | None, direction: Direction = "both") -> None:
        """Pass on at most so many bytes a second on each connection; None lifts the limit."""
        if bytes_per_second is not None and bytes_per_second <= 0:
            raise ValueError(f"bytes_per_second is {bytes_per_second!r}; it must be above 0, or None")
        self._set(direction, "rate", bytes_per_second)

    def swallow(self, direction: Direction = "both") -> None:
        """Accept and read, but pass nothing on, not even the end of a connection: a black hole.

        New connections are accepted even if the server is down.
        """
        self._set(direction, "swallowing", True)

    def refuse(self) -> None:
        """Listen no more: new connections are refused, live ones go on. `accept` takes it back."""
        self._control(self._refuse)

    def accept(self) -> None:
        """Listen again after `refuse`, on the same port."""
        self._control(self._accept_again)

    def pass_through(self) -> None:
        """Take back every fault, those that have not struck yet included; what `delay` held back goes out."""
        self._control(self._reset_faults)

    # ---- faults that strike once -----------------------------------------------------------------------------------

    def cut(self) -> int:
        """Close all connections on both sides, as a server does that ends; return how many there were."""
        return self._control(lambda: self._end_links(reset=False))

    def reset(self) -> int:
        """Reset all connections on both sides (RST); return how many there were."""
        return self._control(lambda: self._end_links(reset=True))

    def cut_after(self, count: int, direction: Direction = "to_client") -> None:
        """Cut the first connection on which ``count`` more bytes have passed; with 0 the next byte finds it cut."""
        if count < 0:
            raise ValueError(f"count is {count!r}; it must be 0 or more")

        def arm() -> None:
            for lane in self._of(direction):
                lane.cut_after = count
            for link in self._links:
                for pipe in link.pipes:
                    pipe.mark = pipe.forwarded

        self._control(arm)

    def corrupt(self, count: int = 1, *, skip: int = 0, direction: Direction = "to_client") -> None:
        """Flip all bits of the next ``count`` bytes, behind ``skip`` that stay as they are."""
        if count < 1 or skip < 0:
            raise ValueError(f"count is {count!r} and skip is {skip!r}; they must be at least 1 and 0")
        self._set(direction, "flips", (skip, count))

    def drop_next(self, command: str, count: int = 1, *, direction: Direction = "both") -> None:
        """Leave out the next packet of this command (``"WORK_COMPLETE"``), or the next few; all others pass.

        A packet whose first bytes have passed already is not dropped any more.

        Raises:
            ValueError: Gearman has no such command, or ``count`` is below 1.
        """
        self._replace(command, b"", count, direction)

    def replace_next(self, command: str, data: bytes, *, direction: Direction = "to_client") -> None:
        """Pass ``data`` on in place of the next packet of this command, whatever ``data`` is.

        Raises:
            ValueError: Gearman has no such command.
        """
        self._replace(command, data, 1, direction)

    def inject(self, data: bytes, direction: Direction = "to_client") -> int:
        """Send bytes that nobody sent, on every connection, between two packets; return on how many connections."""

        def put() -> int:
            for link in self._links:
                for pipe in link.pipes:
                    if pipe.lane in self._of(direction):
                        pipe.inject(data)
            return len(self._links)

        return self._control(put)

    # ---- how controls reach the thread -----------------------------------------------------------------------------

    def _of(self, direction: str) -> list[Lane]:
        if direction != "both" and direction not in self._lanes:
            raise ValueError(f"direction is {direction!r}; it must be 'to_server', 'to_client' or 'both'")
        return [lane for name, lane in self._lanes.items() if direction in (name, "both")]

    def _set(self, direction: str, name: str, value: object) -> None:
        lanes = self._of(direction)

        def change() -> None:
            for lane in lanes:
                setattr(lane, name, value)

        self._control(change)

    def _replace(self, command: str, data: bytes, count: int, direction: str) -> None:
        if command not in Command.__members__ or command == "TEXT":
            raise ValueError(f"{command!r} is not the name of a Gearman command, such as 'WORK_COMPLETE'")
        if count < 1:
            raise ValueError(f"count is {count!r}; it must be 1 or more")
        rule = Rule(Command[command], data, count, self._of(direction))
        self._control(lambda: self._rules.append(rule))

    def _control(self, change: Callable[[], T]) -> T:
        """Make a change on the thread, or here if it does not run."""
        if self._thread is None or threading.current_thread() is self._thread:
            return change()
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(change())
            except BaseException as error:
                done.set_exception(error)

        self._inbox.append(run)
        self._wake()
        return done.result(_CONTROL_TIMEOUT)

    def _wake(self) -> None:
        if self._waker is not None:
            # A full buffer means that it is about to wake anyway.
            with contextlib.suppress(OSError):
                self._waker[1].send(b"\0")

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        selector, waker = self._selector, self._waker
        assert selector is not None
        assert waker is not None
        timeout: float | None = None
        while not self._stopping:
            for key, events in selector.select(timeout):
                if key.data is not None:
                    key.data(events)
                elif key.fileobj is self._listener:
                    self._accept_one()
                else:
                    with contextlib.suppress(BlockingIOError):
                        waker[0].recv(4096)
            while self._inbox:
                self._inbox.popleft()()
            timeout = self._flush()

    def _stop(self) -> None:
        self._stopping = True
        self._end_links(reset=False)
        for resource in (self._listener, self._selector, *(self._waker or ())):
            if resource is not None:
                resource.close()
        self._listener = self._selector = self._waker = None

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        return listener

    def _refuse(self) -> None:
        listener, selector = self._listener, self._selector
        if listener is None or selector is None or not self._listening:
            return
        self._listening = False
        selector.unregister(listener)
        try:
            # On Linux this ends the listening and keeps the port, so that nobody else can take it meanwhile.
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            listener.close()

    def _accept_again(self) -> None:
        if self._selector is None or self._listening:
            return
        if self._listener is not None:
            self._listener.close()
        self._listener = self._listen()
        self._watch_listener()

    def _watch_listener(self) -> None:
        assert self._selector is not None
        assert self._listener is not None
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._listening = True

    def _reset_faults(self) -> None:
        for lane in self._lanes.values():
            lane.reset()
        self._rules.clear()
        self._accept_again()

    def _accept_one(self) -> None:
        assert self._listener is not None
        assert self._selector is not None
        assert self._place is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it has gone again, or there are no descriptors
            return
        self._accepted += 1
        family, place = self._place
        self._links.append(_Link(self._selector, sock, family, place, self._lanes, self._rules))

    def _end_links(self, reset: bool) -> int:
        links, self._links = self._links, []
        for link in links:
            link.close(reset)
        return len(links)

    def _flush(self) -> float | None:
        """Pass on what is due on all connections; return the seconds until more is."""
        now = monotonic()
        next_time: float | None = None
        for link in list(self._links):
            due = link.flush(now)
            if link.closed:
                self._links.remove(link)
            elif due is not None:
                next_time = due if next_time is None else min(next_time, due)
        return None if next_time is None else max(0.0, next_time - monotonic())


class _Link:
    """One proxied connection: a client's socket, the server's, and a pipe each way."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        client: socket.socket,
        family: int,
        place: Any,
        lanes: dict[str, Lane],
        rules: list[Rule],
    ) -> None:
        self.closed = False
        self._selector = selector
        self._client = client
        self._server = socket.socket(family, socket.SOCK_STREAM)
        self._to_server = Pipe(lanes["to_server"], rules)
        self._to_client = Pipe(lanes["to_client"], rules)
        self.pipes = (self._to_server, self._to_client)
        self._connecting = True
        # Without a server there may still be a client: a black hole accepts whoever comes.
        self._serverless = False
        for sock in (client, self._server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = self._server.connect_ex(place)
        if error:
            self._selector.register(self._server, selectors.EVENT_WRITE, self._on_connected)
        else:
            self._connecting = False
        self._watch()

    def _on_connected(self, events: int) -> None:
        if self.closed:
            return
        self._selector.unregister(self._server)
        self._connecting = False
        error = self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error:
            return
        if self._to_server.lane.swallowing:
            self._serverless = True
            self._server.close()
        else:
            # A server that is not there: the client was accepted, so it is told as gently as can be.
            self.close(reset=error == errno.ECONNRESET)

    def _on_client(self, events: int) -> None:
        self._on_ready(self._client, self._to_server, self._to_client, events)

    def _on_server(self, events: int) -> None:
        self._on_ready(self._server, self._to_client, self._to_server, events)

    def _on_ready(self, sock: socket.socket, source: Pipe, sink: Pipe, events: int) -> None:
        if self.closed:
            return
        if events & selectors.EVENT_WRITE:
            sink.blocked = False
        if events & selectors.EVENT_READ:
            try:
                source.receive(sock)
            except OSError:
                # A reset on one side is a reset on the other.
                self.close(reset=True)

    def flush(self, now: float) -> float | None:
        """Pass on what is due both ways; return when more will be."""
        times = []
        for pipe, sink in ((self._to_server, self._server), (self._to_client, self._client)):
            if self.closed:
                return None
            times.append(self._flush_pipe(pipe, sink, now))
        if not self.closed:
            if self._to_server.end_passed and self._to_client.end_passed:
                self.close(reset=False)
            else:
                self._watch()
        return min((time for time in times if time is not None), default=None)

    def _flush_pipe(self, pipe: Pipe, sink: socket.socket, now: float) -> float | None:
        if sink is self._server and (self._connecting or self._serverless):
            if self._serverless and not pipe.lane.swallowing:
                self.close(reset=False)
            return None
        try:
            due = pipe.send(sink, now)
        except OSError:
            self.close(reset=True)
            return None
        if pipe.cut_due:
            # It strikes once.
            pipe.lane.cut_after = None
            self.close(reset=False)
        return due

    def _watch(self) -> None:
        self._watch_one(self._client, self._to_server, self._to_client, self._on_client)
        if not self._connecting and not self._serverless:
            self._watch_one(self._server, self._to_client, self._to_server, self._on_server)

    def _watch_one(self, sock: socket.socket, source: Pipe, sink: Pipe, ready: Callable[[int], None]) -> None:
        wanted = (selectors.EVENT_READ if source.wants_more else 0) | (selectors.EVENT_WRITE if sink.blocked else 0)
        key = self._selector.get_map().get(sock)
        if key is None:
            if wanted:
                self._selector.register(sock, wanted, ready)
        elif not wanted:
            self._selector.unregister(sock)
        elif key.events != wanted:
            self._selector.modify(sock, wanted, ready)

    def close(self, reset: bool) -> None:
        """Close both sockets; with a reset, the peers are told by RST."""
        if self.closed:
            return
        self.closed = True
        for sock in (self._client, self._server):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(sock)
            with contextlib.suppress(OSError):
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
