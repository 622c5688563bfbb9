"""A real gearmand for tests."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import Self

from .processes import ChildProcess, find_program
from .raw import ECHO_REQ, ECHO_RES, Closed, RawConnection
from .waiting import wait_until

__all__ = ["Gearmand", "RunningServer", "free_port", "gearmand_program"]

HOST = "127.0.0.1"


def gearmand_program() -> str | None:
    """The path of gearmand, or None where it is not installed."""
    return find_program("gearmand")


def free_port() -> int:
    """A loopback port on which nobody listens now.

    It lies outside the range that the kernel gives to outgoing connections: a client that keeps connecting to a
    dead server's port inside that range can take the port itself, or even connect to itself.
    """
    for _ in range(200):
        port = random.choice(_candidates)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port found on the loopback interface")


def _candidate_ports() -> range:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = 32768
    return range(10_000, first) if first > 15_000 else range(20_000, 65_000)


_candidates = _candidate_ports()


class RunningServer:
    """What can be asked of a server of any kind; a subclass says where it is (``host`` and ``port``)."""

    host: str
    port: int

    @property
    def address(self) -> str:
        """``host:port``, as a client's list of hosts takes it."""
        return f"{self.host}:{self.port}"

    @property
    def endpoint(self) -> tuple[str, int]:
        """``(host, port)``, as the socket module takes it."""
        return self.host, self.port

    def connect(self, timeout: float = 10.0) -> RawConnection:
        """A raw connection to it."""
        return RawConnection(self.endpoint, timeout)

    def text(self, command: str) -> str:
        """The answer to a text command such as ``status``, on a connection of its own."""
        with self.connect() as connection:
            return connection.text(command)

    def status(self) -> dict[str, tuple[int, int, int]]:
        """``{function: (total jobs, running jobs, workers)}``."""
        rows = (line.split("\t") for line in self.text("status").splitlines())
        return {row[0]: (int(row[1]), int(row[2]), int(row[3])) for row in rows if len(row) == 4}

    def jobs(self, function: str) -> int:
        """How many jobs of a function the server holds, running ones included."""
        return self.status().get(function, (0, 0, 0))[0]

    def running_jobs(self, function: str) -> int:
        """How many jobs of a function are at a worker."""
        return self.status().get(function, (0, 0, 0))[1]

    def workers(self, function: str) -> int:
        """How many workers have registered a function."""
        return self.status().get(function, (0, 0, 0))[2]

    def connections(self) -> int:
        """How many clients and workers are connected, without the connection that asks."""
        return len(self.text("workers").splitlines()) - 1

    def wait_for(
        self, condition: Callable[[str], object], command: str = "status", timeout: float = 10.0, message: str = ""
    ) -> str:
        """Repeat a text command until ``condition(answer)`` is true, and return that answer."""
        answer = ""

        def holds() -> bool:
            nonlocal answer
            answer = self.text(command)
            return bool(condition(answer))

        wait_until(holds, timeout, message=lambda: f"{message or condition}; {command} of {self.address}:\n{answer}")
        return answer


