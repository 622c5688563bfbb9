"""A worker that idles for long uses no processor time, and takes the next job at once.

``python -m tests.faults.idle --minutes 3`` measures it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gearman_pool import GearmanClient
from tests.faults.warm_restarts import WorkerProcess
from tests.support.gearmand import Gearmand

__all__ = ["Idled", "idle"]


@dataclass(frozen=True)
class Idled:
    """Seconds of idling, seconds of processor time that the worker used meanwhile, seconds that the job then took."""

    idled: float
    used: float
    job: float


def _processor_time(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(server: Gearmand, directory: Path, seconds: float, **options: Any) -> Idled:
    """Let a worker process idle, and give it a job."""
    worker = WorkerProcess([server.address], directory / "log", **options)
    try:
        with GearmanClient([server.address]) as client:
            client.submit("note", b"first").result(10)
            started, used = time.monotonic(), _processor_time(worker.process.pid)
            threading.Event().wait(seconds)
            used = _processor_time(worker.process.pid) - used
            asked = time.monotonic()
            client.submit("note", b"second").result(10)
            return Idled(asked - started, used, time.monotonic() - asked)
    finally:
        worker.signal(signal.SIGTERM)
        worker.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    arguments = parser.parse_args()
    with Gearmand() as server, tempfile.TemporaryDirectory() as directory:
        print(idle(server, Path(directory), arguments.minutes * 60))
    return 0


if __name__ == "__main__":
    sys.exit(main())
