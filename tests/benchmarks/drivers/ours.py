"""gearman_pool's client and worker, by their public names alone."""

from __future__ import annotations

import gc
import itertools
import os
import ssl
import sys
import threading
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from gearman_pool import GearmanClient, GearmanWorker, JSONEncoder, Listener

from ...support.waiting import wait_until
from ..works import HOST, PAYLOAD, TASK, Load, Numbers, Work, alone, check, rate, shared, startup

__all__ = ["WORKS"]

_WAIT = 60.0


def _client(load: Load, **options: Any) -> GearmanClient:
    return GearmanClient([f"{HOST}:{port}" for port in load.ports], **options)


def _caller(client: GearmanClient) -> Callable[[], object]:
    return lambda: client.submit(TASK, PAYLOAD).result(_WAIT)


class _Window:
    """Jobs submitted by one thread, which takes the oldest result when ``size`` of them are in flight."""

    def __init__(self, submit: Callable[[], Any], size: int) -> None:
        self._submit = submit
        self._size = size
        self._futures: deque[Any] = deque()

    def fill(self) -> None:
        while len(self._futures) < self._size:
            self._futures.append(self._submit())

    def step(self, count: int, expected: bytes | None = PAYLOAD) -> None:
        """Submit ``count`` jobs and take as many results."""
        futures, submit = self._futures, self._submit
        for _ in range(count):
            result = futures.popleft().result(_WAIT)
            if expected is not None:
                check(result, expected)
            futures.append(submit())

    def drain(self) -> None:
        for future in self._futures:
            future.result(_WAIT)
        self._futures.clear()


def _bulk(load: Load) -> Numbers:
    with _client(load) as client:
        window = _Window(lambda: client.submit(TASK, PAYLOAD), load.window)
        window.fill()
        window.step(load.window)
        done = 0
        start = end = perf_counter()
        while end - start < load.seconds:
            window.step(1000)
            done += 1000
            end = perf_counter()
        window.drain()
        return rate(done, end - start)


def _alone(load: Load) -> Numbers:
    with _client(load) as client:
        return alone(_caller(client), load)


def _shared(load: Load) -> Numbers:
    with _client(load) as client:
        call = _caller(client)
        return shared(lambda _: call, load)


def _background(load: Load) -> Numbers:
    with _client(load) as client:
        client.submit_background(TASK, PAYLOAD).result(_WAIT)
        window = _Window(lambda: client.submit_background(TASK, PAYLOAD), min(load.window, load.count))
        start = perf_counter()
        window.fill()
        window.step(max(0, load.count - load.window), None)
        window.drain()
        return rate(load.count, perf_counter() - start)


def _wait_for_accepted(client: GearmanClient, count: int) -> None:
    wait_until(lambda: client.stats().jobs_accepted >= count, _WAIT, message=f"the server accepts {count} jobs")


def _memory(load: Load) -> Numbers:
    """Bytes for each job in flight, on a server that accepts jobs and never completes them."""
    client = _client(load, max_in_flight=load.count + 1000)
    warm = [client.submit(TASK, PAYLOAD) for _ in range(100)]
    _wait_for_accepted(client, len(warm))
    futures: list[Any] = [None] * load.count
    gc.collect()
    objects = sys.getallocatedblocks()
    if load.variant != "objects":
        tracemalloc.start()
    for index in range(load.count):
        futures[index] = client.submit(TASK, PAYLOAD)
    _wait_for_accepted(client, len(warm) + load.count)
    gc.collect()
    if load.variant == "objects":
        objects = sys.getallocatedblocks() - objects
        client.close(timeout=0)
        return {"objects": objects / load.count, "jobs": load.count}
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    client.close(timeout=0)
    return {"kilobytes": size / load.count / 1024, "peak": peak / load.count / 1024, "jobs": load.count}


def _wakeups() -> int:
    """How often the other threads of this process have gone to sleep so far, as Linux counts it."""
    total = 0
    for status in Path("/proc/self/task").glob("*/status"):
        if int(status.parent.name) != threading.get_native_id():
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
    return total


def _idle(load: Load) -> Numbers:
    """Wake-ups of an idle client, and how many there are with health checks so far apart that none is due."""
    never = threading.Event()
    wakeups = {}
    for name, interval in (("checked", load.seconds / 5), ("unchecked", 3600.0)):
        with _client(load, health_check_interval=interval) as client:
            client.ping()
            client.submit(TASK, PAYLOAD).result(_WAIT)
            never.wait(3 * load.seconds)  # for the deadlines of what was asked to pass
            before = _wakeups()
            never.wait(load.seconds)
            wakeups[name] = _wakeups() - before
    return {"wakeups": wakeups["unchecked"], "wakeups_with_checks": wakeups["checked"], "checks": 5 * len(load.ports)}


