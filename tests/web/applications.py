"""Web servers on loopback ports, and requests to them."""

from __future__ import annotations

import http.client
import importlib.util
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from ..support.gearmand import Gearmand, free_port
from ..support.processes import ChildProcess
from ..support.waiting import wait_until
from ..support.workers import CWorker

__all__ = [
    "EXAMPLES",
    "PROGRAMS",
    "Application",
    "Load",
    "ask",
    "gunicorn",
    "load_while_a_server_is_away",
    "need",
    "uwsgi",
]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PROGRAMS = Path(__file__).parent / "programs"


def need(package: str) -> None:
    """Skip the test where a package is missing. It is not imported: some of them change the process that does."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is missing (pip install -e ".[test]")')


def ask(
    port: int, method: str, path: str, body: bytes = b"", timeout: float = 25
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Make one request; return the status, the body and the headers of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


class Application:
    """A web server that serves an application. Its constructor returns when the server listens."""

    def __init__(self, port: int, command: Sequence[str], servers: Sequence[str], log: Path, **variables: str) -> None:
        self.port = port
        # gunicorn keeps a socket below the home directory.
        environment = {**os.environ, "HOME": str(log.parent), "GEARMAN_SERVERS": ",".join(servers), **variables}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        self._child = ChildProcess(command, log, environment)
        try:
            wait_until(self._answers, timeout=30, message=lambda: f"the application answers:\n{self.log()}")
        except BaseException:
            self._child.close()
            raise

    def _answers(self) -> bool:
        assert self._child.running, self.log()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def log(self) -> str:
        """What it has written so far."""
        return self._child.log()

    def close(self) -> str:
        """Have it end as an operator would; return what it wrote. It must end with status 0, before its own limit."""
        self._child.end(signal.SIGTERM, 20)
        log = self.log()
        assert self._child.process.returncode == 0, log
        return log


def gunicorn(
    folder: Path, module: str, servers: Sequence[str], log: Path, *options: str, **variables: str
) -> Application:
    """An application under gunicorn, in two processes."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}", *options]
    return Application(port, [*command, "--chdir", str(folder), f"{module}:app"], servers, log, **variables)


def uwsgi(folder: Path, module: str, servers: Sequence[str], log: Path, *options: str, **variables: str) -> Application:
    """An application under uWSGI, in two processes."""
    port = free_port()
    command = [sys.executable, "-c", "import pyuwsgi; pyuwsgi.run()", "--http-socket", f"127.0.0.1:{port}"]
    command += ["--master", "--processes", "2", "--need-app", "--no-orphans", "--disable-logging"]
    command += ["--die-on-term", "--worker-reload-mercy", "10"]
    command += ["--chdir", str(folder), "--module", f"{module}:app", *options]
    return Application(port, command, servers, log, **variables)


class Load:
    """Requests from several threads, until `stop`.

    Counted are ``"right"`` and ``"wrong"`` echoes, and the bodies of other answers, which are the names of errors.
    """

    def __init__(self, application: Application, threads: int = 8) -> None:
        self.outcomes: Counter[str] = Counter()
        #: The processes that answered.
        self.processes: set[str] = set()
        self.longest = 0.0
        self._port = application.port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def answered(self) -> int:
        """How many requests have been answered."""
        with self._lock:
            return sum(self.outcomes.values())

    def wait_for_answers(self, count: int) -> None:
        """Wait until so many more requests have been answered."""
        wanted = self.answered + count
        wait_until(lambda: self.answered >= wanted, 30, message=lambda: f"{count} answers: {dict(self.outcomes)}")

    def stop(self) -> None:
        """Have the threads end; each must have the answer to its last request in time."""
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self._threads), dict(self.outcomes)

    def _run(self, thread: int) -> None:
        number = 0
        # The pause leaves the machine to the servers; the load is there to be under way, not to be high.
        while not self._stop.wait(0.002):
            number += 1
            payload = b"%d-%d-" % (thread, number) + os.urandom(8)
            started = time.monotonic()
            try:
                status, body, headers = ask(self._port, "POST", "/run/echo", payload)
            except OSError as error:
                outcome, process = repr(error), None
            else:
                process = headers.get("X-Process")
                outcome = (
                    body.decode("utf-8", "replace")[:200] if status != 200 else "right" if body == payload else "wrong"
                )
            with self._lock:
                self.longest = max(self.longest, time.monotonic() - started)
                self.outcomes[outcome] += 1
                if process is not None:
                    self.processes.add(process)


def load_while_a_server_is_away(
    application: Application, server: Gearmand, c_workers: Callable[..., CWorker]
) -> tuple[Load, str]:
    """Have the application asked before, while and after a server of its own, with its worker, is dead.

    Ends the application. Returns what its answers were, and its log.
    """

    def wait_until_used() -> None:
        # Both processes are connected, and so is the worker.
        wait_until(lambda: server.connections() >= 3, 30, message=lambda: f"clients: {server.text('workers')}")

    try:
        worker = c_workers(server)
        load = Load(application)
        wait_until_used()
        load.wait_for_answers(50)
        server.kill()
        worker.close()
        load.wait_for_answers(50)
        server.start()
        c_workers(server)
        wait_until_used()
        load.wait_for_answers(50)
        load.stop()
    finally:
        log = application.close()
    return load, log
