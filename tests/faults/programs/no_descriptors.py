"""A process that has no descriptor left uses a client, a worker and an admin client, and later gets descriptors.

``python -m tests.faults.programs.no_descriptors ADDRESS SERVER_PID``: prints what it saw as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import threading
import time

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanError, GearmanWorker
from tests.support.waiting import wait_until

SUBMIT_TIMEOUT = 0.3
REASON = "Too many open files"


class Descriptors:
    """All descriptors that the process may have and does not need."""

    def __init__(self) -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
        self.held: list[int] = []

    def take(self) -> None:
        """Leave none to anybody."""
        with contextlib.suppress(OSError):
            while True:
                self.held.append(os.dup(0))

    def release(self, count: int | None = None) -> None:
        """Give back this many, or all."""
        for descriptor in self.held[:count]:
            os.close(descriptor)
        del self.held[:count]


def _error(call: object) -> tuple[str, str, float]:
    """The error of a call, and how long it took."""
    started = time.monotonic()
    try:
        call()  # type: ignore[operator]
    except GearmanError as error:
        return type(error).__name__, str(error), time.monotonic() - started
    return "", "", time.monotonic() - started


def _first_use(address: str, descriptors: Descriptors, report: dict[str, object]) -> None:
    """One that is closed without ever having had a descriptor."""
    descriptors.take()
    client = GearmanClient([address], submit_timeout=SUBMIT_TIMEOUT)
    future = client.submit("echo", b"x", timeout=0.2)
    report["time limit"] = type(future.exception(20)).__name__
    started = time.monotonic()
    client.close()
    report["closed after"] = time.monotonic() - started
    descriptors.release()


def _reconnect(address: str, pid: int, client: GearmanClient, descriptors: Descriptors) -> str | None:
    """What the client says of its server when the connection is lost and there is no descriptor for another."""

    def refused() -> bool:
        descriptors.take()
        return REASON in (client.servers()[0].last_error or "")

    descriptors.take()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(refused, 20)
    finally:
        os.kill(pid, signal.SIGCONT)
    return client.servers()[0].last_error


def main() -> None:
    address, pid = sys.argv[1], int(sys.argv[2])
    report: dict[str, object] = {}
    threads_ended: list[str] = []
    threading.excepthook = lambda arguments: threads_ended.append(repr(arguments.exc_value))
    descriptors = Descriptors()
    _first_use(address, descriptors, report)
    options = {"reconnect_backoff": (0.2, 0.4), "health_check_interval": 0.3, "health_check_timeout": 0.6}
    client = GearmanClient([address], submit_timeout=SUBMIT_TIMEOUT, **options)  # type: ignore[arg-type]
    admin = GearmanAdminClient([address], poll_timeout=1.0)
    # One slot: its thread runs the loop itself. With more the I/O thread does.
    workers = [GearmanWorker([address], concurrency=count, **options) for count in (1, 2)]  # type: ignore[arg-type]
    descriptors.take()
    started = []
    for number, worker in enumerate(workers):
        worker.register_task(f"task-{number}", lambda job: job.data[::-1])
        started.append(threading.Thread(target=worker.run))
        started[-1].start()
    report["job"] = _error(lambda: client.submit("echo", b"x").result(20))
    report["command"] = _error(admin.get_pid)
    # One is enough for a connection, but not for a selector to watch it; with more it depends on who takes them.
    few = []
    for count in (1, 2, 4):
        descriptors.release(count)
        few.append(_error(lambda: client.submit("echo", b"x").result(20)))
        descriptors.take()
    report["jobs with few descriptors"] = few
    descriptors.release()
    wait_until(lambda: client.servers()[0].state == "UP", 20)
    report["answers"] = [client.submit(task, b"abc").result(20).decode() for task in ("task-0", "task-1")]
    report["pid"] = admin.get_pid()
    report["lost"] = _reconnect(address, pid, client, descriptors)
    descriptors.release()
    wait_until(lambda: client.servers()[0].state == "UP", 20)
    report["again"] = [client.submit(task, b"abc").result(20).decode() for task in ("task-0", "task-1")]
    for worker in workers:
        worker.stop()
    for thread in started:
        thread.join(20)
    client.close()
    admin.close()
    report["threads left"] = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    report["threads ended"] = threads_ended
    report["loop errors"] = client.stats().loop_errors
    print(json.dumps(report))


main()
