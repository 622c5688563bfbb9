"""A process with 2,000 open descriptors uses a client, a worker and an admin client.

``python -m tests.faults.programs.many_descriptors ADDRESS SERVER_PID``: prints what it saw as JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import threading

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
from tests.support.waiting import wait_until

DESCRIPTORS = 2000
CALLERS = 8
CALLS = 50


def _open_many() -> list[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return [os.open(os.devnull, os.O_RDONLY) for _ in range(DESCRIPTORS)]


def _sockets() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(("socket:", "anon_inode:[eventpoll]")):
                found.append(int(name))
    return found


def _call(client: GearmanClient, wrong: list[object]) -> None:
    def caller(number: int) -> None:
        for call in range(CALLS):
            payload = b"%d-%d" % (number, call)
            for task, expected in (("upside-down", payload[::-1]), ("echo", payload)):
                answer = client.submit(task, payload).result(30)
                if answer != expected:
                    wrong.append((task, payload, answer))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _freeze(client: GearmanClient, pid: int) -> list[str]:
    """The states of a server that is stopped for a while, as the health checks see it."""
    states = []
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: client.servers()[0].state != "UP", 20)
        states.append("noticed")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: client.servers()[0].state == "UP", 20)
    return [*states, "UP"]


def main() -> None:
    address, pid = sys.argv[1], int(sys.argv[2])
    held = _open_many()
    before = set(_sockets())
    wrong: list[object] = []
    client = GearmanClient([address], health_check_interval=0.3, health_check_timeout=1.0, connections_per_server=2)
    worker = GearmanWorker([address])
    worker.register_task("upside-down", lambda job: job.data[::-1])
    with client, GearmanAdminClient([address]) as admin:
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            _call(client, wrong)
            rows = {row["task"]: row["workers"] for row in admin.get_status()}
            sockets = sorted(set(_sockets()) - before)
            states = _freeze(client, pid)
            _call(client, wrong)
        finally:
            worker.stop()
            thread.join(20)
    report = {
        "open": len(held),
        "sockets": len(sockets),
        "lowest": min(sockets),
        "wrong": [repr(item) for item in wrong],
        "workers": rows,
        "states": states,
        "left": sorted(set(_sockets()) - before),
    }
    print(json.dumps(report))


main()
