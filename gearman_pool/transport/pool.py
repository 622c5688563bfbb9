"""The pool: which servers there are, the choice of one for each request, and what becomes of a lost connection.

A pool puts the pieces together, each of which has a room of its own: `Server` and `Reconnecting`, `HealthChecks`,
`WaitingRoom` and `Budget`, `Connection`. They call the methods under the banners that name them.

Threads: what stands under ANY THREAD may be called from any thread; those methods read tuples that the I/O thread
publishes whole, and take no lock. All else belongs to the I/O thread. The pool never blocks but in `wait_for_room`, and
never decides what becomes of a request: its `Handler` is told.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from functools import partial
from typing import Generic

from ..errors import ClientClosed, ConnectionLost, GearmanError, ServerUnavailable
from ..events import ConnectionClosed, ConnectionFailed, ConnectionOpened, Counters, ServerInfo
from ..protocol.session import Entry
from ..protocol.session import Event as SessionEvent
from ..settings.addresses import ServerAddress
from ..settings.client_options import ClientOptions
from ..settings.policies import STICKY, make_policy
from .connection import Connection, LostEntries, Rescue, S
from .handler import Handler, Query
from .health import HealthChecks, Probe
from .io_thread import IOThread
from .servers import Reconnecting, Server, ServerState
from .waiting_room import Budget, WaitingRoom

__all__ = ["Pool"]

#: How long a sticky policy waits at the very start for the server it prefers, in seconds.
_COLD_START = 1.0

#: How often it is looked whether a server that was taken out has nothing in flight any more, in seconds.
_DRAIN_CHECK = 0.05

#: How long the end of the loop waits for callers in the middle of sending on a closed connection, in seconds.
_LAST_PATIENCE = 0.5


class Pool(Generic[S]):
    """All servers and connections of one client.

    ``servers``, ``available`` and ``connections`` are tuples that the I/O thread replaces whole. ``wanted`` is changed
    by any thread, by single operations of a dict.
    """

    def __init__(
        self,
        io: IOThread,
        addresses: tuple[ServerAddress, ...],
        options: ClientOptions,
        new_session: Callable[[], S],
        handler: Handler[S],
        counters: Counters,
        rng: random.Random | None = None,
    ) -> None:
        self.io = io
        self.options = options
        self.counters = counters
        #: All servers in the order of the configuration, those that drain included.
        self.servers: tuple[Server[Connection[S]], ...] = tuple(Server(address) for address in addresses)
        #: The servers that are wanted, by address: those above but for what drains, and what the I/O thread has not yet
        #: taken in.
        self.wanted: dict[str, Server[Connection[S]]] = {server.name: server for server in self.servers}
        #: The servers that take requests.
        self.available: tuple[Server[Connection[S]], ...] = ()
        self.connections: tuple[Connection[S], ...] = ()
        #: Closed connections whose descriptor waits for a caller to leave; see `Connection.close`.
        self.lingering: list[Connection[S]] = []
        self.closing: bool = False
        # Bound once: each of them is the handler's own, without a call in between.
        self.on_events: Callable[[Connection[S], list[SessionEvent]], None] = handler.on_events
        self.on_lost: Callable[[Connection[S], GearmanError, LostEntries], None] = handler.on_lost
        self.on_unroutable: Callable[[Entry, GearmanError], None] = handler.on_unroutable
        self._emit = handler.emit
        self._policy = make_policy(options.policy)
        self._sticky = options.policy in STICKY
        # Some server's first attempt is under way, and a sticky policy may prefer that server to those that are there.
        self._holding = False
        self._new_session = new_session
        self.waiting_room: WaitingRoom = WaitingRoom(io, self)
        self.budget: Budget = Budget(io, options, self.waiting_room, self)
        #: `Budget.full`, bound once: each job asks.
        self.full: Callable[[int], bool] = self.budget.full
        self.reconnecting: Reconnecting = Reconnecting(io, options, self, rng)
        self._health = HealthChecks(io, options, self)
        io.post(self._start)

    # ==== ANY THREAD ================================================================================================

    def submit(self, entry: Entry, key: bytes | Server | None, timeout: float | None = None) -> None:
        """Put a request in line on some server, or let it wait for one. Never blocks.

        The request waits for ``timeout`` seconds, or ``submit_timeout``; a `Server` as the key means that one and no
        other.
        """
        room = self.waiting_room
        # What a thread submits later must not overtake what it submitted before there was a server.
        try:
            connection = None if room.held_up or room.arriving else self.choose(key)
        except Exception:  # a policy of the user's; if it fails once more, that is the job's outcome
            connection = None
        if connection is None:
            wait = self.options.submit_timeout if timeout is None else timeout
            room.arrive(entry, key, self.io.clock() + wait)
        else:
            connection.submit(entry)

    def choose(self, key: bytes | Server | None) -> Connection[S] | None:
        """Return the connection for a request with this key, or None if the request must wait."""
        available = self.available
        if isinstance(key, Server):
            server: Server[Connection[S]] | None = key
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

    def _choose_with_fresh(
        self, available: tuple[Server[Connection[S]], ...], key: bytes | None
    ) -> Server[Connection[S]] | None:
        """At the start: wait for a preferred server whose first attempt is still under way."""
        candidates = tuple(server for server in self.servers if server in available or server.fresh)
        server: Server[Connection[S]] | None = self._policy(candidates, key) if candidates else None
        return server if server in available else None

    def wait_for_room(self, size: int, deadline: float) -> bool:
        """See `Budget.wait_for_room`."""
        return self.budget.wait_for_room(size, deadline)

    def in_flight(self) -> int:
        """Return how many requests and jobs are held: queued, unanswered, unfinished, or waiting for a server."""
        count = self.waiting
        for connection in (*self.connections, *self.lingering):
            count += connection.pending
        return count

    @property
    def waiting(self) -> int:
        """How many requests wait for a server."""
        return len(self.waiting_room)

    def infos(self) -> tuple[ServerInfo, ...]:
        """Return what is known of each server."""
        now = self.io.clock()
        return tuple(server.info(now) for server in dict.fromkeys((*self.servers, *self.wanted.values())))

    def unavailable(self, why: str = "no server could be reached") -> ServerUnavailable:
        """Return an error that names every server and its last error."""
        errors = {address: server.trouble for address, server in list(self.wanted.items())}
        if not errors:
            return ServerUnavailable(
                "no servers are configured: give GearmanClient a list of addresses", retryable=False
            )
        details = "; ".join(f"{address}: {text}" for address, text in errors.items())
        error = ServerUnavailable(f"{why} within submit_timeout ({self.options.submit_timeout:g} s): {details}")
        error.servers = errors
        error.__cause__ = next((server.last_error for server in self.servers if server.last_error is not None), None)
        return error

    def add(self, address: ServerAddress) -> None:
        """Take a server in. One that is there already changes nothing."""
        server: Server[Connection[S]] = Server(address, fresh=False)
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

    # ==== THE CHILD OF A FORK =======================================================================================

    def close_after_fork(self) -> list[LostEntries]:
        """Close the inherited descriptors and return what the parent has in flight."""
        self.closing = True
        self.io.close_after_fork()
        self.reconnecting.close_after_fork()
        # Connections that have ended are known to nobody else when stragglers have come to them.
        rescued = [call.connection for call in self.io.take_inbox() if isinstance(call, Rescue)]
        lost = [connection.close_after_fork() for connection in (*self.connections, *self.lingering, *rescued)]
        lost.append(LostEntries(self.waiting_room.entries(), [], []))
        self.available = ()
        return lost

    # ==== THE I/O THREAD ============================================================================================

    def turn(self) -> None:
        """Send what has gathered, and let callers in that wait for room."""
        if self.waiting_room.arriving:
            self.waiting_room.take_arrivals()
        for connection in self.connections:
            if connection.queue:
                connection.pump()
        if self.budget.callers:
            self.budget.let_in()

    def has_work(self) -> bool:
        """Whether something is queued that no reply will set going."""
        if self.waiting_room.arriving:
            return True
        for connection in self.connections:  # noqa: SIM110 - a generator costs more than all it looks at
            if connection.wants_pump:
                return True
        return False

    def busy(self, accepted: bool = True) -> bool:
        """Whether anything is in flight but greetings and health checks; without ``accepted``, accepted jobs are not.

        A server that never answers a health check must not hold up whoever closes the client.
        """
        if self.waiting:
            return True
        for connection in (*self.connections, *self.lingering):
            if accepted and connection.handles:
                return True
            if any(token is not None and not isinstance(token, Probe) for token in connection.tokens()):
                return True
        return False

    def park_again(self, entry: Entry, key: bytes | Server | None, deadline: float) -> None:
        """Send a request that a lost connection gave back, or let it wait for a server until ``deadline``."""
        self.budget.take_back()
        self.waiting_room.park(entry, key, deadline)

    def withdraw(self, token: object) -> bool:
        """Take a token's request off the waiting ones or a queue; return whether it was still there."""
        return self.waiting_room.withdraw(token) or any(connection.withdraw(token) for connection in self.connections)

    def close(self, error: GearmanError) -> None:
        """Close every connection; what they and the waiting room held is handed over with ``error``."""
        self.closing = True
        for server in self.servers:
            self.reconnecting.cancel(server)
        for connection in self.connections:
            connection.lose(error)
        for connection in list(self.lingering):
            connection.close_lingering(_LAST_PATIENCE)
        self.available = ()
        self.waiting_room.close(error)
        self.budget.close()

    def publish(self) -> None:
        """Say anew which servers take requests; those that wait go before those that come now."""
        self.waiting_room.hold_up()
        for server in self.servers:
            server.offer()
        up = [server for server in self.servers if server.up]
        self.available = tuple([server for server in up if not server.up[0].suspect] or up)
        self._holding = self._sticky and any(server.fresh for server in self.servers)
        self.waiting_room.go_on(bool(self.available))

    # ---- servers come and go ---------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.io.call_later(_COLD_START, self._end_cold_start)
        for server in self.servers:
            self.reconnecting.connect(server)

    def _end_cold_start(self) -> None:
        for server in self.servers:
            server.settle()
        self.publish()

    def _add(self, server: Server[Connection[S]]) -> None:
        if self.wanted.get(server.name) is not server:
            return  # the server has been taken out again
        self.servers = (*self.servers, server)
        self.reconnecting.connect(server)

    def _remove(self, server: Server[Connection[S]], drain: bool) -> None:
        if server not in self.servers:
            return
        if server.state is not ServerState.DRAINING:
            server.move(ServerState.DRAINING)
        self.reconnecting.cancel(server)
        self.publish()
        self._drain(server, drain)

    def _drain(self, server: Server[Connection[S]], wait: bool) -> None:
        if wait and any(connection.pending for connection in server.connections):
            self.io.call_later(_DRAIN_CHECK, partial(self._drain, server, wait))
            return
        for connection in list(server.connections):
            connection.lose(ConnectionLost(f"{server.address}: the server was removed", server=server.name))
        if server.state is ServerState.DRAINING:
            server.move(ServerState.DOWN)
        self.servers = tuple(other for other in self.servers if other is not server)
        self.publish()

    # ---- what the waiting room asks --------------------------------------------------------------------------------

    def refusal(self) -> GearmanError | None:
        """See `Routing.refusal`."""
        if self.closing:
            return ClientClosed("the client was closed before the job was sent")
        return self.unavailable() if not self.wanted and not self.servers else None

    # ---- what reconnecting asks and tells --------------------------------------------------------------------------

    def wants(self, server: Server) -> bool:
        """See `Connecting.wants`."""
        return not self.closing and server in self.servers and server.state is not ServerState.DRAINING

    def connected(self, server: Server[Connection[S]], sock: socket.socket, started: float) -> None:
        """See `Connecting.connected`."""
        connection = Connection(self, server, sock, self._new_session())
        server.gain(connection)
        self.connections = (*self.connections, connection)
        self._health.greet(connection, started)

    def connect_failed(self, server: Server, error: GearmanError) -> None:
        """See `Connecting.connect_failed`."""
        server.connect_failed()
        if self.closing:
            return  # given up, not failed
        server.note(error)
        self.counters.connections_failed += 1
        self.reconnecting.retry_later(server)
        self._emit(ConnectionFailed(server.name, str(error), server.retry_in(self.io.clock()) or 0.0))
        self.publish()

    # ---- what the health checks tell -------------------------------------------------------------------------------

    def came_up(self, connection: Connection[S], took: float) -> None:
        """See `Checking.came_up`."""
        connection.server.came_up()
        self.counters.connections_opened += 1
        self._emit(ConnectionOpened(connection.server.name, took))
        self.publish()

    # ---- what a connection tells -----------------------------------------------------------------------------------

    def connection_lost(self, connection: Connection[S], error: GearmanError, entries: LostEntries) -> None:
        """See `Owner.connection_lost`."""
        server = connection.server
        server.lose(connection)
        self.connections = tuple(other for other in self.connections if other is not connection)
        if connection.up_since > 0:
            if not self.closing:
                self.counters.connections_lost += 1
            server.note(error)
            self.publish()
            if not server.up and server.state is ServerState.UP:
                server.move(ServerState.DOWN)
            self.reconnecting.lost(server, self.io.now - connection.up_since)
            questions = sum(isinstance(token, Query) for _, _, token in entries.unanswered)
            jobs = len(entries.unanswered) - questions + len(entries.accepted)
            self._emit(ConnectionClosed(server.name, None if self.closing else str(error), jobs))
        else:
            self.connect_failed(server, error)
        self.on_lost(connection, error, entries)

    def connection_lingers(self, connection: Connection[S]) -> None:
        """See `Owner.connection_lingers`."""
        self.lingering.append(connection)

    def connection_is_gone(self, connection: Connection[S]) -> bool:
        """See `Owner.connection_is_gone`."""
        try:
            self.lingering.remove(connection)
        except ValueError:
            return False
        return True


def _pending(connection: Connection) -> int:
    return connection.pending
