"""One server: the states that it goes through, and the attempts to connect to it, with a growing pause between them.

Threads: `Server.up`, `Server.pending`, `Server.info` and `Server.trouble` may be read from any thread. All else belongs
to the I/O thread; an `Attempt` runs on a thread of its own, and posts its outcome. Nothing here knows what is sent on a
connection, or which server gets a job: sockets and failures go to the pool.
"""

from __future__ import annotations

import random
import socket
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol

from ..errors import ConnectTimeout, GearmanError, InvalidClientState
from ..events import ServerInfo
from ..settings.addresses import ServerAddress
from ..settings.client_options import ClientOptions
from .connector import Attempt, Outcome
from .io_thread import IOThread
from .timers import Timer

__all__ = ["SERVER_MOVES", "Connecting", "Reconnecting", "Server", "ServerState"]


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

#: How much longer than ``connect_timeout`` an attempt may take before its resolver is taken to hang, in seconds.
_GRACE = 0.1


class Carrier(Protocol):
    """What a server knows of its connections."""

    @property
    def pending(self) -> int:
        """How many requests and jobs are in flight there."""

    @property
    def up(self) -> bool:
        """Whether the server has answered on it."""

    @property
    def suspect(self) -> bool:
        """Whether others are preferred."""


if TYPE_CHECKING:
    from typing_extensions import TypeVar

    C = TypeVar("C", bound=Carrier, default=Any)
else:
    from typing import TypeVar

    C = TypeVar("C", bound=Carrier)


class Server(Generic[C]):
    """One server: its state, its connections, and when it is tried again.

    ``up`` is a tuple that the I/O thread replaces whole. ``failures`` and ``retry`` are written by `Reconnecting`,
    ``latency`` by the health checks; all else by the methods here.
    """

    def __init__(self, address: ServerAddress, fresh: bool = True) -> None:
        self.address = address
        self.name: str = str(address)
        self.key: bytes = self.name.encode()
        self.state: ServerState = ServerState.DOWN
        #: The connections that take requests, those that are not suspect if there are any.
        self.up: tuple[C, ...] = ()
        self.connections: list[C] = []
        #: The first attempt is still under way, and a sticky policy waits for its end.
        self.fresh: bool = fresh
        #: How many attempts have failed in a row, connections that did not last included.
        self.failures: int = 0
        #: When the next attempt is made.
        self.retry: Timer | None = None
        #: How long the last health check took, in seconds.
        self.latency: float | None = None
        self.last_error: GearmanError | None = None

    def __repr__(self) -> str:
        return f"<Server {self.address} {self.state.value}, {self.pending} in flight>"

    # ---- any thread ------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many requests and jobs are in flight there."""
        return sum(connection.pending for connection in self.up)

    @property
    def trouble(self) -> str:
        """Why the server cannot be used, in words: the last error without the address, or the state."""
        error = self.last_error
        return self.state.value.lower() if error is None else str(error).removeprefix(f"{self.address}: ")

    def info(self, now: float) -> ServerInfo:
        """Return what is known of the server, for users."""
        return ServerInfo(
            address=self.name,
            state=self.state.value,
            connections=len(self.up),
            in_flight=self.pending,
            latency=self.latency,
            last_error=str(self.last_error) if self.last_error is not None else None,
            retry_in=self.retry_in(now),
        )

    def retry_in(self, now: float) -> float | None:
        """Return in how many seconds the next attempt is made, or None if none is planned."""
        retry = self.retry
        return max(0.0, retry.when - now) if retry is not None and retry.alive else None

    # ---- the I/O thread --------------------------------------------------------------------------------------------

    def move(self, state: ServerState) -> None:
        """Go to another state.

        Raises:
            InvalidClientState: the table has no such move; that is a bug.
        """
        if state not in SERVER_MOVES[self.state]:
            raise InvalidClientState(f"server {self.address}: no move from {self.state.value} to {state.value}")
        self.state = state

    def gain(self, connection: C) -> None:
        """Take in a connection, which takes no requests yet."""
        self.connections.append(connection)

    def lose(self, connection: C) -> None:
        """Let a connection go that is closed."""
        self.connections.remove(connection)

    def settle(self) -> None:
        """Have sticky policies wait no longer for the first attempt."""
        self.fresh = False

    def came_up(self) -> None:
        """Note that one of the connections has been answered for the first time."""
        self.last_error = None
        self.settle()
        if self.state is ServerState.CONNECTING:
            self.move(ServerState.UP)

    def connect_failed(self) -> None:
        """Note that an attempt has failed; a server with another connection stays up."""
        self.settle()
        if self.state is ServerState.CONNECTING:
            self.move(ServerState.DOWN)

    def note(self, error: GearmanError) -> None:
        """Note what went wrong last."""
        self.last_error = error

    def offer(self) -> None:
        """Choose anew which connections take requests: those that are up, without the suspect ones if others are."""
        usable = [c for c in self.connections if c.up] if self.state is not ServerState.DRAINING else []
        self.up = tuple([c for c in usable if not c.suspect] or usable)