def _payload(load: Load) -> Numbers:
    payload = bytes(load.size)
    with _client(load) as client:

        def call() -> None:
            if len(client.submit(TASK, payload).result(_WAIT)) != load.size:
                raise AssertionError("the result is not as long as the payload")

        call()
        jobs = 0
        start = end = perf_counter()
        while end - start < load.seconds:
            call()
            jobs += 1
            end = perf_counter()
    return {"megabytes": jobs * load.size / 1e6 / (end - start), "jobs": jobs}


def _copies(load: Load) -> Numbers:
    """How many payloads' worth of memory a round trip takes at its peak, the caller's own and the result included."""
    with _client(load) as client:
        client.submit(TASK, PAYLOAD).result(_WAIT)
        tracemalloc.start()
        payload = os.urandom(load.size)
        result = client.submit(TASK, payload).result(_WAIT)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        check(result, payload)
    return {"copies": peak / load.size}


def _growth(load: Load) -> Numbers:
    """Processor time of this process for each job, with ``count`` jobs in flight all the time.

    The server must complete a job when the ``count``-th job after it has come.
    """
    # Some on top, so that jobs go out in batches however few are held.
    size = load.count + 1000
    client = _client(load, max_in_flight=size + 1000)
    window = _Window(lambda: client.submit(TASK, PAYLOAD), size)
    window.fill()
    window.step(5000)
    jobs = 0
    end = perf_counter() + load.seconds
    start = process_time()
    # Once at the least: on a busy machine the time can be over before the first look.
    while not jobs or perf_counter() < end:
        window.step(1000)
        jobs += 1000
    cost = (process_time() - start) / jobs
    client.close(timeout=0)
    return {"cost": cost * 1e6, "jobs": jobs}


class _Deaf(Listener):
    """Is told of every job, and does nothing."""

    def on_job_finished(self, event: Any) -> None:
        pass


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _cost(load: Load) -> Numbers:
    """Processor time of this process for each job, done in the way that the variant names."""
    options: dict[str, Callable[[], dict[str, Any]]] = {
        "connections": lambda: {"connections_per_server": 4},
        "listener": lambda: {"listeners": [_Deaf()]},
        "json": lambda: {"data_encoder": JSONEncoder},
        "tls": lambda: {"ssl_context": _unverified()},
    }
    numbers = itertools.count()
    with _client(load, **options.get(load.variant, dict)()) as client:

        def submit() -> Any:
            if load.variant == "timeout":
                return client.submit(TASK, PAYLOAD, timeout=_WAIT)
            if load.variant == "unique":
                return client.submit(TASK, PAYLOAD, unique=f"my {next(numbers)}")
            if load.variant == "json":
                return client.submit(TASK, "hello")
            future = client.submit(TASK, PAYLOAD)
            if load.variant == "callback":
                future.add_done_callback(_nothing)
            return future

        expected = None if load.variant == "json" else PAYLOAD
        window = _Window(submit, load.window)
        window.fill()
        window.step(load.window, expected)
        jobs = 0
        end = perf_counter() + load.seconds
        start = process_time()
        while not jobs or perf_counter() < end:
            window.step(1000, expected)
            jobs += 1000
        cost = (process_time() - start) / jobs
        window.drain()
    return {"cost": cost * 1e6, "jobs": jobs}


_FIRST_JOB = f"""
from gearman_pool import GearmanClient
---
client = GearmanClient([ADDRESS])
assert client.submit({TASK!r}, {PAYLOAD!r}).result(60.0) == {PAYLOAD!r}
"""


def _startup(load: Load) -> Numbers:
    return startup(_FIRST_JOB, load)


def _nothing(_: object) -> None:
    pass


def _drain(load: Load) -> Numbers:
    """Do the jobs that are queued; the rate from the first one's start to the last one's."""
    worker = GearmanWorker([load.address], prefetch=load.prefetch)
    done = 0
    start = end = 0.0

    @worker.task(TASK)
    def echo(job: Any) -> bytes:
        nonlocal done, start, end
        end = perf_counter()
        done += 1
        if done == 1:
            start = end
        elif done == load.count:
            worker.stop()
        data: bytes = job.data
        return data

    worker.work()
    return rate(done - 1, end - start)


WORKS: dict[str, Work] = {
    "alone": _alone,
    "background": _background,
    "bulk": _bulk,
    "copies": _copies,
    "cost": _cost,
    "drain": _drain,
    "growth": _growth,
    "idle": _idle,
    "memory": _memory,
    "payload": _payload,
    "shared": _shared,
    "startup": _startup,
}
