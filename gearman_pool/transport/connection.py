"""One connection: a non-blocking socket, the queue in front of it, and the session behind it.

How bytes leave. A caller's only change to shared state is one append of an entry to ``queue``. Whoever holds ``lock``
drains the queue: it adds each entry to the session's order of replies and its bytes to what is sent, in one function.
While few requests are unanswered the caller drains here and now; else the entries gather until the I/O thread sends
them together, when the next reply has come (Nagle's rule one level up, with the reply as the acknowledgement).
Measured: a system call for each job gives 25,000-30,000 jobs/s in bulk, gathering 110,000-150,000; a caller that
leaves the write to the I/O thread waits for one more hand-over of the interpreter's lock.

``lock`` is only ever tried, never waited for: a lock held across a system call makes callers queue up behind each
other (140-240 jobs/s with 16 callers and one CPU-bound thread, against 1,500 this way). A caller that finds ``lock``
taken leaves its entry to the holder, who looks again before leaving.

A caller can be interrupted between any two bytecodes (Ctrl-C, time limits by signals). If that happens in `_drain`,
``lock`` stays taken: the I/O thread finds the lock taken and no thread in `_drain`, and gives the connection up; the
connection's jobs go the way of a lost connection. Nobody gets another's answer.

Threads: see `Connection`. A connection waits for nothing but ``lock``, at its own end, for a moment. A connection never
looks for another one, and never decides what becomes of a job: its `Owner` is told.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
import threading
from collections import deque
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, Protocol

from ..errors import ConnectionLost, GearmanError, ProtocolError, TLSError
from ..protocol.packets import packet_size
from ..protocol.session import Entry, Event, ReplySession, token_of
from ..threads import lifecycle
from . import syscalls
from .io_thread import IOThread, copy_of
from .servers import Server
from .timers import Timer
from .tls import looks_like_tls, tls_error

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S = TypeVar("S", bound=ReplySession, default=Any)
else:
    from typing import TypeVar

    S = TypeVar("S", bound=ReplySession)

__all__ = ["DIRECT_WINDOW", "Connection", "LostEntries", "Owner", "Rescue", "S"]

#: While fewer requests than this are unanswered, callers send themselves.
DIRECT_WINDOW = 64

#: This many gathered entries are reason enough to wake the I/O thread.
GATHER_LIMIT = 256

#: How many bytes of small packets go into one system call.
BATCH_SIZE = 64 * 1024

#: How often one connection may be read in one turn while others wait.
READS_PER_TURN = 16

#: How long the I/O thread lets a lock be held by somebody else before it looks who holds it, in seconds.
PATIENCE = 0.02


class LostEntries:
    """What a lost connection held."""

    __slots__ = ("accepted", "unanswered", "unsent")

    def __init__(self, unsent: list[Entry], unanswered: list[Entry], accepted: list[object]) -> None:
        #: Entries of which no byte has left.
        self.unsent: list[Entry] = unsent
        #: Entries that left, at least in part, and were not answered.
        self.unanswered: list[Entry] = unanswered
        #: Tokens of accepted, unfinished foreground jobs.
        self.accepted: list[object] = accepted


class Owner(Protocol[S]):
    """What a connection asks of its pool. Called on the I/O thread; must not block."""

    @property
    def io(self) -> IOThread:
        """The thread that the connection belongs to."""

    def on_events(self, connection: Connection[S], events: list[Event]) -> None:
        """The session has understood these."""

    def connection_lost(self, connection: Connection[S], error: GearmanError, entries: LostEntries) -> None:
        """The connection has been closed for this reason; these are what it held."""

    def on_lost(self, connection: Connection[S], error: GearmanError, entries: LostEntries) -> None:
        """A connection that had been closed before still held these."""

    def connection_lingers(self, connection: Connection[S]) -> None:
        """The connection is closed, and `Connection.close_lingering` is to be called at the end at the latest."""

    def connection_is_gone(self, connection: Connection[S]) -> bool:
        """The connection lingers no longer. Return whether it did until now: only one of several callers hears so."""


class Connection(Generic[S]):
    """A connected socket and its session.

    From any thread: `submit`, `pending`, `tokens`, `unanswered`, `outbound_bytes`, and reading ``closed``, ``up`` and
    ``suspect``. All else belongs to the I/O thread.

    ``lock`` guards ``_rest`` and the sending half of the socket. Only the I/O thread waits for it, for `PATIENCE`, and
    then holds none but those of closed connections, which it never gives back; others try it.

    A connection is never used again after its end: a server that comes back gets a new one. So the identity of a
    connection is enough to tell one life of its server from the next, and no number of a generation is needed: news of
    an older connection, however late, names that one, and cannot take down a server that has recovered.
    """

    def __init__(self, owner: Owner[S], server: Server[Connection[S]], sock: socket.socket, session: S) -> None:
        self.server = server
        self.session: S = session
        self.queue: deque[Entry] = deque()
        self.order: deque[Entry] = session.order
        self.handles: dict[str, Any] = session.handles
        self.lock: threading.Lock = threading.Lock()
        self.closed: bool = False
        self.up: bool = False
        #: A health check was not answered in time; other connections are preferred.
        self.suspect: bool = False
        #: When the session was first answered; 0 before.
        self.up_since: float = 0.0
        self.last_heard: float = owner.io.clock()
        # When the server last took a part of what was too much for one system call.
        self._last_taken = 0.0
        self._owner = owner
        self._io = owner.io
        # Bound once: each read tells of events.
        self._on_events = owner.on_events
        self._sock = sock
        self._direct = sock.__class__ is socket.socket
        self._send = syscalls.send if self._direct else syscalls.send_tls
        self._receive = owner.io.receive if self._direct else syscalls.receive_plain
        # Buffers that a system call did not take, oldest first.
        self._rest: list[bytes | memoryview] = []
        self._write_watched = False
        # Runs while somebody else holds ``lock``; see `_look_again`.
        self._contention: Timer | None = None
        # Why the connection was closed, if somebody was sending then and the descriptor is still to be closed.
        self._loss: GearmanError | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "up" if self.up else "connecting"
        return f"<Connection to {self.server.address} {state}, {self.pending} in flight, {len(self.queue)} queued>"

    @property
    def last_progress(self) -> float:
        """When the server was last seen to be alive: by what it sent, or by what it took of a large upload."""
        return max(self.last_heard, self._last_taken)

    @property
    def pending(self) -> int:
        """How many requests and jobs are in flight here: queued, unanswered, and accepted but unfinished."""
        return len(self.queue) + len(self.order) + len(self.handles)

    # ---- any thread ------------------------------------------------------------------------------------------------

    def submit(self, entry: Entry, *more: Entry) -> None:
        """Put a request in line, and others behind it that leave with it. Never blocks. Runs on any thread."""
        self.queue.append(entry)
        if more:
            self.queue.extend(more)
        if self.closed:
            # The I/O thread emptied the queue before the append: hand it the straggler.
            self._io.post(Rescue(self))
        elif len(self.order) < DIRECT_WINDOW:
            if self._direct and self._may_write():
                self._flush()
            else:
                self._io.wake()
        elif len(self.queue) >= GATHER_LIMIT:
            self._io.wake()

    def _may_write(self) -> bool:
        # Signal handlers raise in the main thread. The main thread writes itself only where an interruption would harm
        # nobody else: on a connection that has nothing in flight.
        return threading.get_ident() != lifecycle.main_thread or not (self.order or self.handles)

    def tokens(self) -> list[Any]:
        """Return the tokens of what is queued or unanswered. Runs on any thread."""
        # The queue first: an entry that is sent meanwhile is found twice, and never missed.
        return [token_of(entry) for entry in (*copy_of(self.queue), *copy_of(self.order))]

    def unanswered(self) -> list[Any]:
        """Return the tokens of what was sent and is not answered, oldest first. Runs on any thread."""
        return [token_of(entry) for entry in copy_of(self.order)]

    def outbound_bytes(self) -> int:
        """Return about how many bytes wait to be sent. Runs on any thread."""
        rest = sum(len(buffer) for buffer in list(self._rest))
        return rest + sum(packet_size(entry[0]) for entry in copy_of(self.queue))

    def _flush(self) -> None:
        """Send what is queued, unless somebody else is at it."""
        lock = self.lock
        while self.queue and not self._rest and not self.closed:
            if not lock.acquire(False):
                # The holder looks again before it leaves; the I/O thread sees to it that it does leave.
                self._io.wake()
                return
            try:
                error = self._drain()
            except BaseException:
                # The caller was struck from outside. ``lock`` stays taken, and nobody else would look for what this
                # caller had in its hands.
                self._io.post(self.pump)
                raise
            lock.release()
            if error is not None or self._rest:
                self._io.post(self.pump)
                return

    def _drain(self) -> OSError | None:
        """Move entries from the queue into the order of replies and send them. The caller holds ``lock``.

        An entry is looked at, put into the order, and only then taken off the queue: wherever an interruption strikes,
        it stands in one of the two.
        """
        queue = self.queue
        order = self.order
        while not self.closed:
            while self._rest:
                try:
                    sent = self._send(self._sock, self._rest[0])
                except OSError as error:
                    return error
                if sent < len(self._rest[0]):
                    if sent:
                        self._last_taken = self._io.clock()
                        self._rest[0] = memoryview(self._rest[0])[sent:]
                        continue
                    return None
                del self._rest[0]
            batch: list[bytes] = []
            size = 0
            payload: bytes | None = None
            while queue and size < BATCH_SIZE:
                try:
                    entry = queue[0]
                    packet, reply, _ = entry
                    if reply:
                        order.append(entry)
                    queue.popleft()
                except IndexError:  # the client was closed, and waited for this thread no longer
                    return None
                if isinstance(packet, bytes):
                    batch.append(packet)
                    size += len(packet)
                else:
                    head, payload = packet
                    batch.append(head)
                    break
            if not batch:
                return None
            data = batch[0] if len(batch) == 1 else b"".join(batch)
            self._rest = [data] if payload is None else [data, payload]
        return None

    # ---- the I/O thread --------------------------------------------------------------------------------------------

    @property
    def wants_pump(self) -> bool:
        """Whether entries wait that no reply will set going."""
        if not self.queue or self._rest or self.closed or self._contention is not None:
            return False
        return len(self.order) < DIRECT_WINDOW

    def came_up(self) -> None:
        """The server has answered for the first time: callers may use the connection."""
        self.up = True
        self.up_since = self._io.now

    def doubt(self, suspect: bool) -> None:
        """Note whether a health check is unanswered for so long that other connections are to be preferred."""
        self.suspect = suspect

    def withdraw(self, token: object) -> bool:
        """Take a token's entry off the queue; return False if it has left already, or somebody is sending right now."""
        if not self.lock.acquire(False):
            return False
        try:
            for entry in copy_of(self.queue):
                if token_of(entry) is token:
                    self.queue.remove(entry)
                    return True
            return False
        finally:
            self.lock.release()

    def start(self, entries: list[Entry]) -> None:
        """Begin to watch the socket, with these entries first in line."""
        try:
            self._io.watch(self._sock, self)
        except OSError as error:
            self.lose(self._lost(f"the connection cannot be watched: {error}", error))
            return
        self.queue.extend(entries)
        self.pump()

    def pump(self) -> None:
        """Send what is queued, and watch for writability as long as something is left."""
        if self.closed or not (self.queue or self._rest):
            return
        if not self.lock.acquire(False):
            self._look_again()
            return
        try:
            error = self._drain()
        finally:
            self.lock.release()
        if error is not None:
            self._lose_by("sending failed", error)
            return
        if bool(self._rest) != self._write_watched:
            self._write_watched = not self._write_watched
            self._io.watch_writes(self._sock, self, self._write_watched)

    def on_ready(self, readable: bool, writable: bool) -> None:
        """Read what has come and send what waits."""
        if readable:
            self._read()
        if writable and not self.closed:
            self.pump()

    def _read(self) -> None:
        receive = self._receive
        for _ in range(READS_PER_TURN):
            room = self.session.room()
            try:
                data: bytes | int | None = (
                    receive(self._sock) if room is None else syscalls.receive_into(self._sock, room)
                )
            except OSError as error:
                self._lose_by("reading failed", error)
                return
            if data is None:
                return
            if not data:
                self._lose_by("the server closed the connection", None)
                return
            self.last_heard = self._io.now
            if not self._take(data) or self.closed:
                return
            if self._direct and isinstance(data, bytes) and len(data) < syscalls.KEEP_LIMIT:
                # A read that did not fill the buffer has emptied the socket, and the selector tells of more. This saves
                # the read that would only say so: one system call in four.
                return
            self._io.release_now()
        # There may be more: TLS holds decrypted bytes that the selector knows nothing of.
        self._io.post(self._read_on)

    def _take(self, data: bytes | int) -> bool:
        """Hand over what has come: bytes, or how many came into the session's room. Return whether all was well."""
        if isinstance(data, bytes) and not self.up_since and self._direct and looks_like_tls(data):
            self._lose_for_tls()
            return False
        try:
            events: list[Event] = self.session.receive(data) if isinstance(data, bytes) else self.session.filled(data)
        except ProtocolError as error:
            self._lose_for(error)
            return False
        if events:
            self._on_events(self, events)
        if self.session.failure is not None:
            self._lose_for(self.session.failure)
            return False
        return True

    def _lose_by(self, what: str, error: OSError | None) -> None:
        """Close the connection, whose socket is broken or at its end, and say why in words that tell what to do."""
        alert = None if self._direct or self.up_since else self._alert(error)
        if alert is not None:
            self.lose(tls_error(self.server.address, alert))
            return
        text = what if error is None else f"{what}: {error}"
        if not self.up_since:
            text += " before its first answer"
            if self._direct:
                text += "; if it wants TLS, give ssl_context or write gearmans://"
        self.lose(self._lost(text, error))

    def _alert(self, error: OSError | None) -> ssl.SSLError | None:
        """Return what TLS says of the end of a connection: an alert may be there to be read after sending failed.

        In TLS 1.3 a server refuses a client's certificate only when the client takes the handshake for finished.
        """
        if not _is_alert(error):
            try:
                self._receive(self._sock)
            except OSError as found:
                error = found
        return error if isinstance(error, ssl.SSLError) and _is_alert(error) else None

    def _lose_for(self, error: ProtocolError) -> None:
        address = self.server.name
        named = type(error)(f"{address}: {error}", server=address)
        named.__cause__ = error
        self.lose(named)

    def _lose_for_tls(self) -> None:
        address = self.server.name
        text = f"{address}: the server speaks TLS on this port, and the client does not: give ssl_context or write gearmans://"
        self.lose(TLSError(text, server=address))

    def _read_on(self) -> None:
        if not self.closed:
            self._read()

    def lose(self, error: GearmanError) -> None:
        """Close the connection for this reason and hand what it held to the pool."""
        if not self.closed:
            entries = self.close(error)
            self._owner.connection_lost(self, error, entries)

    def close(self, error: GearmanError) -> LostEntries:
        """Close the socket and return what the connection held.

        If a caller is in the middle of sending, nothing is returned yet: what the caller has in its hands is in doubt
        until it has left. As soon as it has, the owner is told of everything with ``error``.
        """
        self.closed = True
        self.up = False
        self._io.unwatch(self._sock)
        if self.lock.acquire(timeout=PATIENCE):
            # ``lock`` is not released: nobody sends here any more.
            return self._close_socket(certain=True)
        # The caller's system calls fail from now on. The descriptor stays until the caller has left, lest its number be
        # given to another connection under the caller's feet.
        self._loss = error
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._owner.connection_lingers(self)
        self._io.call_later(PATIENCE, self._close_later)
        return LostEntries([], [], [])

    def _close_socket(self, certain: bool) -> LostEntries:
        """Close the socket and return what the connection held.

        ``certain`` says that no caller was struck while sending: one that was may have sent bytes that still stand in
        ``_rest``.
        """
        with contextlib.suppress(OSError):
            self._sock.close()
        unsent_bytes = sum(len(buffer) for buffer in self._rest) if certain else 0
        self._rest = []
        order = list(self.session.order)
        accepted = self.session.abandon()
        queued = self._take_queue()
        unsent = []
        while order and unsent_bytes >= packet_size(order[-1][0]) > 0:
            unsent_bytes -= packet_size(order[-1][0])
            unsent.append(order.pop())
        unsent.reverse()
        return LostEntries(unsent + queued, order, accepted)

    def _close_later(self) -> None:
        if not self.close_lingering():
            self._io.call_later(PATIENCE, self._close_later)

    def close_lingering(self, patience: float = 0.0) -> bool:
        """Close the socket of a closed connection if whoever was sending has left; return whether it is closed.

        With ``patience`` the socket is closed after so many seconds even if somebody is still sending.
        """
        loss = self._loss
        if loss is None:
            return True
        certain = self.lock.acquire(timeout=patience)
        if not certain and not patience and self._somebody_drains():
            return False
        # After the end of the loop several callers may be here, and what the connection held is handed over once.
        if self._owner.connection_is_gone(self):
            self._loss = None
            self._owner.on_lost(self, loss, self._close_socket(certain))
        return True

    def close_after_fork(self) -> LostEntries:
        """In the child of a fork: close the descriptor, and say nothing to the server, who talks with the parent."""
        self.closed = True
        self.up = False
        with contextlib.suppress(OSError):
            os.close(self._sock.detach())
        order = list(self.session.order)
        return LostEntries(self._take_queue(), order, self.session.abandon())

    def _take_queue(self) -> list[Entry]:
        entries = []
        while True:
            try:
                entries.append(self.queue.popleft())
            except IndexError:
                return entries

    def rescue(self) -> None:
        """Hand over what has come to the connection after its end."""
        if self._loss is not None:
            return  # what the connection holds is handed over when whoever sends has left
        entries = self._take_queue()
        if entries:
            self._owner.on_lost(self, self._lost("the connection was closed"), LostEntries(entries, [], []))

    def _look_again(self) -> None:
        """While somebody else sends: come back soon, and see to it that the other has left by then."""
        if self._contention is None:
            self._contention = self._io.call_later(PATIENCE, self._check_holder)

    def _check_holder(self) -> None:
        self._contention = None
        if self.closed:
            return
        # Two looks, with a real wait for the lock between them: one look may fall between two holders.
        if not self._somebody_drains() and not self._acquire_and_release() and not self._somebody_drains():
            self.lose(self._lost("a caller was interrupted while it sent"))
        else:
            self.pump()

    def _acquire_and_release(self) -> bool:
        if self.lock.acquire(timeout=PATIENCE):
            self.lock.release()
            return True
        return False

    def _somebody_drains(self) -> bool:
        """Whether any other thread is inside the functions that hold ``lock`` of this connection."""
        me = threading.get_ident()
        return any(_is_draining(frame, self) for ident, frame in sys._current_frames().items() if ident != me)

    def _lost(self, why: str, cause: BaseException | None = None) -> ConnectionLost:
        error = ConnectionLost(f"{self.server.address}: {why}", server=self.server.name, retryable=True)
        error.__cause__ = cause
        return error


class Rescue:
    """A posted call that hands over what has come to a connection after its end.

    In the child of a fork nobody makes posted calls; the child looks for these, and asks the connection itself.
    """

    __slots__ = ("connection",)

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection: Connection[Any] = connection

    def __call__(self) -> None:
        self.connection.rescue()


def _is_alert(error: OSError | None) -> bool:
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")


#: The functions that hold ``lock``, as they stand on a thread's stack: a decorator or an override would hide them.
_DRAINING = frozenset((Connection._drain.__code__, Connection._flush.__code__))


def _is_draining(frame: FrameType | None, connection: Connection) -> bool:
    while frame is not None:
        if frame.f_code in _DRAINING and frame.f_locals.get("self") is connection:
            return True
        frame = frame.f_back
    return False
