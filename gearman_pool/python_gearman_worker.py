"""What python-gearman's workers have of connections, on the worker's own engine."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from .connection import GearmanConnection
from .connection_manager import GearmanConnectionManager, WhoAnswers
from .errors import ConnectionError, ServerUnavailable  # noqa: A004 - python-gearman's name
from .events import ConnectionClosed, ConnectionFailed, Event, Listener
from .protocol.commands import Command
from .protocol.packets import pack
from .settings.addresses import parse_server

if TYPE_CHECKING:
    import threading

    from .engine.worker.engine import WorkerEngine
    from .settings.addresses import ServerAddress
    from .settings.client_options import ClientOptions
    from .transport.servers import Server

__all__ = ["ErrorListener", "PythonGearmanWorker"]


class PythonGearmanWorker(GearmanConnectionManager):
    """What `GearmanWorker` inherits, and gives the engine to."""

    if TYPE_CHECKING:
        options: ClientOptions
        _addresses: tuple[ServerAddress, ...]
        _engine: WorkerEngine | None
        _lock: threading.Lock

    @property
    def connection_list(self) -> list[GearmanConnection]:
        """The servers, in the order of the configuration."""
        return [GearmanConnection.of(self, address) for address in self._addresses]

    @property
    def randomized_connections(self) -> list[GearmanConnection]:
        """The servers in random order. Jobs are taken from all of them in turn."""
        connections = self.connection_list
        random.shuffle(connections)
        return connections

    def add_connection(self, hostport_tuple: Any) -> GearmanConnection:
        """Take jobs from one more server, given as (host, port) or ``"host:port"``, and return it.

        Raises:
            ValueError, TypeError: it is no server.

        Example::

            worker.add_connection(("10.0.0.3", 4730))
        """
        address = parse_server(hostport_tuple)
        if self.options.ssl_context is not None:
            address = address.with_ssl(self.options.ssl_context)
        with self._lock:
            if address not in self._addresses:
                self._addresses = (*self._addresses, address)
            engine = self._engine
        if engine is not None:
            engine.pool.add(address)
        return GearmanConnection.of(self, address)

    def establish_connection(self, current_connection: GearmanConnection) -> GearmanConnection:
        """Wait until one of the servers answers, for ``connect_timeout`` at the most, and return it.

        A worker connects when it works, so it must be running. No other call needs this one.

        Raises:
            ServerUnavailable: it does not answer, or the worker does not run.
            ValueError: it is none of ``connection_list``.

        Example::

            worker.establish_connection(worker.connection_list[0])
        """
        address = current_connection.address
        if address not in self._addresses:
            raise ValueError(f"{address} is not a server of this worker; add_connection() takes it in")
        engine = self._engine
        server = next((server for server in self._pool_servers() if server.address == address), None)
        if engine is None or server is None:
            raise ServerUnavailable(f"{address} is not connected, because the worker does not run", server=str(address))
        query = WhoAnswers()
        engine.pool.submit((pack(Command.ECHO_REQ, b""), Command.ECHO_RES, query), server, self.options.connect_timeout)
        try:
            query.promise.wait(self.options.connect_timeout)
        except (ConnectionError, TimeoutError) as error:
            why = engine.pool.unavailable().servers.get(str(address), "it does not answer")
            raise ServerUnavailable(
                f"{address} does not answer within connect_timeout: {why}", servers={str(address): why}
            ) from error
        return current_connection

    def establish_worker_connections(self) -> list[GearmanConnection]:
        """Return the servers that are connected now; connecting needs no call.

        Example::

            def after_poll(self, any_activity):
                self.log.info("connected to %s", self.establish_worker_connections())
                return True
        """
        engine = self._engine
        available = () if engine is None else engine.pool.available
        return [GearmanConnection.of(self, server.address) for server in available]

    def handle_error(self, current_connection: GearmanConnection) -> None:
        """Override it to be told when a connection was lost or could not be made. The worker reconnects by itself.

        Runs on a callback thread.

        Example::

            def handle_error(self, current_connection):
                statsd.incr(f"gearman.lost.{current_connection.gearman_host}")
                super().handle_error(current_connection)
        """

    @property
    def command_handler_holding_job_lock(self) -> GearmanConnection | None:
        """The server whose job is being run, the oldest if there are several; None if there is none."""
        engine = self._engine
        for assignment in [] if engine is None else list(engine.held):
            return GearmanConnection.of(self, assignment.connection.server.address)
        return None

    def has_job_lock(self) -> bool:
        """Whether a job is being run, or held ready.

        Example::

            worker.has_job_lock()  # True in a task
        """
        engine = self._engine
        return engine is not None and bool(engine.held)

    def check_job_lock(self, command_handler: GearmanConnection) -> bool:
        """Whether a job of this server is being run, or held ready.

        Example::

            worker.check_job_lock(job.connection)  # True in a task
        """
        engine = self._engine
        held = [] if engine is None else list(engine.held)
        return any(assignment.connection.server.address == command_handler.address for assignment in held)

    def _pool_servers(self) -> list[Server]:
        engine = self._engine
        return [] if engine is None else list(engine.pool.wanted.values())


class ErrorListener(Listener):
    """Tells a worker's own hook of its connections."""

    def __init__(self, worker: PythonGearmanWorker) -> None:
        self._worker = worker

    def on_connection_closed(self, event: ConnectionClosed) -> None:
        """See `Listener.on_connection_closed`."""
        if event.error is not None:
            self._tell(event)

    def on_connection_failed(self, event: ConnectionFailed) -> None:
        """See `Listener.on_connection_failed`."""
        self._tell(event)

    def _tell(self, event: Event) -> None:
        for connection in self._worker.connection_list:
            if str(connection.address) == event.server:
                self._worker.handle_error(connection)
