"""Promise F15: workers that are restarted under load lose no job and repeat none.

``python -m tests.faults.warm_restarts --restarts 200`` does it at length and prints the figures.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gearman_pool import GearmanClient
from tests.support.gearmand import Gearmand
from tests.support.waiting import wait_until

__all__ = ["Outcome", "WorkerProcess", "restart_under_load"]


class WorkerProcess:
    """A worker process; the constructor returns when it takes jobs."""

    def __init__(self, servers: list[str], log: Path, **options: Any) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.faults.programs.worker_process",
            json.dumps(options),
            str(log),
            *servers,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", f"the worker process said {line!r}"

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 30.0) -> int:
        try:
            return self.process.wait(timeout)
        finally:
            if self.process.stdout is not None:
                self.process.stdout.close()

    def close(self) -> None:
        """End it if it lives."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    restarts: int
    submitted: int
    wrong_results: int
    missing: int
    repeated: int
    bad_exits: list[int]
    seconds: float


def restart_under_load(restarts: int, server: Gearmand, directory: Path, options: list[dict[str, Any]]) -> Outcome:
    """Restart one of several workers after the other while jobs are submitted; ``options`` has those of each worker."""
    log = directory / "log"
    started = time.monotonic()
    workers = [WorkerProcess([server.address], log, **each) for each in options]
    done = threading.Event()
    submitted = Counter[bytes]()
    wrong = []

    def load(client: GearmanClient, name: int) -> None:
        number = 0
        while not done.is_set():
            data = b"%d-%d" % (name, number)
            number += 1
            submitted[data] += 1
            if number % 2:
                client.submit_background("note", data).result(20)
            elif client.submit("note", data).result(60) != data:
                wrong.append(data)

    bad_exits = []
    try:
        with GearmanClient([server.address]) as client:
            loaders = [threading.Thread(target=load, args=(client, name)) for name in range(4)]
            for loader in loaders:
                loader.start()
            for number in range(restarts):
                index = number % len(workers)
                workers[index].signal((signal.SIGTERM, signal.SIGINT)[number // len(workers) % 2])
                status = workers[index].wait()
                if status:
                    bad_exits.append(status)
                workers[index] = WorkerProcess([server.address], log, **options[index])
            done.set()
            for loader in loaders:
                loader.join()
            wait_until(lambda: server.jobs("note") == 0, 60)
    finally:
        done.set()
        for worker in workers:
            worker.signal(signal.SIGTERM)
        for worker in workers:
            worker.close() if worker.wait() else None
    ran = Counter(log.read_bytes().split())
    return Outcome(
        restarts,
        len(submitted),
        len(wrong),
        sum(data not in ran for data in submitted),
        sum(count > 1 for count in ran.values()),
        bad_exits,
        time.monotonic() - started,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=200)
    arguments = parser.parse_args()
    with Gearmand() as server, tempfile.TemporaryDirectory() as directory:
        options: list[dict[str, Any]] = [{}, {"concurrency": 4}, {"concurrency": 2, "prefetch": 4}]
        outcome = restart_under_load(arguments.restarts, server, Path(directory), options)
    print(outcome)
    return int(bool(outcome.wrong_results or outcome.missing or outcome.repeated or outcome.bad_exits))


if __name__ == "__main__":
    sys.exit(main())
