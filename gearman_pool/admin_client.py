"""`GearmanAdminClient`: look into one server and manage its functions and jobs.

Threads: all methods may be called from any thread; each waits for its answer, which `engine.admin` gets. Nothing here
sends or reads.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from .connection import GearmanConnection
from .connection_manager import GearmanConnectionManager
from .engine.admin import CLOSED, AdminEngine, Answer
from .errors import (
    ClientClosed,
    ConnectionError,  # noqa: A004 - python-gearman's name
    InvalidAdminClientState,
    ProtocolError,
    ServerError,
    ServerUnavailable,
)
from .protocol.commands import Command
from .protocol.packets import pack
from .protocol.python_gearman import (
    GEARMAN_SERVER_COMMAND_CANCEL_JOB,
    GEARMAN_SERVER_COMMAND_GETPID,
    GEARMAN_SERVER_COMMAND_MAXQUEUE,
    GEARMAN_SERVER_COMMAND_SHOW_JOBS,
    GEARMAN_SERVER_COMMAND_SHOW_UNIQUE_JOBS,
    GEARMAN_SERVER_COMMAND_SHUTDOWN,
    GEARMAN_SERVER_COMMAND_STATUS,
    GEARMAN_SERVER_COMMAND_VERSION,
    GEARMAN_SERVER_COMMAND_WORKERS,
)
from .protocol.text import (
    TEXT_COMMANDS,
    JobRow,
    PriorityStatusRow,
    StatusRow,
    UniqueJobRow,
    WorkerRow,
    pack_text_command,
    split_text_command,
)
from .settings.addresses import parse_server
from .settings.checks import check_timeout
from .settings.client_options import ClientOptions
from .settings.sources import parse_servers
from .threads import lifecycle
from .transport.servers import Server
from .util import unlist

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .settings.client_options import ClientOptionsDict

__all__ = [
    "DEFAULT_ADMIN_CLIENT_TIMEOUT",
    "ECHO_STRING",
    "GEARMAN_COMMAND_ECHO_REQ",
    "GEARMAN_SERVER_COMMAND_CANCEL_JOB",
    "GEARMAN_SERVER_COMMAND_GETPID",
    "GEARMAN_SERVER_COMMAND_MAXQUEUE",
    "GEARMAN_SERVER_COMMAND_SHOW_JOBS",
    "GEARMAN_SERVER_COMMAND_SHOW_UNIQUE_JOBS",
    "GEARMAN_SERVER_COMMAND_SHUTDOWN",
    "GEARMAN_SERVER_COMMAND_STATUS",
    "GEARMAN_SERVER_COMMAND_VERSION",
    "GEARMAN_SERVER_COMMAND_WORKERS",
    "AdminCommandHandler",
    "ConnectionError",
    "GearmanAdminClient",
    "GearmanConnectionManager",
    "InvalidAdminClientState",
    "JobRow",
    "PriorityStatusRow",
    "ServerUnavailable",
    "StatusRow",
    "UniqueJobRow",
    "WorkerRow",
    "gearman_logger",
    "unlist",
]

GEARMAN_COMMAND_ECHO_REQ = int(Command.ECHO_REQ)

#: python-gearman's name for what an admin client logs to; ``self.log`` is the same.
gearman_logger: logging.Logger = logging.getLogger("gearman_pool.admin_client")

#: What `GearmanAdminClient.ping_server` sends.
ECHO_STRING = "ping? pong!"

#: Seconds that a call waits for the server's answer, unless told otherwise.
DEFAULT_ADMIN_CLIENT_TIMEOUT = 10.0

#: gearmand reads a queue's size into 32 bits, whatever is left of it then.
_MAX_SIZE = 2**31 - 1

#: Seconds before the second attempt to connect, and the longest pause between two. A person waits for the end of it.
_BACKOFF = (0.1, 1.0)

#: How long `GearmanAdminClient.close` and the interpreter's end wait for the I/O thread, in seconds.
_STOP_TIMEOUT = 1.0


class GearmanAdminClient(GearmanConnectionManager):
    """A client for the administrative commands of one Gearman server.

    Creating one does no I/O: its background thread and its connection start with the first use. All methods may be
    called from any thread, and each blocks until the server has answered. A lost connection is replaced. After a fork
    the child gets a connection of its own.

    Args:
        host_list: The server: a list of one ``"host"``, ``"host:port"``, ``(host, port)`` or python-gearman's TLS dict,
            or such text or a DSN (``"gearman://host:4730"``, ``gearmans://`` for TLS) by itself.
        poll_timeout: Seconds that a call waits for the server's answer; for ever if None.
        options: See `ClientOptions`; each may also stand in the DSN, and what is given here wins. Those about jobs play
            no part. ``reconnect_backoff`` is ``(0.1, 1.0)`` unless told otherwise: a call in such a pause waits for
            its end.

    Raises:
        ValueError, TypeError: not exactly one server is given, or it or an option is not usable.

    All methods that ask the server raise:
        ServerUnavailable: no connection could be had.
        InvalidAdminClientState: no answer within ``poll_timeout``. The connection is then replaced.
        ServerError: the server refused the command; ``code`` and ``text`` say why.
        ConnectionLost: the connection was lost before the answer came. Whether the command was obeyed is not known.
        ProtocolError: the answer is none that gearmand gives to this command.
        ClientClosed: the client is closed.

    Example::

        with GearmanAdminClient(["localhost:4730"]) as admin:
            for row in admin.get_status():
                print(row["task"], row["queued"], row["running"], row["workers"])
    """

    def __init__(
        self,
        host_list: str | bytes | Iterable[Any] | None = None,
        poll_timeout: float | None = DEFAULT_ADMIN_CLIENT_TIMEOUT,
        **options: Unpack[ClientOptionsDict],
    ) -> None:
        self._closed = True  # until all is in place, for __del__
        self.log: logging.Logger = gearman_logger
        addresses, dsn_options = parse_servers(host_list)
        if len(addresses) != 1:
            raise ValueError(
                f"an admin client talks with exactly one server, and {len(addresses)} are given: make one each"
            )
        merged = ClientOptions.merge({"reconnect_backoff": _BACKOFF, **dsn_options}, options)
        self.options: ClientOptions = replace(merged, connections_per_server=1)
        self.poll_timeout: float | None = None if poll_timeout is None else check_timeout("poll_timeout", poll_timeout)
        context = self.options.ssl_context
        self._address = addresses[0].with_ssl(context) if context is not None else addresses[0]
        self._handlers = threading.local()
        self._engine = AdminEngine(self._address, self.options)
        self._closed = False
        lifecycle.register(self, GearmanAdminClient._after_fork_in_child, GearmanAdminClient._at_exit)

    # ---- the connection --------------------------------------------------------------------------------------------

    def establish_admin_connection(self) -> None:
        """Connect, unless there is a connection. All other methods do so by themselves.

        Example::

            admin.establish_admin_connection()
        """
        if not self._engine.pool.available:
            self._echo(ECHO_STRING)

    def ping_server(self) -> float:
        """Return how long an echo takes, to the server and back, in seconds; time to connect is not counted.

        Example::

            print(f"{admin.ping_server() * 1000:.1f} ms")
        """
        self.establish_admin_connection()
        started = monotonic()
        answer = self._echo(ECHO_STRING)
        if answer != ECHO_STRING:
            raise InvalidAdminClientState(
                f"{self._address} echoed {answer!r}, not {ECHO_STRING!r}", server=str(self._address)
            )
        return monotonic() - started

    def close(self) -> None:
        """End the connection and the thread. Calls that wait in other threads raise `ClientClosed`.

        May be called again, and by several threads.

        Example::

            admin.close()
        """
        self._closed = True
        self._engine.end(_STOP_TIMEOUT)

    def shutdown(self) -> None:
        """python-gearman's name for `close`; the command for the server is `send_shutdown`.

        Example::

            admin.shutdown()
        """
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._closed and self._engine.io.started:
            text = f"{self!r} was not closed"
            self._closed = True
            self._engine.stop()
            # Last, because a filter may make an exception of it.
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        state = "closed" if self._closed else self._engine.pool.servers[0].state.value
        return f"<{type(self).__name__} {self._address} {state}>"

    # ---- looking ---------------------------------------------------------------------------------------------------

    def get_status(self) -> tuple[StatusRow, ...]:
        """Return all functions that the server knows, with their jobs and workers: see `StatusRow`.

        Example::

            idle = [row["task"] for row in admin.get_status() if not row["queued"]]
        """
        return cast("tuple[StatusRow, ...]", self._ask("status"))

    def get_priority_status(self) -> tuple[PriorityStatusRow, ...]:
        """Return all functions that the server knows, with their waiting jobs by priority: see `PriorityStatusRow`.

        Example::

            urgent = sum(row["high"] for row in admin.get_priority_status())
        """
        return cast("tuple[PriorityStatusRow, ...]", self._ask("prioritystatus"))

    def get_workers(self) -> tuple[WorkerRow, ...]:
        """Return all connections to the server, this one included, and what they work on: see `WorkerRow`.

        Example::

            working = [row["client_id"] for row in admin.get_workers() if row["tasks"]]
        """
        return cast("tuple[WorkerRow, ...]", self._ask("workers"))

    def get_jobs(self) -> tuple[JobRow, ...]:
        """Return all unfinished jobs: see `JobRow`, whose columns python-gearman called by other names.

        Example::

            for row in admin.get_jobs():
                print(row["handle"], row["retries"])
        """
        return cast("tuple[JobRow, ...]", self._ask("show jobs"))

    def get_unique_jobs(self) -> tuple[UniqueJobRow, ...]:
        """Return the uniques of all unfinished jobs: see `UniqueJobRow`.

        Example::

            "image-7" in {row["unique"] for row in admin.get_unique_jobs()}
        """
        return cast("tuple[UniqueJobRow, ...]", self._ask("show unique jobs"))

    def get_version(self) -> str:
        """Return the server's version, such as ``"1.1.20"``; ``""`` of one that was built without it.

        Example::

            admin.get_version()  # "1.1.20"
        """
        return cast("str", self._ask("version"))

    def get_verbose(self) -> str:
        """Return the level of the server's log, such as ``"ERROR"``.

        Example::

            admin.get_verbose()  # "ERROR"
        """
        return cast("str", self._ask("verbose"))

    def get_pid(self) -> str:
        """Return the number of the server's process, as text (as python-gearman does).

        Example::

            os.kill(int(admin.get_pid()), signal.SIGUSR1)
        """
        return cast("str", self._ask("getpid"))

    # ---- changing --------------------------------------------------------------------------------------------------

    def send_maxqueue(self, task: str | bytes, max_size: int | Sequence[int] | None) -> str:
        """Limit how many jobs of a task the server holds, running ones included; further ones get `QueueFull`.

        The server forgets the limit with the function, and takes no notice of it for a function that it does not know
        yet: see `create_function`.

        Args:
            task: The task's name.
            max_size: One size for all priorities, or a sequence of sizes for high, normal and low (those left out have
                no limit). 0 or less means no limit, and so does None.

        Returns:
            ``"OK"``.

        Raises:
            ValueError, TypeError: an argument is not usable; nothing was sent.

        Example::

            admin.send_maxqueue("resize", 1000)
            admin.send_maxqueue("resize", (1000, 100, 10))
        """
        return cast("str", self._ask("maxqueue", task, *_sizes(max_size)))

    def cancel_job(self, handle: str | bytes) -> str:
        """Have the server drop a waiting job. Its client is told that it failed; one that runs is not stopped.

        Returns:
            ``"OK"``.

        Raises:
            ServerError: the server has no job of this handle (``UNKNOWN_JOB``).
            ValueError, TypeError: it cannot be a handle; nothing was sent.

        Example::

            admin.cancel_job(request.job.handle)
        """
        return cast("str", self._ask("cancel job", handle))

    def create_function(self, task: str | bytes) -> str:
        """Make a function known to the server before the first worker or job is.

        Returns:
            ``"OK"``, also if the function was known.

        Raises:
            ValueError, TypeError: it cannot be a task's name here; nothing was sent.

        Example::

            admin.create_function("resize")
            admin.send_maxqueue("resize", 1000)
        """
        return cast("str", self._ask("create function", task))

    def drop_function(self, task: str | bytes) -> str:
        """Have the server forget a function without workers.

        Jobs that still wait for it are left behind: they never run, and jobs of the same unique still join them.

        Returns:
            ``"OK"``.

        Raises:
            ServerError: there is no such function, or it has workers.
            ValueError, TypeError: it cannot be a task's name here; nothing was sent.

        Example::

            admin.drop_function("no_longer_used")
        """
        return cast("str", self._ask("drop function", task))

    def send_shutdown(self, graceful: bool = True) -> None:
        """Ask the server to end itself. gearmand no longer has this command.

        Args:
            graceful: Let it finish the jobs it has.

        Raises:
            ServerError: the server has no such command; send its process a signal.

        Example::

            try:
                admin.send_shutdown()
            except ServerError:
                os.kill(int(admin.get_pid()), signal.SIGUSR1)
        """
        try:
            self._ask("shutdown", *(["graceful"] if graceful else []))
        except ServerError as error:
            message = (
                f"{self._address} has no command to shut it down ({error.code}: {error.text}); send the process of "
                "get_pid() a signal: SIGUSR1 lets gearmand finish its jobs first, SIGTERM ends it at once"
            )
            refusal = ServerError(message, code=error.code, text=error.text, server=error.server)
            raise refusal from error

    # ---- python-gearman's way in two steps -------------------------------------------------------------------------

    @property
    def connection_list(self) -> list[GearmanConnection]:
        """The one server."""
        return [self.current_connection]

    @property
    def current_connection(self) -> GearmanConnection:
        """The one server."""
        return GearmanConnection.of(self, self._address)

    def add_connection(self, hostport_tuple: Any) -> GearmanConnection:
        """Return the one server, if it is the one that is given; an admin client talks with no other.

        Raises:
            ValueError, TypeError: it is another, or none. Make another admin client for it.

        Example::

            admin.add_connection(admin.current_connection.get_address())
        """
        address = parse_server(hostport_tuple)
        if address != self._address:
            raise ValueError(f"this admin client talks with {self._address} alone; make another one for {address}")
        return self.current_connection

    def establish_connection(self, current_connection: GearmanConnection) -> GearmanConnection:
        """Connect to the one server, unless there is a connection, and return it; see `establish_admin_connection`.

        Raises:
            ValueError: it is another server.

        Example::

            admin.establish_connection(admin.current_connection)
        """
        if current_connection != self.current_connection:
            raise ValueError(f"{current_connection} is not the server of this admin client, {self._address}")
        self.establish_admin_connection()
        return current_connection

    def _pool_servers(self) -> tuple[Server, ...]:
        return self._engine.pool.servers

    @property
    def current_handler(self) -> AdminCommandHandler:
        """What sends commands without waiting for the answer; each thread has its own."""
        handler: AdminCommandHandler | None = getattr(self._handlers, "current", None)
        if handler is None:
            handler = self._handlers.current = AdminCommandHandler(self)
        return handler

    def wait_until_server_responds(self, expected_type: str | int) -> Any:
        """Return the answer to what this thread sent by `current_handler`, the oldest first.

        Args:
            expected_type: The name of the text command, or the number of ECHO_REQ.

        Raises:
            InvalidAdminClientState: this thread has sent nothing that is unanswered, or the answer is to something
                else.

        Example::

            admin.current_handler.send_text_command("status")
            rows = admin.wait_until_server_responds("status")
        """
        kind, value = self.current_handler.pop_response(wait=True)
        if kind != expected_type:
            raise InvalidAdminClientState(f"the oldest answer is to {kind!r}, not to {expected_type!r}")
        return value

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _ask(self, name: str, *arguments: str | bytes) -> Any:
        return self._wait(self._send_text(name, *arguments))

    def _echo(self, text: str) -> str:
        return cast("str", self._wait(self._send_echo(text)))

    def _send_text(self, name: str, *arguments: str | bytes) -> Answer:
        packet = pack_text_command(name, *arguments)
        return self._send(Answer(str(self._address), name, TEXT_COMMANDS[name].answer, packet))

    def _send_echo(self, text: str) -> Answer:
        packet = pack(Command.ECHO_REQ, text.encode())
        return self._send(Answer(str(self._address), Command.ECHO_REQ, Command.ECHO_RES, packet))

    def _send(self, answer: Answer) -> Answer:
        if self._closed:
            raise ClientClosed(CLOSED, server=str(self._address))
        self._engine.send(answer)
        return answer

    def _wait(self, answer: Answer) -> Any:
        timeout = self.poll_timeout
        try:
            value = answer.promise.wait(timeout)
        except TimeoutError as error:
            if answer.promise.done:
                raise  # it is the outcome: a connection's time-out
            self._engine.give_up(answer)
            text = f"{self._address} did not answer {answer.label} within poll_timeout ({timeout:g} s)"
            raise InvalidAdminClientState(text, server=str(self._address), maybe_sent=True, retryable=True) from error
        if isinstance(answer.kind, str):
            return TEXT_COMMANDS[answer.kind].parse(value)
        return value[0].decode("utf-8", "replace")

    def _after_fork_in_child(self) -> None:
        """In the child of a fork: leave the parent's connection behind, and start anew with the next use."""
        self._engine.after_fork_in_child()
        self._engine = AdminEngine(self._address, self.options)

    def _at_exit(self) -> None:
        """At the interpreter's end: stop."""
        self.close()


class AdminCommandHandler:
    """Sends commands of one thread without waiting for their answers, for code that was written for python-gearman."""

    def __init__(self, client: GearmanAdminClient) -> None:
        self._client = client
        self._answers: deque[Answer] = deque()

    @property
    def response_ready(self) -> bool:
        """Whether the oldest answer has come."""
        return bool(self._answers) and self._answers[0].promise.done

    def send_text_command(self, command_line: str) -> None:
        """Send a text command, such as ``"maxqueue resize 10"``.

        Raises:
            ProtocolError: it is no administrative command.
            ValueError: its arguments are not usable.
        """
        try:
            name, arguments = split_text_command(command_line)
        except ValueError as error:
            raise ProtocolError(str(error)) from None
        self._answers.append(self._client._send_text(name, *arguments))

    def send_echo_request(self, echo_string: str) -> None:
        """Send an ECHO_REQ."""
        self._answers.append(self._client._send_echo(echo_string))

    def pop_response(self, wait: bool = False) -> tuple[str | int, Any]:
        """Return the oldest command that was sent (its name, or the number of ECHO_REQ) and its answer.

        Args:
            wait: Wait for it, within the client's ``poll_timeout``.

        Raises:
            InvalidAdminClientState: nothing was sent, or the answer has not come.
        """
        if not self._answers:
            raise InvalidAdminClientState("no command was sent that is unanswered")
        if not wait and not self.response_ready:
            raise InvalidAdminClientState("the answer has not come yet")
        answer = self._answers.popleft()
        return answer.kind, self._client._wait(answer)


def _sizes(max_size: int | Sequence[int] | None) -> list[str]:
    if max_size is None:
        return []
    sizes = list(max_size) if isinstance(max_size, Sequence) else [max_size]
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"max_size is {max_size!r}; it must be one size, or one to three of them (high, normal, low)")
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"max_size is {max_size!r}; sizes must be whole numbers")
        if not -_MAX_SIZE <= size <= _MAX_SIZE:
            raise ValueError(f"max_size is {max_size!r}; the server takes sizes up to {_MAX_SIZE}")
    return [str(size) for size in sizes]
