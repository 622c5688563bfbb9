"""`EmbeddedServer`: a Gearman job server in pure Python on one thread, for development and tests.

The thread, `ServerLoop`, owns the sockets and the state machine of `gearman_pool.protocol.server`. Methods of other
threads post a call to it and wait for what it returns.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from .. import __version__
from ..protocol.commands import COMMANDS, Command, Sender
from ..protocol.server import JobServer
from .served import ServedJob, ServerStats, ended_job, server_stats, submitted_jobs, unfinished_job
from .server_loop import ServerLoop, Waiter, listen

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

__all__ = ["EmbeddedServer", "find_job"]

log: logging.Logger = logging.getLogger("gearman_pool.testing.server")

T = TypeVar("T")

#: How many jobs that have ended can be looked at.
_HISTORY = 10_000

#: How many jobs a failed assertion lists, and how many bytes of the payload of each.
_LISTED = 30
_SHORT = 100


class EmbeddedServer:
    """A Gearman job server in this process, for development and tests: one thread, no persistence, no authentication.

    It speaks the whole protocol: foreground, background and delayed jobs, three priorities, uniques, status, all kinds
    of updates, exceptions, workers that come and go, and the administrative commands. Methods may be called from any
    thread. After a fork the child has a copy that does not serve.

    Args:
        host: The address to listen on; loopback unless told otherwise.
        port: The port to listen on; a free one if 0. It stays the same when the server is started again.
        max_packet_size: The largest packet taken from a peer, in bytes; a larger one ends its connection.
        max_connections: Further ones are closed at once.
        max_jobs: Unfinished jobs held; further ones are refused with QUEUE_ERROR (`QueueFull`).
        job_retries: How many workers a job may lose before it fails, as with gearmand's option of that name; any number
            if None.
        ssl_context: A server's TLS context; None for plain TCP.
        clock: Gives the time in seconds since the epoch, for delayed jobs and time limits.

    Raises:
        ValueError, TypeError: an argument is not usable.

    Example::

        with EmbeddedServer() as server, GearmanClient([server.address]) as client:
            client.submit_background("mail", b"...")
            server.assert_submitted("mail", data=b"...", background=True)
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        max_packet_size: int = 128 * 1024 * 1024,
        max_connections: int = 1000,
        max_jobs: int = 1_000_000,
        job_retries: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        limits = {"max_packet_size": max_packet_size, "max_connections": max_connections, "max_jobs": max_jobs}
        for name, value in limits.items():
            _check_count(name, value)
        if job_retries is not None:
            _check_count("job_retries", job_retries)
        self.host = host
        self._port = port
        self._max_packet_size = max_packet_size
        self._max_connections = max_connections
        self._max_jobs = max_jobs
        self._job_retries = job_retries
        self._ssl_context = ssl_context
        self._clock = clock
        # Guards starting and stopping; held for as long as these take, with no other lock. The thread never takes it.
        self._lock = threading.Lock()
        self._loop: ServerLoop | None = None
        _servers.add(self)

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<EmbeddedServer {self.host}:{self._port} {state}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- running ---------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it serves."""
        loop = self._loop
        return loop is not None and loop.thread.is_alive()

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the first start, if none was asked for."""
        return self._port

    @property
    def address(self) -> str:
        """``host:port``, as a client takes it.

        Raises:
            RuntimeError: it has no port yet.
        """
        if not self._port:
            raise RuntimeError("the server has no port yet; call start(), or use it in a with statement")
        return f"[{self.host}]:{self._port}" if ":" in self.host else f"{self.host}:{self._port}"

    @property
    def url(self) -> str:
        """The address as a DSN, ``gearman://host:port/`` (``gearmans://`` with TLS)."""
        return f"{'gearmans' if self._ssl_context is not None else 'gearman'}://{self.address}/"

    def start(self) -> Self:
        """Listen, and serve on a thread. Does nothing if it does. It has no jobs at first.

        Raises:
            OSError: the address cannot be listened on.
        """
        with self._lock:
            if self._loop is not None:
                return self
            listener = listen(self.host, self._port)
            self._port = listener.getsockname()[1]
            jobs = JobServer(
                socket.gethostname(),
                f"2.0.0+gearman_pool.{__version__}",
                os.getpid(),
                max_packet_size=self._max_packet_size,
                max_jobs=self._max_jobs,
                max_out_bytes=max(2 * self._max_packet_size, 16 * 1024 * 1024),
                job_retries=self._job_retries,
                history=_HISTORY,
            )
            self._loop = ServerLoop(jobs, listener, self._ssl_context, self._max_connections, self._clock)
            self._loop.thread.start()
        if _is_loopback(self.host):
            log.info("a Gearman server for development and tests listens on %s", self.address)
        else:
            text = "a Gearman server for development and tests listens on %s, where anybody who can reach it can use it"
            log.warning(text, self.address)
        return self

    def stop(self) -> None:
        """Close all connections and forget all jobs. May be called again, and by several threads."""
        with self._lock:
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.end()

    # ---- faults ----------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Freeze: sockets stay open and connections are still taken by the system, but nothing is read or answered."""
        self._call(lambda loop: loop.pause())

    def resume(self) -> None:
        """Go on after `pause`."""
        self._call(lambda loop: loop.resume())

    def kill_connections(self) -> int:
        """Close all connections, as a restart does, but keep the background jobs. Return how many there were."""
        return self._call(lambda loop: loop.close_all())

    def drop_next(self, command: str, count: int = 1) -> None:
        """Do not send the next packets of this command, such as ``"JOB_CREATED"``.

        Args:
            command: The name of a command that a server sends.
            count: How many; they add up with those of earlier calls that are still to come.

        Raises:
            ValueError: a server sends no such command, or ``count`` is no whole number above 0.
        """
        number = Command.__members__.get(command)
        if number is None or number not in COMMANDS or not COMMANDS[number].senders & Sender.SERVER:
            raise ValueError(f"{command!r} is not the name of a command that a server sends, such as 'JOB_CREATED'")
        _check_count("count", count)

        def drop(loop: ServerLoop) -> None:
            loop.jobs.drops[number] += count

        self._call(drop)

    # ---- looking ---------------------------------------------------------------------------------------------------

    @property
    def jobs(self) -> tuple[ServedJob, ...]:
        """All unfinished jobs, oldest first."""
        return self._call(lambda loop: tuple(unfinished_job(job) for job in loop.jobs.table.jobs.values()))

    @property
    def finished(self) -> tuple[ServedJob, ...]:
        """The jobs that have ended since the start, in that order: the last 10,000, or 16 MiB of their payloads."""
        return self._call(lambda loop: tuple(map(ended_job, loop.jobs.history)))

    def job(self, handle: str) -> ServedJob | None:
        """Return the job with this handle, among the unfinished ones and those of `finished`."""
        key = handle.encode("utf-8", "surrogateescape")

        def look(loop: ServerLoop) -> ServedJob | None:
            job = loop.jobs.table.jobs.get(key)
            if job is not None:
                return unfinished_job(job)
            ended = loop.jobs.history.find(key)
            return None if ended is None else ended_job(ended)

        return self._call(look)

    def assert_submitted(self, task: str, *, timeout: float = 5.0, **expected: Any) -> ServedJob:
        """Return the last job of a task that has these attributes of `ServedJob`, whether or not it has ended.

        Args:
            timeout: How long to wait for it, in seconds: what a client submits is on its way for a moment.
            expected: The attributes; ``data`` and ``result`` may be given as str.

        Raises:
            AssertionError: there is none; the text lists what there is.
            TypeError: a job has no such attribute.

        Example::

            server.assert_submitted("mail", data=b"...", state="COMPLETE")
        """
        __tracebackhide__ = True  # pytest shows the caller's line
        names = [attribute.name for attribute in fields(ServedJob)]
        for name, value in expected.items():
            if name not in names:
                raise TypeError(f"a job has no attribute {name!r}; it has {', '.join(names)}")
            if isinstance(value, str) and name in ("data", "result", "exception"):
                expected[name] = value.encode()
        wanted = task.encode("utf-8", "surrogateescape")

        def look(loop: ServerLoop) -> ServedJob | None:
            for job in reversed(submitted_jobs(loop.jobs, wanted)):
                if all(getattr(job, name) == value for name, value in expected.items()):
                    return job
            return None

        found = self._wait(look, timeout)
        if found is None:
            like = ", ".join([repr(task), *(f"{name}={value!r}" for name, value in expected.items())])
            raise AssertionError(f"no job was submitted like {like}; {self._what_there_is()}")
        return found

    def _what_there_is(self) -> str:
        if not self.running:
            return "the server was stopped"
        jobs = self._call(lambda loop: submitted_jobs(loop.jobs))
        lines = [f"  {job.task} data={_short(job.data)} background={job.background} {job.state}" for job in jobs]
        if len(lines) > _LISTED:
            lines = [f"  ({len(lines) - _LISTED} others)", *lines[-_LISTED:]]
        return "there were:\n" + ("\n".join(lines) or "  none")

    def stats(self) -> ServerStats:
        """Return what it holds now."""
        return self._call(lambda loop: server_stats(loop.jobs, loop.accepted))

    def wait_idle(self, timeout: float = 10.0, *, after: int = 0) -> bool:
        """Wait until there are no unfinished jobs; return False if that is not so after ``timeout`` seconds.

        Args:
            after: How many jobs must have come since the start, or the last `clear`. A job whose submission nobody has
                waited for may still be on its way, and the server idle for that.

        Example::

            client.submit_background("mail", b"...")
            assert server.wait_idle(after=1)
        """

        def look(loop: ServerLoop) -> bool | None:
            table = loop.jobs.table
            return True if table.accepted >= after and not table.jobs else None

        return self._wait(look, timeout) is not None or not self.running

    def clear(self) -> None:
        """Drop all jobs, and forget those that have ended: for tests that share a server.

        Clients that wait are told that their jobs have failed; workers go on, and their results are refused.
        """
        self._call(lambda loop: loop.jobs.clear())

    def _wait(self, look: Callable[[ServerLoop], T | None], timeout: float) -> T | None:
        """Have the thread look until there is something, and return that; None after ``timeout``, or at its end."""
        waiter: Waiter[T] = Waiter(look)
        self._call(lambda loop: loop.waiters.append(waiter))
        try:
            return waiter.found.result(timeout)
        except FutureTimeoutError:  # not the builtin one before Python 3.11
            with contextlib.suppress(RuntimeError):  # it was stopped
                self._call(lambda loop: loop.waiters.remove(waiter))
            return None

    def _call(self, call: Callable[[ServerLoop], T]) -> T:
        loop = self._loop
        if loop is None:
            raise RuntimeError("the server is not running; call start(), or use it in a with statement")
        return loop.call(call)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number above 0")


def _short(data: bytes) -> str:
    return repr(data if len(data) <= _SHORT else data[:_SHORT] + b"...")


def find_job(handle: str, unique: str) -> ServedJob | None:
    """Return the job with these names, whichever running server of this process has it; None if it is elsewhere."""
    for server in list(_servers):
        with contextlib.suppress(RuntimeError):  # it does not run
            job = server.job(handle)
            if job is not None and job.unique == unique:
                return job
    return None


_servers: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for server in list(_servers):
        loop, server._loop = server._loop, None
        server._lock = threading.Lock()
        if loop is not None:
            loop.close_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
