"""What python-gearman's workers have besides the tasks: connections, and what a task may send by its worker.

Threads: all methods may be called from any thread, and take no lock but that of `Runs`, for a moment.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..connection import GearmanConnection
from ..connection_manager import GearmanConnectionManager
from ..engine.asking import Question, address_of
from ..engine.worker.job import assignment_of, encode_result, whole_number
from ..errors import ConnectionError, ServerUnavailable  # noqa: A004 - python-gearman's name
from ..events import ConnectionClosed, ConnectionFailed, Event, Listener
from ..jobs.job import GearmanJob
from ..protocol.commands import Command
from ..protocol.packets import pack
from ..settings.addresses import parse_server

if TYPE_CHECKING:
    from ..engine.worker.runs import Runs
    from ..settings.client_options import ClientOptions
    from ..transport.servers import Server

__all__ = ["ErrorListener", "PythonGearmanWorker"]


class PythonGearmanWorker(GearmanConnectionManager):
    """What `GearmanWorker` inherits, and gives the engine to."""

    def __init__(self, options: ClientOptions, runs: Runs) -> None:
        self.options: ClientOptions = options
        self._runs = runs

    # ---- servers ---------------------------------------------------------------------------------------------------

    @property
    def connection_list(self) -> list[GearmanConnection]:
        """The servers, in the order of the configuration."""
        return [GearmanConnection.of(self, address) for address in self._runs.addresses]

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
        self._runs.add_server(address)
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
        if address not in self._runs.addresses:
            raise ValueError(f"{address} is not a server of this worker; add_connection() takes it in")
        engine = self._runs.engine
        server = next((server for server in self._pool_servers() if server.address == address), None)
        if engine is None or server is None:
            raise ServerUnavailable(f"{address} is not connected, because the worker does not run", server=str(address))
        question = Question(address_of)
        entry = (pack(Command.ECHO_REQ, b""), Command.ECHO_RES.value, question)
        engine.pool.submit(entry, server, self.options.connect_timeout)
        try:
            question.promise.wait(self.options.connect_timeout)
        except (ConnectionError, ServerUnavailable, TimeoutError) as error:
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
        engine = self._runs.engine
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
        for assignment in self._runs.held():
            return GearmanConnection.of(self, assignment.connection.server.address)
        return None

    def has_job_lock(self) -> bool:
        """Whether a job is being run, or held ready.

        Example::

            worker.has_job_lock()  # True in a task
        """
        return bool(self._runs.held())

    def check_job_lock(self, command_handler: GearmanConnection) -> bool:
        """Whether a job of this server is being run, or held ready.

        Example::

            worker.check_job_lock(job.connection)  # True in a task
        """
        return any(a.connection.server.address == command_handler.address for a in self._runs.held())

    # ---- what a task may send --------------------------------------------------------------------------------------

    def send_job_status(
        self, current_job: GearmanJob, numerator: float, denominator: float, poll_timeout: float | None = None
    ) -> None:
        """Tell the client how far a task has come; see `GearmanWorkerJob.send_status`.

        This and the others below do nothing if the job has ended, or its server has gone.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Example::

            worker.send_job_status(job, 1, 3)
        """
        numbers = whole_number(numerator, "numerator"), whole_number(denominator, "denominator")
        self._send(current_job, poll_timeout, Command.WORK_STATUS, *numbers)

    def send_job_data(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """Send the client a part of the result; see `GearmanWorkerJob.send_data`.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            worker.send_job_data(job, b"half way")
        """
        self._send(current_job, poll_timeout, Command.WORK_DATA, encode_result(self.data_encoder, data))

    def send_job_warning(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """Send the client a warning; see `GearmanWorkerJob.send_warning`.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            worker.send_job_warning(job, b"the image is very large")
        """
        self._send(current_job, poll_timeout, Command.WORK_WARNING, encode_result(self.data_encoder, data))

    def send_job_complete(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """End a job with this result. What its task returns later is ignored.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            worker.send_job_complete(job, result)
        """
        self._finish(current_job, poll_timeout, "done", Command.WORK_COMPLETE, encode_result(self.data_encoder, data))

    def send_job_failure(self, current_job: GearmanJob, poll_timeout: float | None = None) -> None:
        """End a job as failed, without saying why. What its task returns later is ignored.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Example::

            worker.send_job_failure(job)
        """
        self._finish(current_job, poll_timeout, "failed", Command.WORK_FAIL)

    def send_job_exception(self, current_job: GearmanJob, data: Any, poll_timeout: float | None = None) -> None:
        """End a job with an exception. What its task returns later is ignored.

        Args:
            poll_timeout: Wait until the server has it, for so many seconds at most; not at all if None.

        Raises:
            EncodeError: the worker's encoder cannot encode it.

        Example::

            worker.send_job_exception(job, b"out of space")
        """
        payload = encode_result(self.data_encoder, data)
        self._finish(current_job, poll_timeout, "failed", Command.WORK_EXCEPTION, payload)

    def wait_until_updates_sent(
        self, multiple_gearman_jobs: Iterable[GearmanJob], poll_timeout: float | None = None
    ) -> None:
        """Wait until the servers have all that was sent for these jobs, or their connections are lost.

        Args:
            poll_timeout: For how long, in seconds; for ever if None.

        Example::

            worker.wait_until_updates_sent([job], poll_timeout=5)
        """
        assignments = [assignment_of(job) for job in multiple_gearman_jobs]
        engine = self._runs.engine
        if engine is not None:
            engine.held.wait_until_sent(assignments, poll_timeout)

    def _send(self, job: GearmanJob, poll_timeout: float | None, command: Command, *arguments: bytes) -> None:
        if self._runs.send(assignment_of(job), command, *arguments) and poll_timeout is not None:
            self.wait_until_updates_sent([job], poll_timeout)

    def _finish(
        self, job: GearmanJob, poll_timeout: float | None, outcome: str, command: Command, *arguments: bytes
    ) -> None:
        if self._runs.finish(assignment_of(job), outcome, command, *arguments) and poll_timeout is not None:
            self.wait_until_updates_sent([job], poll_timeout)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _pool_servers(self) -> list[Server]:
        engine = self._runs.engine
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
