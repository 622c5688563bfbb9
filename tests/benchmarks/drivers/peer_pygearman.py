"""pygearman: python-gearman's successor on Python 3. Not thread-safe, so each thread has a client of its own."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from gearman import GearmanClient

from ..works import PAYLOAD, TASK, Load, Numbers, Work, alone, check, rate, shared, startup

__all__ = ["WORKS"]

#: Without an explicit time its submit does not wait for results at all.
_WAIT = 60.0


def _caller(load: Load) -> Callable[[], object]:
    client = GearmanClient([load.address])
    return lambda: client.submit_job(TASK, PAYLOAD, poll_timeout=_WAIT).result


def _bulk(load: Load) -> Numbers:
    client = GearmanClient([load.address])
    jobs = [{"task": TASK, "data": PAYLOAD} for _ in range(load.window)]

    def batch() -> None:
        for request in client.submit_multiple_jobs(jobs, poll_timeout=_WAIT):
            check(request.result)

    batch()
    done = 0
    start = end = perf_counter()
    while end - start < load.seconds:
        batch()
        done += load.window
        end = perf_counter()
    return rate(done, end - start)


def _alone(load: Load) -> Numbers:
    return alone(_caller(load), load)


def _shared(load: Load) -> Numbers:
    return shared(lambda _: _caller(load), load)


_FIRST_JOB = f"""
from gearman import GearmanClient
---
assert GearmanClient([ADDRESS]).submit_job({TASK!r}, {PAYLOAD!r}, poll_timeout=60.0).result == {PAYLOAD!r}
"""


def _startup(load: Load) -> Numbers:
    return startup(_FIRST_JOB, load)


WORKS: dict[str, Work] = {"bulk": _bulk, "alone": _alone, "shared": _shared, "startup": _startup}
