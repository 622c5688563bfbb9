"""A worker process of the soak: notes every job before it does it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from gearman_pool import GearmanWorker

from .accounting import Ledger

__all__ = ["main"]


def main() -> None:
    """Arguments: the ledger's directory, the worker's number, how many jobs at a time, the servers."""
    directory, number, concurrency, *servers = sys.argv[1:]
    # Servers that come and go are what it is about.
    logging.getLogger("gearman_pool").setLevel(logging.ERROR)
    journal = Ledger(Path(directory)).runs_of(int(number))
    # A worker that gives up a server which is only stopped has the server run its job once more: none may do so here,
    # or a job that runs twice would tell nothing of the clients.
    worker = GearmanWorker(servers, concurrency=int(concurrency), health_check_timeout=30.0)

    @worker.task("count")
    def count(job: object) -> bytes:
        data: bytes = job.data  # type: ignore[attr-defined]
        journal.ran(int.from_bytes(data[:8], "little"))
        return data

    @worker.task("stream")
    def stream(job: object) -> Iterator[bytes]:
        data: bytes = job.data  # type: ignore[attr-defined]
        for start in range(0, len(data), 1000):
            job.send_status(start, len(data))  # type: ignore[attr-defined]
            yield data[start : start + 1000]

    worker.run()


if __name__ == "__main__":
    main()