class Connecting(Protocol):
    """What `Reconnecting` asks of its pool. Called on the I/O thread; must not block."""

    def wants(self, server: Server) -> bool:
        """Whether there is to be a connection to the server."""

    def connected(self, server: Server, sock: socket.socket, started: float) -> None:
        """There is a socket, of which the attempt began at ``started``; it is the pool's from now on."""

    def connect_failed(self, server: Server, error: GearmanError) -> None:
        """An attempt has failed, or takes too long; `Reconnecting.retry_later` makes another."""


class Reconnecting:
    """Connects servers, and connects them again after a pause that grows with each failure.

    An attempt stays in ``_attempts`` until the pool has its socket: the child of a fork finds each socket in one place.
    """

    def __init__(
        self, io: IOThread, options: ClientOptions, pool: Connecting, rng: random.Random | None = None
    ) -> None:
        self._io = io
        self._options = options
        self._pool = pool
        self._random = rng or random.Random()
        self._attempts: dict[Attempt, Server] = {}

    def connect(self, server: Server) -> None:
        """Make as many attempts as the server lacks connections."""
        if not self._pool.wants(server):
            return
        if server.state is ServerState.DOWN:
            server.move(ServerState.CONNECTING)
        # An attempt that hangs in the resolver cannot be ended; as long as one does, there is no use in another.
        under_way = sum(other is server for other in self._attempts.values())
        for _ in range(self._options.connections_per_server - len(server.connections) - under_way):
            self._attempt(server)

    def lost(self, server: Server, lasted: float) -> None:
        """Replace a connection that lasted so many seconds, after a pause; one that lasted for long makes it short."""
        if lasted >= _STABLE_AFTER:
            server.failures = 0
        self.retry_later(server)

    def retry_later(self, server: Server) -> None:
        """Connect after a pause, unless that is planned already."""
        if not self._pool.wants(server) or (server.retry is not None and server.retry.alive):
            return
        first, longest = self._options.reconnect_backoff
        # Full jitter: clients that lost a server together must not come back together.
        delay = self._random.uniform(0, min(longest, first * 2 ** min(server.failures, 32)))
        server.failures += 1
        server.retry = self._io.call_later(delay, partial(self.connect, server))

    def cancel(self, server: Server) -> None:
        """Make no further attempt. What is under way goes on, and its socket is closed when it comes."""
        if server.retry is not None:
            server.retry.cancel()

    def close_after_fork(self) -> None:
        """In the child of a fork: close the sockets of attempts under way, and of those that are over but unnoticed."""
        for attempt in self._attempts:
            attempt.close_after_fork()

    def _attempt(self, server: Server) -> None:
        timeout = self._options.connect_timeout
        attempt = Attempt(server.address, timeout, partial(self._ended, server, self._io.clock()))
        self._attempts[attempt] = server
        attempt.timer = self._io.call_later(timeout + _GRACE, partial(self._hangs, server, attempt))
        attempt.start(f"{self._io.name}-connect")

    def _ended(self, server: Server, started: float, attempt: Attempt, outcome: Outcome) -> None:
        """Post the outcome. Runs on the attempt's thread."""
        self._io.post(partial(self._take, server, started, attempt, outcome))
        if self._io.ended and isinstance(outcome, socket.socket):
            outcome.close()

    def _hangs(self, server: Server, attempt: Attempt) -> None:
        if attempt in self._attempts and server.state is ServerState.CONNECTING and not attempt.finished:
            text = (
                f"{server.address}: no connection within connect_timeout ({attempt.timeout:g} s); the resolver may hang"
            )
            self._pool.connect_failed(server, ConnectTimeout(text, server=server.name))

    def _take(self, server: Server, started: float, attempt: Attempt, outcome: Outcome) -> None:
        """Take in the outcome of an attempt."""
        if attempt.timer is not None:
            attempt.timer.cancel()
        try:
            if isinstance(outcome, GearmanError):
                if server.state is ServerState.CONNECTING or server.state is ServerState.UP:
                    self._pool.connect_failed(server, outcome)
                else:
                    self.retry_later(server)
            elif not self._pool.wants(server) or server.state is ServerState.DOWN:
                outcome.close()
                self.retry_later(server)
            else:
                self._pool.connected(server, outcome, started)
        finally:
            self._attempts.pop(attempt, None)
