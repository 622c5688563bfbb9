"""What is measured: figures that are shown, and latencies that are compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from gearman_pool import GearmanClient

__all__ = ["assert_p99_is_unharmed", "figure", "latencies", "percentile"]


def figure(text: str) -> None:
    """Print a measured figure: ``pytest -s`` shows it."""
    print(f"\n    measured: {text}")


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that ``percent`` of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


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
