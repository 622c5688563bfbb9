"""`GearmanClient`: one for all threads of a process, every job a future.

What is here is what users call: arguments, their documentation, and one call down, to `engine.client` for jobs and to
`engine.asking` for questions. python-gearman's methods stand in `python_gearman.client`.

Threads: all methods may be called from any thread, none from the I/O thread if it waits. Nothing here sends or reads.
"""

from __future__ import annotations

import logging
import math
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from .connection_manager import GearmanConnectionManager
from .constants import (
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_HIGH,
    PRIORITY_LOW,
    PRIORITY_NONE,
)
from .engine.asking import DASH, Asking
from .engine.client.engine import ClientEngine
from .engine.client.submitting import Submitting
from .errors import (
    ConnectionError,  # noqa: A004 - python-gearman's name
    ExceededConnectionAttempts,
    ServerUnavailable,
)
from .events import ClientStats, ServerInfo
from .jobs.flight import is_accepted
from .jobs.future import JobFuture
from .jobs.job import GearmanJobRequest
from .jobs.views import JobReference, JobStatus
from .protocol.values import encode_unique
from .python_gearman import GearmanConnection, PythonGearmanClient
from .settings.addresses import ServerAddress, parse_server
from .settings.checks import check_count, check_timeout
from .settings.client_options import ClientOptions
from .settings.sources import parse_servers, servers_from_env
from .threads import lifecycle
from .threads.waiting import Promise

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .settings.client_options import ClientOptionsDict

__all__ = [
    "JOB_COMPLETE",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_PENDING",
    "JOB_UNKNOWN",
    "PRIORITY_HIGH",
    "PRIORITY_LOW",
    "PRIORITY_NONE",
    "RANDOM_UNIQUE_BYTES",
    "ConnectionError",
    "ExceededConnectionAttempts",
    "GearmanClient",
    "GearmanConnectionManager",
    "GearmanJobRequest",
    "ServerUnavailable",
    "gearman_logger",
]

#: python-gearman's name for what a client logs to; ``self.log`` is the same.
gearman_logger: logging.Logger = logging.getLogger("gearman_pool.client")

#: How many random bytes a generated unique is made of, unless told otherwise.
RANDOM_UNIQUE_BYTES = 16