class Gearmand(RunningServer):
    """A gearmand process on a loopback port of its own.

    The constructor returns once the server answers. ``threads`` is gearmand's ``-t``, ``arguments`` are more of its
    options, and ``port`` asks for one port instead of a free one. With ``--ssl`` among the arguments, ``ssl_context``
    is how to connect to it, unless it was built without TLS: ``speaks_tls`` says so. ``close()``, or leaving the
    ``with`` block, ends it. Methods may be called from any thread; a server that is started in a thread other than the
    main one is not killed by the kernel when the test process dies.
    """

    host = HOST

    def __init__(
        self,
        *,
        threads: int = 2,
        arguments: Sequence[str] = (),
        port: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        program = gearmand_program()
        if program is None:
            raise FileNotFoundError("gearmand is not installed: install Debian's package gearman-job-server")
        self._program = program
        self._arguments = ["-t", str(threads), *arguments]
        self._ssl_context = ssl_context
        self.speaks_tls = False
        self._child: ChildProcess | None = None
        self._paused = False
        self._directory = tempfile.TemporaryDirectory(prefix="gearman-pool-test-")
        try:
            self._start_first(port)
        except BaseException:
            self._directory.cleanup()
            raise

    def _start_first(self, port: int | None) -> None:
        if port is not None:
            self.port = port
            self._launch()
            return
        for attempt in range(10):
            self.port = free_port()
            try:
                self._launch()
            except AssertionError:
                # Another process took the port between the look and the launch.
                if attempt == 9:
                    raise
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "paused" if self._paused else "running" if self.running else "down"
        return f"<Gearmand {self.address} {state}>"

    def connect(self, timeout: float = 10.0) -> RawConnection:
        return self._connect(timeout, self.speaks_tls)

    def _connect(self, timeout: float, through_tls: bool) -> RawConnection:
        connection = super().connect(timeout)
        if through_tls:
            assert self._ssl_context is not None
            try:
                connection.sock = self._ssl_context.wrap_socket(connection.sock, server_hostname=self.host)
            except BaseException:
                connection.close()
                raise
        return connection

    @property
    def pid(self) -> int:
        """The number of the process that was started last."""
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the process lives (a paused one does)."""
        return self._child is not None and self._child.running

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone: its connections are reset or closed by the kernel."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it with SIGTERM, and wait until it is gone."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze it with SIGSTOP: connects still succeed, nothing is answered. Returns once it is stopped."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        if stat.exists():
            wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", message="gearmand stops")
        self._paused = True

    def resume(self) -> None:
        """Let a paused server go on."""
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)
        self._paused = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have it frozen within the block: what a client does there, it does before any answer."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def start(self) -> None:
        """Start it again on the same port after `kill` or `stop`; returns once it answers."""
        assert not self.running, f"gearmand {self.address} runs already"
        self._discard()
        self._launch()

    def restart(self, number: int = signal.SIGKILL) -> None:
        """End it and start it again on the same port, its queues empty."""
        self._end(number)
        self.start()

    def log(self) -> str:
        """What it has logged since the start, former processes on the port included."""
        log = Path(self._directory.name, "gearmand.log")
        return log.read_text("utf-8", "replace") if log.exists() else ""

    def close(self) -> None:
        """End it for good. May be called again."""
        self._discard()
        self._directory.cleanup()

    def _launch(self, timeout: float = 15.0) -> None:
        # gearmand removes its pid file at its end, so this must never name a file of others.
        pid_file = os.path.join(self._directory.name, "gearmand.pid")
        command = [self._program, "-L", HOST, "-p", str(self.port), "-l", "stderr", "-P", pid_file, *self._arguments]
        self._child = ChildProcess(command, Path(self._directory.name, "gearmand.log"))
        self._paused = False
        try:
            wait_until(self._answers, timeout, message=lambda: f"{self} answers; its log:\n{self.log()}")
        except BaseException:
            self._discard()
            raise

    def _answers(self) -> bool:
        # The process number guards against another gearmand that was faster to take the port.
        if not self.running:
            code = self._child.process.returncode if self._child else None
            raise AssertionError(f"gearmand on {self.address} ended with {code}; its log:\n{self.log()}")
        # Plain TCP first: without TLS it may take a handshake for the beginning of a line, and wait for the rest.
        for through_tls in (False,) if self._ssl_context is None else (False, True):
            if self._answers_by(through_tls):
                self.speaks_tls = through_tls
                return True
        return False

    def _answers_by(self, through_tls: bool) -> bool:
        try:
            with self._connect(2.0, through_tls) as connection:
                if connection.request(ECHO_REQ, b"there?").command != ECHO_RES:
                    return False
                found = re.search(r"\d+", connection.text("getpid"))
        except (OSError, Closed):
            return False
        return found is not None and int(found.group()) == self.pid

    def _end(self, number: int) -> None:
        assert self._child is not None
        self._child.end(number)
        self._paused = False

    def _discard(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
