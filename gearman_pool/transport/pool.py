"""The pool: servers, their health and backoff, the choice of a server, and the budget of what may be in flight.

Threads: `submit`, `choose`, `full`, `in_flight`, `wait_for_room`, `infos`, `add` and `remove` may be called from any
thread; they read tuples that the I/O thread publishes whole, and take no lock. All else belongs to the I/O thread.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, Protocol

from ..errors import ClientClosed, ConnectionLost, ConnectTimeout, GearmanError, InvalidClientState, ServerUnavailable
from ..events import ConnectionClosed, ConnectionFailed, ConnectionOpened, Counters, Event, ServerInfo
from ..protocol.commands import Command
from ..protocol.packets import COPY_LIMIT, pack, packet_size
from ..protocol.session import Entry, ReplySession
from ..protocol.session import Event as SessionEvent
from ..settings.addresses import ServerAddress
from ..settings.client_options import ClientOptions
from ..settings.policies import STICKY, make_policy
from .connection import Connection, LostEntries
from .connector import Attempt, Outcome
from .io_thread import IOThread, Timer, copy_of

__all__ = ["SERVER_MOVES", "Handler", "Pool", "Query", "Server", "ServerState"]


class ServerState(str, Enum):
    """Where a server stands."""

    DOWN = "DOWN"
    CONNECTING = "CONNECTING"
    UP = "UP"
    DRAINING = "DRAINING"


#: The state machine of a server: what may follow what, and why. The documentation draws this table.
SERVER_MOVES: dict[ServerState, dict[ServerState, str]] = {
    ServerState.DOWN: {ServerState.CONNECTING: "first use, or the backoff is over", ServerState.DRAINING: "removed"},
    ServerState.CONNECTING: {
        ServerState.UP: "answered an ECHO_REQ",
        ServerState.DOWN: "refused, timed out, or did not answer",
        ServerState.DRAINING: "removed",
    },
    ServerState.UP: {ServerState.DOWN: "the last connection was lost", ServerState.DRAINING: "removed"},
    ServerState.DRAINING: {ServerState.DOWN: "nothing is in flight there any more"},
}

#: A server that was up for less than this, in seconds, is backed off from as if the attempt had failed.
_STABLE_AFTER = 10.0

#: How many requests are let in at once besides those that stood in line.
_STRAGGLERS = 1000

#: How long a sticky policy waits at the very start for the server it prefers, in seconds.
_COLD_START = 1.0

#: An unanswered health check makes a connection suspect after this part of ``health_check_timeout``.
_SUSPECT_PART = 1 / 3

#: The unit in which room for bytes is given away without counting what is there.
_ROOM_UNIT = COPY_LIMIT

#: How long the end of the loop waits for callers in the middle of sending on a closed connection, in seconds.
_LAST_PATIENCE = 0.5

_PROBE = b"gearman_pool"


class Query:
    """Base for what stands as a token behind requests that are no jobs. Called on the I/O thread; must not block."""

    def answered(self, connection: Connection, value: Any) -> None:
        """The reply came."""

    def refused(self, connection: Connection, code: str, text: str) -> None:
        """ERROR came in place of the reply."""

    def lost(self, error: GearmanError) -> None:
        """The connection was lost before the reply came, or no server could be had."""


class Handler(Protocol):
    """Who owns the requests. Called on the I/O thread; must not block."""

    def on_events(self, connection: Connection, events: list[SessionEvent]) -> None:
        """The session has understood these."""

    def on_lost(self, connection: Connection, error: GearmanError, entries: LostEntries) -> None:
        """A connection is gone; these are what it held."""

    def on_unroutable(self, entry: Entry, error: GearmanError) -> None:
        """No server could be had for this entry in time."""

    def emit(self, event: Event) -> None:
        """Tell the listeners, elsewhere."""


class _Probe(Query):
    """A health check on its way."""

    def __init__(self, pool: Pool, started: float) -> None:
        self._pool = pool
        self.started = started
        self.sent: float = pool.io.clock()
        self.done: bool = False
        self.timers: list[Timer] = []

    def answered(self, connection: Connection, value: Any) -> None:
        self.done = True
        # Cancelled, not left to find out that all is well: an idle client must not wake for them.
        for timer in self.timers:
            timer.cancel()
        self._pool.probe_answered(connection, self)


class Server:
    """One server: its state, its connections, and when to try again.

    ``up`` is a tuple that the I/O thread replaces whole; any thread may read it. All else belongs to the I/O thread.
    """

    def __init__(self, address: ServerAddress) -> None:
        self.address = address
        self.name: str = str(address)
        self.key: bytes = self.name.encode()
        self.state: ServerState = ServerState.DOWN
        self.up: tuple[Connection, ...] = ()
        self.connections: list[Connection] = []
        self.attempts: list[Attempt] = []
        self.fresh = True
        self.failures = 0
        self.generation = 0
        self.latency: float | None = None
        self.last_error: GearmanError | None = None
        self.retry: Timer | None = None
        #: What the owner of the requests shows its users for this server, once it has made it.
        self.public: Any = None

    def __repr__(self) -> str:
        return f"<Server {self.address} {self.state.value}, {self.pending} in flight>"

    @property
    def pending(self) -> int:
        """How many requests and jobs are in flight there. Runs on any thread."""
        return sum(connection.pending for connection in self.up)

    def move(self, state: ServerState) -> None:
        """Go to another state.

        Raises:
            InvalidClientState: the table has no such move; that is a bug.
        """
        if state not in SERVER_MOVES[self.state]:
            raise InvalidClientState(f"server {self.address}: no move from {self.state.value} to {state.value}")
        self.state = state


class Pool:
    """All connections of one client.

    A server counts as up only once it has answered an ECHO_REQ: a frozen one still accepts connections, and about 4 MB.
    """

    def __init__(
        self,
        io: IOThread,
        addresses: tuple[ServerAddress, ...],
        options: ClientOptions,
        new_session: Callable[[], ReplySession],
        handler: Handler,
        counters: Counters,
        rng: random.Random | None = None,
    ) -> None:
        self.io = io
        self.options = options
        self.handler = handler
        self.counters = counters
        #: All servers in the order of the configuration, and those that take jobs. Replaced whole by the I/O thread.
        self.servers: tuple[Server, ...] = tuple(Server(address) for address in addresses)
        #: The servers that are wanted, by address: those above but for what drains, and what the I/O thread has not yet
        #: taken in. Changed by any thread, by single operations.
        self.wanted: dict[str, Server] = {server.name: server for server in self.servers}
        self.available: tuple[Server, ...] = ()
        self.connections: tuple[Connection, ...] = ()
        self.closing: bool = False
        #: Closed connections whose descriptor waits for a caller to leave; see `Connection.close`.
        self.lingering: list[Connection] = []
        self._policy = make_policy(options.policy)
        self._sticky = options.policy in STICKY
        # Some server's first attempt is under way, and a sticky policy may prefer that one to those that are there.
        self._holding = False
        self._new_session = new_session
        self._random = rng or random.Random()
        #: Requests that no connection could be had for, as callers leave them, and as the I/O thread keeps them.
        self._arriving: deque[tuple[float, bytes | Server | None, Entry]] = deque()
        self._waiting: deque[tuple[float, bytes | Server | None, Entry]] = deque()
        # Waiting requests go first: new ones queue up behind them. Written by the I/O thread.
        self._held_up = True
        self._waiting_timer: Timer | None = None
        # Callers that wait for room, and for how many bytes.
        self._room_waiters: deque[tuple[threading.Lock, int]] = deque()
        # Each request that asks for room draws a number for each unit that it takes. Up to this one there is room for
        # certain; see `_too_many_bytes`. Replaced by any thread, and true whenever it is: it speaks of numbers.
        self._numbers = itertools.count()
        self._room_until = 0
        io.post(self._start)

    # ---- any thread ------------------------------------------------------------------------------------------------

    def submit(self, entry: Entry, key: bytes | Server | None, timeout: float | None = None) -> None:
        """Put a request in line on some server, or let it wait for one. Never blocks.

        It waits for ``timeout`` seconds, or ``submit_timeout``; a `Server` as the key means that one and no other.
        """
        # What a thread submits later must not overtake what it submitted before there was a server.
        try:
            connection = None if self._held_up or self._arriving else self.choose(key)
        except Exception:  # a policy of the user's; if it fails once more, that is the job's outcome
            connection = None
        if connection is None:
            wait = self.options.submit_timeout if timeout is None else timeout
            # Counted from here on: a burst must not get past the budget before the I/O thread has seen it.
            self._arriving.append((self.io.clock() + wait, key, entry))
            self.io.wake()
        else:
            connection.submit(entry)

    def choose(self, key: bytes | Server | None) -> Connection | None:
        """Return the connection for a request with this key, or None if it must wait."""
        available = self.available
        if isinstance(key, Server):
            server: Server | None = key
        elif self._holding:
            server = self._choose_with_fresh(available, key)
        elif len(available) == 1:
            server = available[0]
        elif available:
            server = self._policy(available, key)
        else:
            return None
        connections = server.up if server is not None else ()
        if len(connections) == 1:
            return connections[0]
        return min(connections, key=_pending) if connections else None

    def _choose_with_fresh(self, available: tuple[Server, ...], key: bytes | None) -> Server | None:
        """At the start: wait for a preferred server whose first attempt is still under way."""
        candidates = tuple(server for server in self.servers if server in available or server.fresh)
        server: Server | None = self._policy(candidates, key) if candidates else None
        return server if server in available else None

    def in_flight(self) -> int:
        """Return how many requests and jobs are held: queued, unanswered, unfinished, or waiting for a server."""
        count = self.waiting
        for connection in (*self.connections, *self.lingering):
            count += connection.pending
        return count

    def busy(self, accepted: bool = True) -> bool:
        """Whether anything is in flight but greetings and health checks; without ``accepted``, accepted jobs are not.

        Runs on the I/O thread. A server that never answers a health check must not hold up whoever closes the client.
        """
        if self.waiting:
            return True
        for connection in (*self.connections, *self.lingering):
            if accepted and connection.handles:
                return True
            # Copies, because callers append.
            for _, _, token in (*copy_of(connection.queue), *copy_of(connection.order)):
                if token is not None and not isinstance(token, _Probe):
                    return True
        return False

    @property
    def waiting(self) -> int:
        """How many requests wait for a server."""
        return len(self._arriving) + len(self._waiting)

    def full(self, size: int) -> bool:
        """Whether one more job, of ``size`` bytes, is more than the budget allows."""
        held = len(self._arriving) + len(self._waiting)
        # This costs every job: no tuple is made for the rare connection that lingers.
        for connection in (*self.connections, *self.lingering) if self.lingering else self.connections:
            held += len(connection.queue) + len(connection.order) + len(connection.handles)
        if held >= self.options.max_in_flight:
            return True
        number = next(self._numbers)
        for _ in range(size // _ROOM_UNIT):
            number = next(self._numbers)
        return number >= self._room_until and self._too_many_bytes(size, number)

    def _too_many_bytes(self, size: int, number: int) -> bool:
        """Count the bytes that wait to be sent, and say up to which number there is room.

        They are counted in the queues themselves: a counter would drift with each caller that is interrupted between
        taking and giving back. Measured: counting a queue of 900 takes 60 us, ten times what a job costs.
        """
        held = sum(packet_size(entry[0]) for _, _, entry in (*copy_of(self._arriving), *copy_of(self._waiting)))
        held += sum(connection.outbound_bytes() for connection in self.connections)
        room = self.options.max_outbound_bytes - held - size
        # A job that is larger than the limit goes alone.
        if held > 0 and room < 0:
            return True
        self._room_until = number + 1 + max(room, 0) // _ROOM_UNIT
        return False

    def wait_for_room(self, size: int, deadline: float) -> bool:
        """Wait until the budget has room for one more job; return False if that took too long."""
        while self.full(size):
            waiter = threading.Lock()
            waiter.acquire()
            place = waiter, size
            self._room_waiters.append(place)
            self.io.wake()
            remaining = deadline - self.io.clock()
            if self.full(size) and (remaining <= 0 or not waiter.acquire(timeout=remaining)):
                with contextlib.suppress(ValueError):  # it has just been released
                    self._room_waiters.remove(place)
                return not self.full(size)
        return True

    def infos(self) -> tuple[ServerInfo, ...]:
        """Return what is known of each server."""
        return tuple(self._info(server) for server in dict.fromkeys((*self.servers, *self.wanted.values())))

    def add(self, address: ServerAddress) -> None:
        """Take a server in. One that is there already changes nothing."""
        server = Server(address)
        server.fresh = False
        if self.wanted.setdefault(str(address), server) is server:
            self.io.post(partial(self._add, server))

    def remove(self, address: str, drain: bool) -> bool:
        """Take a server out: give it no more jobs, and close it when what is in flight there is done, or at once.

        Return whether it was there; one that drains already is, and can be told to do so no longer.
        """
        server = self.wanted.pop(address, None)
        if server is None:
            draining = [server for server in self.servers if server.state is ServerState.DRAINING]
            server = next((server for server in draining if server.name == address), None)
        if server is not None:
            self.io.post(partial(self._remove, server, drain))
        return server is not None

    def _info(self, server: Server) -> ServerInfo:
        retry = server.retry
        return ServerInfo(
            address=server.name,
            state=server.state.value,
            connections=len(server.up),
            in_flight=server.pending,
            latency=server.latency,
            last_error=str(server.last_error) if server.last_error is not None else None,
            retry_in=max(0.0, retry.when - self.io.clock()) if retry is not None and retry.alive else None,
        )

    def unavailable(self, why: str = "no server could be reached") -> ServerUnavailable:
        """Return an error that names every server and its last error."""
        errors = {address: _last_error(server) for address, server in list(self.wanted.items())}
        if not errors:
            return ServerUnavailable(
                "no servers are configured: give GearmanClient a list of addresses", retryable=False
            )
        details = "; ".join(f"{address}: {text}" for address, text in errors.items())
        error = ServerUnavailable(f"{why} within submit_timeout ({self.options.submit_timeout:g} s): {details}")
        error.servers = errors
        error.__cause__ = next((server.last_error for server in self.servers if server.last_error is not None), None)
        return error

    # ---- the I/O thread: the turn ----------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Send what has gathered, and let callers in that wait for room."""
        if self._arriving:
            self._take_arrivals()
        for connection in self.connections:
            if connection.queue:
                connection.pump()
        if self._room_waiters and not self.full(0):
            for _ in range(len(self._room_waiters)):
                waiter, size = self._room_waiters.popleft()
                if self.full(size):
                    self._room_waiters.append((waiter, size))
                else:
                    waiter.release()
        return False

    def has_work(self) -> bool:
        """Whether something is queued that no reply will set going."""
        if self._arriving:
            return True
        for connection in self.connections:  # noqa: SIM110 - a generator costs more than all it looks at
            if connection.wants_pump:
                return True
        return False

    # ---- the I/O thread: waiting requests --------------------------------------------------------------------------

    def _take_arrivals(self) -> None:
        # Those too that come meanwhile, or they would go on coming here; but not for ever.
        for _ in range(len(self._arriving) + _STRAGGLERS):
            try:
                arrival = self._arriving[0]
            except IndexError:
                return
            # It stays in line until it is in its place: nobody who comes later gets past a line that is not empty.
            deadline, key, entry = arrival
            try:
                self.park(entry, key, deadline)
            finally:
                # This one, and not whatever is the first by now: when the loop has ended, several threads may be here.
                with contextlib.suppress(ValueError):
                    self._arriving.remove(arrival)

    def park_again(self, entry: Entry, key: bytes | Server | None, deadline: float) -> None:
        """`park` a request that had room once, and gave it back when it left."""
        self._room_until = 0
        self.park(entry, key, deadline)

    def park(self, entry: Entry, key: bytes | Server | None, deadline: float) -> None:
        """Send the request, or let it wait for a server until ``deadline``."""
        if self.closing:
            self.handler.on_unroutable(entry, ClientClosed("the client was closed before the job was sent"))
        elif not self.wanted and not self.servers:
            self.handler.on_unroutable(entry, self.unavailable())
        elif not self._try(entry, key):
            self._waiting.append((deadline, key, entry))
            self._watch_waiting(deadline)

    def _try(self, entry: Entry, key: bytes | Server | None) -> bool:
        try:
            connection = self.choose(key)
        except Exception as error:  # a policy of the user's
            self.handler.on_unroutable(entry, GearmanError(f"the policy failed: {error!r}"))
            return True
        if connection is None:
            return False
        connection.submit(entry)
        return True

    def _unpark(self) -> None:
        for _ in range(len(self._waiting)):
            deadline, key, entry = self._waiting.popleft()
            if not self._try(entry, key):
                self._waiting.append((deadline, key, entry))

    def _watch_waiting(self, deadline: float) -> None:
        timer = self._waiting_timer
        if timer is not None and timer.alive:
            if timer.when <= deadline:
                return
            timer.cancel()
        self._waiting_timer = self.io.call_at(deadline, self._expire)

    def _expire(self) -> None:
        now = self.io.clock()
        self._waiting_timer = None
        late = [item for item in self._waiting if item[0] <= now]
        self._waiting = deque(item for item in self._waiting if item[0] > now)
        for _, _, entry in late:
            self.handler.on_unroutable(entry, self.unavailable())
        if self._waiting:
            self._watch_waiting(min(item[0] for item in self._waiting))

    def withdraw(self, token: object) -> bool:
        """Take a token's request off the waiting ones or a queue; return whether it was still there."""
        self._take_arrivals()
        for item in self._waiting:
            if item[2][2] is token:
                self._waiting.remove(item)
                return True
        return any(connection.withdraw(token) for connection in self.connections)

    # ---- the I/O thread: connecting --------------------------------------------------------------------------------

    def _start(self) -> None:
        self.io.call_later(_COLD_START, self._end_cold_start)
        for server in self.servers:
            self._connect(server)

    def _end_cold_start(self) -> None:
        for server in self.servers:
            server.fresh = False
        self._publish()

    def _add(self, server: Server) -> None:
        if self.wanted.get(server.name) is not server:
            return  # it has been taken out again
        self.servers = (*self.servers, server)
        self._connect(server)

    def _remove(self, server: Server, drain: bool) -> None:
        if server not in self.servers:
            return
        if server.state is not ServerState.DRAINING:
            server.move(ServerState.DRAINING)
        if server.retry is not None:
            server.retry.cancel()
        self._publish()
        self._drain(server, drain)

    def _drain(self, server: Server, wait: bool) -> None:
        if wait and any(connection.pending for connection in server.connections):
            self.io.call_later(0.05, partial(self._drain, server, wait))
            return
        for connection in list(server.connections):
            connection.lose(ConnectionLost(f"{server.address}: the server was removed", server=server.name))
        if server.state is ServerState.DRAINING:
            server.move(ServerState.DOWN)
        self.servers = tuple(other for other in self.servers if other is not server)
        self._publish()

    def _connect(self, server: Server) -> None:
        if self.closing or server not in self.servers or server.state is ServerState.DRAINING:
            return
        if server.state is ServerState.DOWN:
            server.move(ServerState.CONNECTING)
        # An attempt that hangs in the resolver cannot be ended; as long as one does, there is no use in another.
        for _ in range(self.options.connections_per_server - len(server.connections) - len(server.attempts)):
            self._attempt(server)

    def _attempt(self, server: Server) -> None:
        started = self.io.clock()
        attempt = Attempt(server.address, self.options.connect_timeout, partial(self._attempt_ended, server, started))
        server.attempts.append(attempt)
        attempt.timer = self.io.call_later(
            self.options.connect_timeout + 0.1, partial(self._attempt_hangs, server, attempt)
        )
        attempt.start(f"{self.io.name}-connect")

    def _attempt_ended(self, server: Server, started: float, attempt: Attempt, outcome: Outcome) -> None:
        """Runs on the attempt's thread."""
        self.io.post(partial(self._attempted, server, started, attempt, outcome))
        if self.io.ended and isinstance(outcome, socket.socket):
            outcome.close()

    def _attempt_hangs(self, server: Server, attempt: Attempt) -> None:
        if attempt in server.attempts and server.state is ServerState.CONNECTING and not attempt.finished:
            text = (
                f"{server.address}: no connection within connect_timeout ({attempt.timeout:g} s); the resolver may hang"
            )
            self._failed(server, ConnectTimeout(text, server=server.name))

    def _attempted(self, server: Server, started: float, attempt: Attempt, outcome: Outcome) -> None:
        if attempt in server.attempts:
            server.attempts.remove(attempt)
        if attempt.timer is not None:
            attempt.timer.cancel()
        if isinstance(outcome, GearmanError):
            if server.state is ServerState.CONNECTING or server.state is ServerState.UP:
                self._failed(server, outcome)
            else:
                self._retry_later(server)
            return
        if self.closing or server not in self.servers or server.state in (ServerState.DRAINING, ServerState.DOWN):
            outcome.close()
            self._retry_later(server)
            return
        server.generation += 1
        connection = Connection(self, server, outcome, self._new_session(), server.generation)
        server.connections.append(connection)
        self.connections = (*self.connections, connection)
        probe = _Probe(self, started)
        greeting: list[Entry] = [
            *connection.session.greeting(),
            (pack(Command.ECHO_REQ, _PROBE), Command.ECHO_RES, probe),
        ]
        self._expect(connection, probe)
        connection.start(greeting)

    def _failed(self, server: Server, error: GearmanError) -> None:
        """An attempt failed, or a connection did not last: note it, and try again after the backoff."""
        server.fresh = False
        if server.state is ServerState.CONNECTING:
            server.move(ServerState.DOWN)
        if self.closing:
            return  # given up, not failed
        server.last_error = error
        self.counters.connections_failed += 1
        self._retry_later(server)
        retry_in = max(0.0, server.retry.when - self.io.clock()) if server.retry is not None else 0.0
        self.handler.emit(ConnectionFailed(server.name, str(error), retry_in))
        self._publish()

    def _retry_later(self, server: Server) -> None:
        if self.closing or server not in self.servers or server.state is ServerState.DRAINING:
            return
        if server.retry is not None and server.retry.alive:
            return
        first, longest = self.options.reconnect_backoff
        # Full jitter: clients that lost a server together must not come back together.
        delay = self._random.uniform(0, min(longest, first * 2 ** min(server.failures, 32)))
        server.failures += 1
        server.retry = self.io.call_later(delay, partial(self._connect, server))

    # ---- the I/O thread: health ------------------------------------------------------------------------------------

    def probe_answered(self, connection: Connection, probe: _Probe) -> None:
        """A health check was answered: the first one makes the connection usable."""
        server = connection.server
        server.latency = self.io.now - probe.sent
        if not connection.up and not connection.closed:
            connection.up = True
            connection.up_since = self.io.now
            server.last_error = None
            server.fresh = False
            if server.state is ServerState.CONNECTING:
                server.move(ServerState.UP)
            self.counters.connections_opened += 1
            self.handler.emit(ConnectionOpened(server.name, self.io.now - probe.started))
            self.io.call_later(self.options.health_check_interval, partial(self._check, connection))
            self._publish()
        elif connection.suspect:
            connection.suspect = False
            self._publish()

    def _check(self, connection: Connection) -> None:
        if connection.closed:
            return
        probe = _Probe(self, self.io.now)
        connection.submit((pack(Command.ECHO_REQ, _PROBE), Command.ECHO_RES, probe))
        connection.pump()
        self._expect(connection, probe)
        self.io.call_later(self.options.health_check_interval, partial(self._check, connection))

    def _expect(self, connection: Connection, probe: _Probe) -> None:
        timeout = self.options.health_check_timeout
        probe.timers.append(self.io.call_later(timeout * _SUSPECT_PART, partial(self._suspect, connection, probe)))
        probe.timers.append(self.io.call_later(timeout, partial(self._check_unanswered, connection, probe)))

    def _suspect(self, connection: Connection, probe: _Probe) -> None:
        if not probe.done and not connection.closed and connection.last_progress < probe.sent:
            connection.suspect = True
            self._publish()

    def _check_unanswered(self, connection: Connection, probe: _Probe) -> None:
        if probe.done or connection.closed:
            return
        timeout = self.options.health_check_timeout
        silent = self.io.now - max(connection.last_progress, probe.sent)
        if silent < timeout and connection.up:
            # It talks, or takes what it is sent, but has not come to the ECHO_REQ yet: there is much before it.
            again = partial(self._check_unanswered, connection, probe)
            probe.timers.append(self.io.call_later(timeout - silent, again))
            return
        address = connection.server.name
        text = f"{address}: no answer to a health check within health_check_timeout ({timeout:g} s)"
        connection.lose(ConnectionLost(text, server=address, retryable=True))

    # ---- the I/O thread: the end of a connection -------------------------------------------------------------------

    def connection_lost(self, connection: Connection, error: GearmanError, entries: LostEntries) -> None:
        """Account for a connection that has been closed, and hand over what it held."""
        server = connection.server
        was_up = connection.up_since > 0
        server.connections.remove(connection)
        self.connections = tuple(other for other in self.connections if other is not connection)
        if was_up:
            if not self.closing:
                self.counters.connections_lost += 1
            if self.io.now - connection.up_since >= _STABLE_AFTER:
                server.failures = 0
            server.last_error = error
            self._publish()
            if not server.up and server.state is ServerState.UP:
                server.move(ServerState.DOWN)
            self._retry_later(server)
            questions = sum(isinstance(entry[2], Query) for entry in entries.unanswered)
            jobs = len(entries.unanswered) - questions + len(entries.accepted)
            self.handler.emit(ConnectionClosed(server.name, None if self.closing else str(error), jobs))
        else:
            self._failed(server, error)
        self.handler.on_lost(connection, error, entries)

    def _publish(self) -> None:
        self._held_up = True
        for server in self.servers:
            usable = [c for c in server.connections if c.up] if server.state is not ServerState.DRAINING else []
            server.up = tuple([c for c in usable if not c.suspect] or usable)
        up = [server for server in self.servers if server.up]
        self.available = tuple([server for server in up if not server.up[0].suspect] or up)
        self._holding = self._sticky and any(server.fresh for server in self.servers)
        if self._waiting and self.available:
            self._unpark()
        self._held_up = not self.available

    def close(self, error: GearmanError) -> None:
        """Close every connection; what they and the waiting line held is handed over with ``error``."""
        self.closing = True
        for server in self.servers:
            if server.retry is not None:
                server.retry.cancel()
        for connection in self.connections:
            connection.lose(error)
        for connection in list(self.lingering):
            connection.close_lingering(_LAST_PATIENCE)
        self.available = ()
        self._take_arrivals()
        waiting, self._waiting = self._waiting, deque()
        for _, _, entry in waiting:
            self.handler.on_unroutable(entry, error)
        while self._room_waiters:
            self._room_waiters.popleft()[0].release()

    def close_after_fork(self) -> list[LostEntries]:
        """In the child of a fork: close the inherited descriptors and return what the parent has in flight."""
        self.closing = True
        self.io.close_after_fork()
        lost = [connection.close_after_fork() for connection in self.connections]
        lost.extend(connection.close_after_fork() for connection in self.lingering)
        lost.append(LostEntries([entry for _, _, entry in (*self._arriving, *self._waiting)], [], []))
        for server in self.servers:
            for attempt in server.attempts:
                attempt.close_after_fork()
        # Stragglers that had come to a connection after its end, and sockets that had just been connected.
        for call in self.io.take_inbox():
            owner = getattr(call, "__self__", None)
            if isinstance(owner, Connection):
                lost.append(owner.close_after_fork())
            for argument in getattr(call, "args", ()):
                # Whoever posted to a loop that had ended has closed its socket already.
                if isinstance(argument, socket.socket) and argument.fileno() >= 0:
                    os.close(argument.detach())
        self.available = ()
        return lost


def _pending(connection: Connection) -> int:
    return connection.pending


def _last_error(server: Server) -> str:
    if server.last_error is None:
        return server.state.value.lower()
    return str(server.last_error).removeprefix(f"{server.address}: ")
