"""A `GearmanWorker` that works on a thread for the length of a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gearman_pool import GearmanWorker

__all__ = ["running"]


@contextmanager
def running(worker: GearmanWorker, poll_timeout: float = 60.0, wait_ready: bool = True) -> Iterator[GearmanWorker]:
    """Let ``worker`` work until the block ends; raises what `GearmanWorker.work` raised."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            worker.work(poll_timeout)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="test-worker", daemon=True)
    thread.start()
    try:
        if wait_ready:
            assert worker.ready.wait(10), "the worker has not become ready"
        yield worker
    finally:
        worker.close(10)
        thread.join(15)
    assert not thread.is_alive(), "the worker does not stop"
    if failures:
        raise failures[0]
