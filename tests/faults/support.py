"""What the tests of faults share: readiness, accounting, figures and programs with a hard deadline."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest

from gearman_pool import GearmanClient, GearmanError
from gearman_pool.future import JobFuture
from gearman_pool.testing import FaultProxy

from ..support.waiting import wait_until

__all__ = [
    "HANGING",
    "Ended",
    "OutcomeCounter",
    "account",
    "assert_p99_is_unharmed",
    "black_hole",
    "deaf_port",
    "figure",
    "latencies",
    "percentile",
    "run_program",
    "wait_accepted",
    "wait_up",
]

ROOT = Path(__file__).resolve().parents[2]


def figure(text: str) -> None:
    """Print a measured figure: ``pytest -s`` shows it."""
    print(f"\n    measured: {text}")


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that ``percent`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


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


def latencies(client: GearmanClient, count: int) -> list[float]:
    """How long echo jobs take one after the other, in seconds."""
    found = []
    for _ in range(count):
        before = time.monotonic()
        assert client.submit("echo", b"x").result(15) == b"x"
        found.append(time.monotonic() - before)
    return found


def assert_p99_is_unharmed(
    client: GearmanClient, what: str, fault: Callable[[], AbstractContextManager[object]], longest: float
) -> None:
    """Fail unless the p99 of other jobs is within twice its normal value while ``fault()`` lasts.

    Normal and faulty times alternate, and one round of five is enough: a busy machine spoils some rounds, but what the
    fault does to the jobs it does in every round. No job of that round may take ``longest`` seconds either, because
    a single long stand-still does not show in a p99.
    """
    latencies(client, 200)
    rounds = []
    for _ in range(5):
        normal = percentile(latencies(client, 400), 99)
        with fault():
            found = latencies(client, 400)
        meanwhile = percentile(found, 99)
        rounds.append(f"{meanwhile * 1e3:.2f} ms for {normal * 1e3:.2f} ms (longest {max(found) * 1e3:.1f} ms)")
        # The few milliseconds are one turn of a neighbour with the interpreter's lock, or with the processor.
        if meanwhile <= 2 * normal + 0.003 and max(found) < longest:
            figure(f"p99 of other jobs with {what}: {meanwhile / normal:.2f} times the normal one; {'; '.join(rounds)}")
            return
    raise AssertionError(f"p99 of other jobs with {what} and normally, in each round: {'; '.join(rounds)}")


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


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    output: str
    errors: str


def run_program(arguments: Sequence[str], deadline: float) -> Ended:
    """Run this Python with these arguments; after ``deadline`` seconds kill it, and all that it forked, and fail."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        # SIGABRT first: it makes faulthandler print where every thread stands.
        process.send_signal(signal.SIGABRT)
        try:
            output, errors = process.communicate(timeout=2.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
        raise AssertionError(f"no end within {deadline:g} s: {arguments}\n{output}\n{errors}") from None
    finally:
        # What it forked stays in its session; nothing of it may outlive the test.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.stdout.close()
        process.stderr.close()
        process.wait()
    return Ended(process.returncode, output, errors)


@contextlib.contextmanager
def deaf_port() -> Iterator[str]:
    """A port whose backlog is full: the kernel drops further packets, and connecting hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                yield f"127.0.0.1:{listener.getsockname()[1]}"
                return
    pytest.skip("this system's kernel answers though the backlog is full")


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """A port that accepts, reads, and never says a word."""
    with FaultProxy("127.0.0.1:1") as proxy:
        proxy.swallow()
        yield proxy.address


#: What makes a port to which connecting, or the greeting, hangs.
HANGING: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "a full backlog": deaf_port,
    "a black hole": black_hole,
}