class GearmanClient(PythonGearmanClient):
    """A client for Gearman job servers, to be shared by all threads of a process.

    Creating one does no I/O: its background thread and its connections start with the first use, in the process that
    uses it first or after a fork. All methods may be called from any thread.

    Args:
        host_list: The servers: a list of ``"host"``, ``"host:port"``, ``(host, port)`` or python-gearman's TLS dicts;
            or a DSN such as ``"gearman://h1:4730,h2/?policy=failover"`` (``gearmans://`` for TLS).
        random_unique_bytes: Random bytes in a generated unique, 8 to 31.
        options: See `ClientOptions`; each may also stand in the DSN, and what is given here wins.

    Raises:
        ValueError, TypeError: a server or an option is not usable; the text says which and why.

    Example::

        client = GearmanClient(["10.0.0.1:4730", "10.0.0.2"], policy="failover")
        future = client.submit("resize", image, timeout=30)
        thumbnail = future.result(timeout=5)
    """

    def __init__(
        self,
        host_list: str | bytes | Iterable[Any] | None = None,
        random_unique_bytes: int = RANDOM_UNIQUE_BYTES,
        **options: Unpack[ClientOptionsDict],
    ) -> None:
        self._closed = True  # until all is in place, for __del__
        addresses, dsn_options = parse_servers(host_list)
        self._setup(addresses, ClientOptions.merge(dsn_options, options), random_unique_bytes)

    def _setup(self, addresses: tuple[ServerAddress, ...], options: ClientOptions, random_unique_bytes: int) -> None:
        check_count("random_unique_bytes", random_unique_bytes, 8, 31)
        self.log: logging.Logger = gearman_logger
        self.random_unique_bytes = random_unique_bytes
        self.options = options
        if options.data_encoder is not None:
            self.data_encoder: Any = options.data_encoder
        context = options.ssl_context
        if context is not None:
            addresses = tuple(address.with_ssl(context) for address in addresses)
        self._submitting = Submitting(options, self.data_encoder)
        self._connections: dict[ServerAddress, GearmanConnection] = {}
        self._engine = self._submitting.engine = self._new_engine(addresses)
        self._asking = Asking(self._engine)
        self._closed = False
        lifecycle.register(self, GearmanClient._after_fork_in_child, GearmanClient._at_exit)

    def _new_engine(self, addresses: tuple[ServerAddress, ...]) -> ClientEngine:
        # No reference back to the client: one that nobody refers to any more must go, though its thread still runs.
        connections = self._connections
        return ClientEngine(
            addresses,
            self.options,
            partial(_connection_for, connections, weakref.ref(self)),
            self.random_unique_bytes,
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Unpack[ClientOptionsDict]) -> Self:
        """Make a client for the servers in ``GEARMAN_SERVERS``, libgearman's variable (comma-separated).

        ``GEARMAND_CA_CERTIFICATE``, ``GEARMAN_CLIENT_PEM`` and ``GEARMAN_CLIENT_KEY`` turn TLS on, as they do there.

        Raises:
            ValueError: ``GEARMAN_SERVERS`` is missing or not usable.

        Example::

            client = GearmanClient.from_env(policy="failover")  # GEARMAN_SERVERS=10.0.0.1:4730,10.0.0.2
        """
        addresses, found = servers_from_env(environ)
        merged: ClientOptionsDict = {**found, **options}  # type: ignore[typeddict-item]
        return cls(addresses, **merged)

    # ---- submitting ------------------------------------------------------------------------------------------------

    def submit(
        self,
        task: str | bytes,
        data: Any = b"",
        *,
        unique: str | bytes | None = None,
        priority: str | None = PRIORITY_NONE,
        timeout: float | None = None,
        max_retries: int | None = None,
        on_status: Callable[[int, int], object] | None = None,
        on_data: Callable[[Any], object] | None = None,
        on_warning: Callable[[Any], object] | None = None,
    ) -> JobFuture:
        """Submit a job and return its future at once.

        Blocks only while ``max_in_flight`` or ``max_outbound_bytes`` is used up, for ``submit_timeout`` at the most.

        Args:
            task: The task's name.
            data: The payload, for the encoder.
            unique: A name for the job, at most 63 bytes: a job of the same task and unique that is already queued or
                running at the server is joined. Made up if None.
            priority: ``PRIORITY_NONE``, ``PRIORITY_LOW`` or ``PRIORITY_HIGH``.
            timeout: After this many seconds the job ends here with `JobTimeout`. No limit if None.
            max_retries: How often the job is sent again when its connection is lost: it may then run twice. The
                client's ``max_retries`` if None.
            on_status: Called with numerator and denominator on a callback thread.
            on_data: Called with each piece of data, decoded, on a callback thread; it is then kept nowhere else.
            on_warning: Called with each warning, likewise.

        Raises:
            ValueError, TypeError: an argument is not usable.
            EncodeError: the encoder does not take ``data``.
            ClientSaturated: the budget was used up for ``submit_timeout``.
            ClientClosed: the client is closed.
            ThreadUnavailable: the client's background thread cannot be started.

        Example::

            future = client.submit("resize", image, timeout=30, on_status=lambda n, d: print(n, "of", d))
        """
        future = self._new_future(task, data, unique, priority, False, max_retries)
        if on_status is not None or on_data is not None or on_warning is not None:
            callbacks = {"status": on_status, "data": on_data, "warning": on_warning}
            future.call_on_update({name: callback for name, callback in callbacks.items() if callback is not None})
        if timeout is not None:
            check_timeout("timeout", timeout)
        self._submitting.send(future, timeout)
        return future

    def submit_background(
        self,
        task: str | bytes,
        data: Any = b"",
        *,
        unique: str | bytes | None = None,
        priority: str | None = PRIORITY_NONE,
        at: datetime | float | None = None,
        max_retries: int | None = None,
    ) -> JobFuture:
        """Submit a job whose result nobody waits for; the future resolves to a `JobReference` once the server has it.

        Args:
            at: Not before then: an aware datetime, or seconds since the epoch. Rounded up to a whole second. gearmand
                gives such jobs normal priority, and before 2.0 it does not wake sleeping workers when they are due.

        The other arguments, blocking and errors are those of `submit`.

        Example::

            reference = client.submit_background("mail", message, at=time.time() + 3600).result(timeout=5)
        """
        epoch = None
        if at is not None:
            epoch = _epoch(at)
            if priority is not PRIORITY_NONE:
                raise ValueError("a job with at= cannot have a priority: the server gives it the normal one")
        future = self._new_future(task, data, unique, priority, True, max_retries)
        if epoch is not None:
            future.wait_until(epoch)
        self._submitting.send(future, None)
        return future

    def map(
        self, task: str | bytes, iterable: Iterable[Any], *, window: int = 1000, timeout: float | None = None
    ) -> Iterator[Any]:
        """Submit a job for each item and yield the results in the items' order.

        The first ``window`` jobs are submitted at once, each further one when a result is taken: an endless iterable
        works.

        Args:
            window: How many jobs may be in flight, at most; never more than ``max_in_flight``.
            timeout: How long results may take in all, in seconds from this call; no limit if None.

        Raises:
            TimeoutError: while iterating: the time was up.
            GearmanError: while iterating: a job failed. The jobs behind it that have not been sent are withdrawn.

        Example::

            for thumbnail in client.map("resize", images, window=100, timeout=60):
                save(thumbnail)
        """
        window = min(check_count("window", window, 1), self.options.max_in_flight)
        deadline = None if timeout is None else monotonic() + timeout
        results = self._results(task, iter(iterable), window, deadline)
        # Up to its first yield: only a generator that has begun withdraws its jobs when nobody wants its results.
        next(results)
        return results

    def _results(self, task: str | bytes, items: Iterator[Any], window: int, deadline: float | None) -> Iterator[Any]:
        futures: deque[JobFuture] = deque()
        try:
            for item in items:
                futures.append(self.submit(task, item))
                if len(futures) >= window:
                    break
            yield None
            while futures:
                future = futures.popleft()
                result = future.result(None if deadline is None else max(0.0, deadline - monotonic()))
                for item in items:
                    futures.append(self.submit(task, item))
                    break
                yield result
        finally:
            for future in futures:
                # In the child of a fork they are the parent's, and of no concern here.
                if future.engine is self._engine:
                    self._engine.begin_cancel(future, Promise())

    def _new_future(
        self,
        task: str | bytes,
        data: Any,
        unique: str | bytes | None,
        priority: str | None,
        background: bool,
        max_retries: int | None,
    ) -> JobFuture:
        if max_retries is None:
            max_retries = self.options.max_retries
        else:
            check_count("max_retries", max_retries, 0)
        given = unique is not None
        if unique is None:
            unique = self._engine.uniques.new()
        job = self.job_class(None, None, task, unique, data)
        request = self.job_request_class(job, priority, background, max_retries + 1)
        return self._submitting.future(self, request, given, True)

    # ---- asking ----------------------------------------------------------------------------------------------------

    def status(
        self,
        what: JobFuture | GearmanJobRequest | JobReference | str | None = None,
        *,
        unique: str | bytes | None = None,
        timeout: float | None = None,
    ) -> JobStatus:
        """Ask how a job stands.

        Args:
            what: A future, a request, a `JobReference`, or its text.
            unique: Instead of ``what``: the unique of a job, asked of all servers.
            timeout: How long to wait for an answer, in seconds; ``submit_timeout`` if None.

        Returns:
            The status; ``known`` is False for a job that is done as well as for one that never was.

        Raises:
            TimeoutError: no answer in time.
            ServerUnavailable: the server could not be reached (none of them, for ``unique``).
            ValueError: it is no reference, or its server is not one of this client's; or ``unique`` is ``"-"``, by
                which the server finds no job.

        Example::

            status = client.status(session["job"])
            if status.known and status.fraction is not None:
                print(f"{status.fraction:.0%}")
        """
        if (what is None) == (unique is None):
            raise ValueError("give status() either a future, request or reference, or unique=")
        if unique in DASH:
            raise ValueError("the server finds no job by the unique '-'; give a future, request or reference")
        timeout = self.options.submit_timeout if timeout is None else timeout
        if unique is not None:
            return self._asking.status_anywhere(encode_unique(unique), timeout)
        if isinstance(what, str):
            what = JobReference.parse(what)
        if isinstance(what, JobReference):
            promise = self._asking.status(self._asking.server(what.server), what.handle, what.unique, timeout)
        elif isinstance(what, (JobFuture, GearmanJobRequest)):
            request = what.request if isinstance(what, JobFuture) else what
            job = request.gearman_job
            if job.handle is None or job.connection is None:
                return JobStatus(False, False)
            unique = None if is_accepted(request) else job.unique
            server = self._asking.server(str(job.connection.address))
            promise = self._asking.status(server, job.handle, unique, timeout)
        else:
            raise TypeError(
                f"status() takes a JobFuture, GearmanJobRequest, JobReference or str, not {type(what).__name__}"
            )
        status: JobStatus = promise.wait(timeout)
        return status

    def ping(self, timeout: float | None = None) -> dict[str, float | None]:
        """Return the round trip to each server in seconds; None for one that did not answer.

        Args:
            timeout: How long to wait, in seconds; ``health_check_timeout`` if None.

        Example::

            client.ping(timeout=1)  # {"10.0.0.1:4730": 0.0004, "10.0.0.2:4730": None}
        """
        return self._asking.ping_all(self.options.health_check_timeout if timeout is None else timeout)

    def servers(self) -> tuple[ServerInfo, ...]:
        """Return how each server stands, without asking it.

        Example::

            down = [server.address for server in client.servers() if server.state == "DOWN"]
        """
        return self._engine.pool.infos()

    def stats(self) -> ClientStats:
        """Return counters since the start, and what is in flight now.

        Example::

            print(client.stats().in_flight, "in flight,", client.stats().jobs_completed, "complete")
        """
        return self._engine.stats()

    # ---- the pool --------------------------------------------------------------------------------------------------

    def add_server(self, server: Any) -> None:
        """Take in one more server, given as in the constructor. One that is there already changes nothing.

        Raises:
            ValueError, TypeError: it is no server.

        Example::

            client.add_server("10.0.0.3:4730")
        """
        address = parse_server(server)
        if self.options.ssl_context is not None:
            address = address.with_ssl(self.options.ssl_context)
        self._engine.pool.add(address)

    def add_connection(self, hostport_tuple: Any) -> GearmanConnection:
        """Take in a server, given as (host, port) or ``"host:port"``, and return it; see `GearmanClient.add_server`.

        Raises:
            ValueError, TypeError: it is no server.

        Example::

            client.add_connection(("10.0.0.3", 4730))
        """
        self.add_server(hostport_tuple)
        return self._connection(parse_server(hostport_tuple))

    def remove_server(self, server: Any, drain: bool = True) -> None:
        """Take a server out: it gets no more jobs from this client.

        Args:
            server: The server, given as in the constructor.
            drain: Keep the connection until the jobs in flight there are done; else their connection is lost at once.

        Raises:
            ValueError: it is not a server of this client.

        Example::

            client.remove_server("10.0.0.3:4730", drain=True)
        """
        address = str(parse_server(server))
        if not self._engine.pool.remove(address, drain):
            raise self._asking.no_such_server(address)

    def close(self, timeout: float = 5.0) -> None:
        """Refuse new jobs, wait for those in flight, fail what is left with `ClientClosed`, and end the thread.

        Args:
            timeout: How long to wait for jobs in flight, in seconds.

        May be called again, and by several threads.

        Example::

            client.close(timeout=10)
        """
        check_timeout("timeout", timeout, zero=True)
        self._closed = True
        self._engine.close(timeout)

    def shutdown(self) -> None:
        """Close the client; `GearmanClient.close` is the newer name.

        Example::

            client.shutdown()
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
            self._engine.abandon()
            # Last, because a filter may make an exception of it.
            warnings.warn(text, ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        name = f" {self.options.name!r}" if self.options.name else ""
        servers = ", ".join(f"{server.address} {server.state}" for server in self._engine.pool.infos())
        state = "closed, " if self._closed else ""
        return f"<{type(self).__name__}{name} [{servers}] {state}{self._engine.pool.in_flight()} in flight>"

    # ---- fork and exit ---------------------------------------------------------------------------------------------

    def _after_fork_in_child(self) -> None:
        """In the child of a fork: leave the parent's half behind, and start anew with the next use."""
        old = self._engine
        addresses = tuple(server.address for server in old.pool.wanted.values())
        try:
            old.after_fork_in_child()
        finally:
            self._engine = self._submitting.engine = self._asking.engine = self._new_engine(addresses)
            if self._closed:
                self._engine.refusing = "the client is closed; make a new one"

    def _at_exit(self) -> None:
        """At the interpreter's end: send what is queued, so that background jobs are not lost."""
        if not self._closed:
            self._closed = True
            self._engine.close_at_exit()


def _connection_for(
    connections: dict[ServerAddress, GearmanConnection],
    owner: Callable[[], GearmanClient | None],
    address: ServerAddress,
) -> GearmanConnection:
    client = owner()
    if client is not None:
        return client._connection(address)
    return connections.get(address) or GearmanConnection(address)


def _epoch(at: datetime | float) -> bytes:
    """Return whole seconds since the epoch, rounded up: a job must not come early."""
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(
                "at= is a datetime without a time zone; give an aware one, such as datetime.now(timezone.utc)"
            )
        at = at.timestamp()
    if isinstance(at, bool) or not isinstance(at, (int, float)):
        raise TypeError(f"at= takes an aware datetime or seconds since the epoch, not {type(at).__name__}")
    if not math.isfinite(at) or not 0 <= at < 2**63:
        # gearmand never answers a number beyond 64 bits, and a reply that never comes spoils the connection.
        raise ValueError(f"at= is {at!r}; it must be seconds since the epoch, from 0 on")
    return str(math.ceil(at)).encode()
