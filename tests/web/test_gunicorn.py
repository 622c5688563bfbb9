"""A web application under gunicorn, with one client at module level, while a server dies and returns."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from ..support.waiting import wait_until

pytest.importorskip("gunicorn")

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
THREADS = 16
REQUESTS = 100


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=25)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


class _Application:
    """An example under gunicorn: preloaded, two workers of eight threads."""

    def __init__(
        self,
        module: str,
        servers: list[str],
        max_retries: int,
        log: Path,
        worker_class: str = "gthread",
        folder: Path = EXAMPLES,
    ) -> None:
        self.port = _free_port()
        self.log = log
        command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--worker-class", worker_class]
        command += ["--threads", "8"] if worker_class == "gthread" else []
        command += ["--bind", f"127.0.0.1:{self.port}", "--chdir", str(folder), f"{module}:app"]
        package = str(EXAMPLES.parents[1])
        environment = {**os.environ, "GEARMAN_SERVERS": ",".join(servers), "MAX_RETRIES": str(max_retries)}
        environment["PYTHONPATH"] = os.pathsep.join([package, os.environ.get("PYTHONPATH", "")])
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        wait_until(self._answers, timeout=30, message="the application")

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def close(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        finally:
            self.process.kill()
            self.process.wait()
        return self.log.read_text()


@pytest.mark.parametrize("max_retries", [0, 2])
@pytest.mark.parametrize("module", ["flask_app", "django_app"])
def test_no_request_hangs_and_every_answer_is_right_while_a_server_is_killed_and_comes_back(
    gearmands, c_workers, tmp_path, module, max_retries
):
    pytest.importorskip(module.partition("_")[0])
    first, second = gearmands(), gearmands()
    c_workers(second)
    workers_of_first = c_workers(first)
    application = _Application(module, [first.address, second.address], max_retries, tmp_path / "log")
    outcomes: Counter[str] = Counter()
    wrong: list[tuple[bytes, bytes]] = []
    longest = [0.0]
    lock = threading.Lock()
    halfway = threading.Event()

    def load(thread: int) -> None:
        for number in range(REQUESTS):
            payload = b"%d-%d-" % (thread, number) + os.urandom(8)
            started = time.monotonic()
            status, body = _ask(application.port, "POST", "/run/echo", payload)
            duration = time.monotonic() - started
            with lock:
                longest[0] = max(longest[0], duration)
                outcomes["ok" if status == 200 else body.decode()[:200]] += 1
                if status == 200 and body != payload:
                    wrong.append((payload, body))
                if sum(outcomes.values()) >= THREADS * REQUESTS // 3:
                    halfway.set()

    threads = [threading.Thread(target=load, args=(number,)) for number in range(THREADS)]
    try:
        for thread in threads:
            thread.start()
        assert halfway.wait(60)
        first.kill()
        workers_of_first.close()
        first.start()
        c_workers(first)
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    finally:
        log = application.close()
    print(module, max_retries, dict(outcomes), f"longest {longest[0]:.2f} s")
    assert not wrong
    assert sum(outcomes.values()) == THREADS * REQUESTS
    allowed = {"ok"} if max_retries else {"ok", "ConnectionLost"}
    assert set(outcomes) <= allowed, log[-3000:]
    assert longest[0] < 10
    assert application.process.returncode == 0
    assert "Traceback" not in log


@pytest.mark.parametrize("module", ["flask_app", "django_app"])
def test_application_uses_jobs_of_all_kinds(gearmand, php_worker, tmp_path, module):
    pytest.importorskip(module.partition("_")[0])
    application = _Application(module, [gearmand.address], 0, tmp_path / "log")
    try:
        status, reference = _ask(application.port, "POST", "/later/nobody", b"x")
        assert status == 200
        assert b'"known":true' in _ask(application.port, "GET", f"/status/{reference.decode()}")[1].replace(b" ", b"")
        assert _ask(application.port, "POST", "/stream/stream", b"3") == (200, b"part 1part 2part 3")
        assert _ask(application.port, "POST", "/run/fail") == (503, b"JobFailed")
    finally:
        application.close()


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_client_that_the_master_used_before_the_fork_works_in_its_workers(gearmand, c_worker, tmp_path, worker_class):
    folder = Path(__file__).parent / "programs"
    application = _Application("used_before_fork", [gearmand.address], 0, tmp_path / "log", worker_class, folder)
    outcomes: list[tuple[int, bool]] = []

    def load(thread: int) -> None:
        for number in range(50):
            query = f"{thread}-{number}"
            status, body = _ask(application.port, "GET", f"/?{query}")
            outcomes.append((status, body == query.encode()))

    threads = [threading.Thread(target=load, args=(number,)) for number in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        # The master's connection is as it was, and its jobs still stand.
        assert gearmand.jobs("nobody") == 20
    finally:
        log = application.close()
    assert Counter(outcomes) == {(200, True): 400}, log[-3000:]
    assert "Traceback" not in log
