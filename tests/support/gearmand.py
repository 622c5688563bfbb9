"""A real gearmand for tests."""

from __future__ import annotations

import random
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gearman_pool.testing

from .processes import tied_to_us
from .raw import ECHO_REQ, ECHO_RES, Closed, RawConnection
from .waiting import wait_until

__all__ = ["Gearmand", "RunningServer", "free_port"]

HOST = "127.0.0.1"


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


class Gearmand(gearman_pool.testing.Gearmand, RunningServer):
    """The package's own, which a raw connection asks whether it is there: a test may break whatever it tests.

    Its port is a `free_port` unless one is asked for. With ``--ssl`` among the arguments, ``ssl_context`` is how to
    connect to it, unless it was built without TLS: ``speaks_tls`` says so. A server that is started in a thread other
    than the main one is not killed by the kernel when the test process dies.
    """

    def __init__(
        self, *, arguments: Sequence[str] = (), port: int = 0, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._ssl_context = ssl_context
        self.speaks_tls = False
        for attempt in range(10):
            try:
                super().__init__(arguments=arguments, port=port or free_port())
            except RuntimeError:
                # Another process took the port between the look and the launch.
                if port or attempt == 9:
                    raise
            else:
                return

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

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Have it frozen within the block: what a client does there, it does before any answer."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def restart(self) -> None:
        """Kill it and start it again on the same port, its queues empty."""
        self.kill()
        self.start()

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        return super()._launch(tied_to_us(command))

    def _answers(self) -> bool:
        # Plain TCP first: without TLS it may take a handshake for the beginning of a line, and wait for the rest.
        for through_tls in (False,) if self._ssl_context is None else (False, True):
            if self._answers_by(through_tls):
                self.speaks_tls = through_tls
                return True
        time.sleep(0.005)
        return False

    def _answers_by(self, through_tls: bool) -> bool:
        try:
            with self._connect(2.0, through_tls) as connection:
                if connection.request(ECHO_REQ, b"there?").command != ECHO_RES:
                    return False
                found = re.search(r"\d+", connection.text("getpid"))
        except (OSError, Closed):
            return False
        # The process number guards against another gearmand that was faster to take the port.
        return found is not None and int(found.group()) == self.pid
