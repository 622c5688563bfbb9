"""What becomes of jobs: servers that take them, jobs that are accepted, and outcomes that are counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

from gearman_pool import GearmanClient, GearmanError
from gearman_pool.future import JobFuture

from .waiting import wait_until

__all__ = ["OutcomeCounter", "account", "wait_accepted", "wait_up"]


def wait_up(client: GearmanClient, *addresses: str, timeout: float = 10.0) -> None:
    """Start the client if need be, and wait until these servers (or all of its own) take jobs."""
    client.ping(0.01)

    def up() -> bool:
        states = {server.address: server.state for server in client.servers()}
        return all(states[address] == "UP" for address in (addresses or states))

    wait_until(up, timeout, message=lambda: f"servers are up: {client.servers()}")


def wait_accepted(*futures: JobFuture, timeout: float = 15.0) -> None:
    """Wait until the servers have accepted all of these jobs."""
    wait_until(
        lambda: all(future.job.handle or future.done() for future in futures), timeout, message="the jobs are accepted"
    )


def account(futures: Iterable[tuple[bytes, JobFuture]], timeout: float = 30.0) -> Counter[str]:
    """Wait for all of these echo jobs and count them: "right", "wrong", or the name of the error's class.

    A future that has no outcome in time counts as "TimeoutError": it hangs.
    """
    counts: Counter[str] = Counter()
    for payload, future in futures:
        try:
            result = future.result(timeout)
        except (GearmanError, TimeoutError) as error:
            counts[type(error).__name__] += 1
        else:
            counts["right" if result == payload else "wrong"] += 1
    return counts


class OutcomeCounter:
    """Counts how often the outcome of each future is told.

    ``_lock`` guards the counts; it is held for a few instructions on callback threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: Counter[int] = Counter()
        self._futures: list[JobFuture] = []

    def watch(self, future: JobFuture) -> JobFuture:
        """Count for this future, and return it."""
        self._futures.append(future)
        future.add_done_callback(self._note)
        return future

    def _note(self, future: JobFuture) -> None:
        with self._lock:
            self._told[id(future)] += 1

    def assert_one_each(self) -> None:
        """Fail unless each future has told of one outcome."""

        def counts() -> list[int]:
            with self._lock:
                return [self._told[id(future)] for future in self._futures]

        wait_until(lambda: 0 not in counts(), message="every future tells of its outcome")
        assert set(counts()) == {1}, "a future resolved twice"
