"""OpenStack's gear, whose client threads may share. A submit waits for JOB_CREATED; results come by an override."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any

import gear

from ..works import HOST, PAYLOAD, TASK, Load, Numbers, Work, rate, shared

__all__ = ["WORKS"]

_WAIT = 60.0


class _Client(gear.Client):  # type: ignore[misc]
    def __init__(self, port: int) -> None:
        super().__init__("benchmark")
        self.completed = 0
        self.addServer(HOST, port)
        self.waitForServer()

    def handleWorkComplete(self, packet: Any) -> Any:
        job = super().handleWorkComplete(packet)
        self.completed += 1
        job.done.set()
        return job


class _Job(gear.Job):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(TASK, PAYLOAD)
        self.done = threading.Event()


def _caller(client: _Client) -> Callable[[], bytes]:
    def call() -> bytes:
        job = _Job()
        client.submitJob(job)
        if not job.done.wait(_WAIT):
            raise TimeoutError("gear: a job never completed")
        # It mixes up results between threads; all payloads are equal here, so that this costs it nothing.
        return bytes(job.data[0])

    return call


def _bulk(load: Load) -> Numbers:
    client = _Client(load.port)
    for _ in range(100):
        client.submitJob(_Job())
    before = client.completed
    start = end = perf_counter()
    job = None
    while end - start < load.seconds:
        for _ in range(100):
            job = _Job()
            client.submitJob(job)
        end = perf_counter()
    # What is complete by now counts; the rest is at most a few jobs.
    numbers = rate(client.completed - before, end - start)
    if job is not None:
        job.done.wait(_WAIT)
    client.shutdown()
    return numbers


def _shared(load: Load) -> Numbers:
    client = _Client(load.port)
    call = _caller(client)
    try:
        return shared(lambda _: call, load)
    finally:
        client.shutdown()


WORKS: dict[str, Work] = {"bulk": _bulk, "shared": _shared}
