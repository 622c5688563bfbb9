"""Questions to servers that are no jobs: how a job stands, whether a server answers, and which.

Threads: `Asking` may be used by any thread; its methods do not wait for answers unless they say so. A `Question` is
answered on the I/O thread, and its promise may be waited for by any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..errors import GearmanError
from ..jobs.flight import Flight
from ..jobs.job import GearmanJobRequest
from ..jobs.views import JobStatus
from ..protocol.client import ClientSession
from ..protocol.commands import Command
from ..protocol.limits import MAX_HANDLE_BYTES
from ..protocol.packets import pack
from ..protocol.values import encode_name, encode_unique, number
from ..settings.addresses import ServerAddress
from ..threads.waiting import Promise
from ..transport.connection import Connection
from ..transport.handler import Query
from ..transport.servers import Server

if TYPE_CHECKING:
    from .client.engine import ClientEngine

__all__ = ["DASH", "Asking", "Question", "address_of"]

#: A job of this unique joins one of equal data, and gearmand finds it by its handle alone.
DASH = ("-", b"-")

_ECHO = b"gearman_pool ping"


class Question(Query):
    """A question, and the promise of what ``read`` makes of its answer.

    Args:
        read: Called on the I/O thread with the connection and what came; must not block.
        on_lost: The answer where the connection is lost; without one the promise fails.
    """

    def __init__(self, read: Callable[[Connection, Any], Any], on_lost: Callable[[], Any] | None = None) -> None:
        self.promise: Promise = Promise()
        self._read = read
        self._on_lost = on_lost

    def answered(self, connection: Connection, value: Any) -> None:
        self.promise.set(self._read(connection, value))

    def refused(self, connection: Connection, code: str, text: str) -> None:
        server = connection.server.name
        self.promise.fail(GearmanError(f"{server}: {code} {text}", server=server))

    def lost(self, error: GearmanError) -> None:
        if self._on_lost is None:
            self.promise.fail(error)
        else:
            self.promise.set(self._on_lost())


def address_of(connection: Connection, value: object) -> ServerAddress:
    """Return which server has answered."""
    return connection.server.address


class Asking:
    """Asks the servers of a client."""

    def __init__(self, engine: ClientEngine) -> None:
        #: Replaced in the child of a fork, by its one thread.
        self.engine: ClientEngine = engine

    def server(self, address: str) -> Server:
        """Return one of the client's servers.

        Raises:
            ValueError: it is none of them.
        """
        server = self.engine.pool.wanted.get(address)
        if server is None:
            raise self.no_such_server(address)
        return server

    def no_such_server(self, address: str) -> ValueError:
        """Return the error for a server that is not one of the client's."""
        known = ", ".join(list(self.engine.pool.wanted)) or "none"
        return ValueError(f"{address} is not a server of this client (it has: {known}); add_server() takes it in")

    # ---- status ----------------------------------------------------------------------------------------------------

    def status(
        self,
        server: Server,
        handle: str | None,
        unique: str | bytes | None,
        timeout: float,
        request: GearmanJobRequest | None = None,
    ) -> Promise:
        """Ask a server for a job: by its unique if there is one, because handles repeat after a restart.

        Args:
            server: Where the job is.
            handle, unique: Its names; one of them may be None.
            timeout: How long the question waits for a connection to the server, in seconds.
            request: Whose ``status`` is set too.

        Returns:
            The promise of a `JobStatus`.

        Raises:
            TypeError, ValueError: the name cannot be one.
        """
        if unique and (handle is None or unique not in DASH):
            packet = pack(Command.GET_STATUS_UNIQUE, encode_unique(unique))
            reply = Command.STATUS_RES_UNIQUE
        else:
            wire_handle = encode_name(handle, "the handle", MAX_HANDLE_BYTES)
            if not wire_handle:
                raise ValueError("the handle is empty")
            packet = pack(Command.GET_STATUS, wire_handle)
            reply = Command.STATUS_RES

        def read(connection: Connection[ClientSession], value: Sequence[bytes]) -> JobStatus:
            status = _read_status(connection, value)
            if request is not None:
                request._set_status(status.known, status.running, status.numerator, status.denominator)
                if handle is not None:
                    flight = connection.session.find(handle)
                    if isinstance(flight, Flight):
                        # A request that was made by hand has no data of its own.
                        flight.share_data(request)
            return status

        question = Question(read)
        self.engine.ask(server, packet, reply, question, timeout)
        return question.promise

    def status_anywhere(self, unique: bytes, timeout: float) -> JobStatus:
        """Ask all servers for a job, and wait for their answers.

        Raises:
            ServerUnavailable: none answered within ``timeout`` seconds.
        """
        deadline = monotonic() + timeout
        servers = list(self.engine.pool.wanted.values())
        promises = [self.status(server, None, unique, timeout) for server in servers]
        answers: list[JobStatus] = []
        for promise in promises:
            with suppress(GearmanError, TimeoutError):
                answers.append(promise.wait(max(0.0, deadline - monotonic())))
        for status in answers:
            if status.known:
                return status
        if not answers:
            raise self.engine.pool.unavailable("no server answered")
        return answers[0]

    # ---- whether a server answers ----------------------------------------------------------------------------------

    def ping(self, server: Server, timeout: float) -> Promise:
        """Ask a server whether it answers; return the promise of the round trip, in seconds."""
        asked = monotonic()
        question = Question(lambda connection, value: monotonic() - asked)
        self.engine.ask(server, pack(Command.ECHO_REQ, _ECHO), Command.ECHO_RES, question, timeout)
        return question.promise

    def ping_all(self, timeout: float) -> dict[str, float | None]:
        """Ask all servers, and wait for their answers: round trips in seconds; None for one that did not answer."""
        deadline = monotonic() + timeout
        promises = [(server.name, self.ping(server, timeout)) for server in list(self.engine.pool.wanted.values())]
        answers: dict[str, float | None] = {}
        for address, promise in promises:
            answers[address] = None
            with suppress(GearmanError, TimeoutError):
                answers[address] = promise.wait(max(0.0, deadline - monotonic()))
        return answers

    def who_answers(self, key: bytes | None, timeout: float) -> Promise:
        """Ask the server that gets the jobs with this key; return the promise of its address."""
        question = Question(address_of)
        self.engine.ask(key, pack(Command.ECHO_REQ, _ECHO), Command.ECHO_RES, question, timeout)
        return question.promise


def _read_status(connection: Connection, value: Sequence[bytes]) -> JobStatus:
    waiting = number(value[5]) if len(value) > 5 else None
    known, running = value[1] == b"1", value[2] == b"1"
    return JobStatus(known, running, number(value[3]), number(value[4]), waiting, connection.server.name)
