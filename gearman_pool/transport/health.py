"""Health checks: each connection is asked from time to time whether its server still answers.

A server counts as up only once it has answered an ECHO_REQ: a frozen one still accepts connections, and about 4 MB.
After that a check that is not answered soon makes the connection suspect, and one that is not answered in time ends it.

Threads: everything runs on the I/O thread. Nothing here chooses a server: the pool is told what has changed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from ..errors import ConnectionLost
from ..protocol.commands import Command
from ..protocol.packets import pack
from ..protocol.session import Entry
from ..settings.client_options import ClientOptions
from .connection import Connection
from .handler import Query
from .io_thread import IOThread
from .timers import Timer

__all__ = ["Checking", "HealthChecks", "Probe"]

#: An unanswered health check makes a connection suspect after this part of ``health_check_timeout``.
_SUSPECT_PART = 1 / 3

_ECHO_REQ = pack(Command.ECHO_REQ, b"gearman_pool")


class Checking(Protocol):
    """What the health checks ask of their pool. Called on the I/O thread; must not block."""

    def came_up(self, connection: Connection, took: float) -> None:
        """A connection was answered for the first time, so many seconds after the attempt to connect had begun."""

    def publish(self) -> None:
        """Some connection has become suspect, or is so no longer."""


class Probe(Query):
    """A health check on its way. ``started`` is when the attempt to connect began, for the first one."""

    def __init__(self, checks: HealthChecks, started: float, sent: float) -> None:
        self._checks = checks
        self.started = started
        self.sent = sent
        self.done: bool = False
        self.timers: list[Timer] = []

    def entry(self) -> Entry:
        """Return what is to be sent."""
        return _ECHO_REQ, Command.ECHO_RES, self

    def answered(self, connection: Connection, value: Any) -> None:
        self.done = True
        # Cancelled, not left to find out that all is well: an idle client must not wake for these timers.
        for timer in self.timers:
            timer.cancel()
        self._checks.answered(connection, self)


class HealthChecks:
    """The health checks of one pool's connections."""

    def __init__(self, io: IOThread, options: ClientOptions, pool: Checking) -> None:
        self._io = io
        self._interval = options.health_check_interval
        self._timeout = options.health_check_timeout
        self._pool = pool

    def greet(self, connection: Connection, started: float) -> None:
        """Start a new connection: send the session's greeting, and behind it the first check."""
        probe = Probe(self, started, self._io.clock())
        self._expect(connection, probe)
        connection.start([*connection.session.greeting(), probe.entry()])

    def answered(self, connection: Connection, probe: Probe) -> None:
        """Take in the answer to a check: the first one makes the connection usable."""
        connection.server.latency = self._io.now - probe.sent
        if not connection.up and not connection.closed:
            connection.came_up()
            self._io.call_later(self._interval, partial(self._check, connection))
            self._pool.came_up(connection, self._io.now - probe.started)
        elif connection.suspect:
            connection.doubt(False)
            self._pool.publish()

    def _check(self, connection: Connection) -> None:
        if connection.closed:
            return
        probe = Probe(self, self._io.now, self._io.clock())
        connection.submit(probe.entry())
        connection.pump()
        self._expect(connection, probe)
        self._io.call_later(self._interval, partial(self._check, connection))

    def _expect(self, connection: Connection, probe: Probe) -> None:
        timeout = self._timeout
        probe.timers.append(self._io.call_later(timeout * _SUSPECT_PART, partial(self._suspect, connection, probe)))
        probe.timers.append(self._io.call_later(timeout, partial(self._unanswered, connection, probe)))

    def _suspect(self, connection: Connection, probe: Probe) -> None:
        if not probe.done and not connection.closed and connection.last_progress < probe.sent:
            connection.doubt(True)
            self._pool.publish()

    def _unanswered(self, connection: Connection, probe: Probe) -> None:
        if probe.done or connection.closed:
            return
        timeout = self._timeout
        silent = self._io.now - max(connection.last_progress, probe.sent)
        if silent < timeout and connection.up:
            # The server talks, or takes what it is sent, but has not come to the ECHO_REQ yet: there is much before it.
            again = partial(self._unanswered, connection, probe)
            probe.timers.append(self._io.call_later(timeout - silent, again))
            return
        address = connection.server.name
        text = f"{address}: no answer to a health check within health_check_timeout ({timeout:g} s)"
        connection.lose(ConnectionLost(text, server=address, retryable=True))
