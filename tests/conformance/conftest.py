"""Servers of every kind, and the workers of the suite on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient

from ..support.processes import REQUIRE_REAL
from ..support.workers import CWorker, PhpWorker, RawJob, RawWorker
from .servers import KINDS, ConformanceServer, missing


@pytest.fixture(params=list(KINDS))
def servers(request: pytest.FixtureRequest) -> Iterator[Callable[..., ConformanceServer]]:
    """A factory of fresh servers, all of one kind: ``servers(attempts=None)``."""
    if what := missing(request.param):
        if REQUIRE_REAL:
            pytest.fail(f"{what} is missing, and GEARMAN_POOL_REQUIRE_REAL forbids skipping", pytrace=False)
        pytest.skip(f"{what} is missing")
    started: list[ConformanceServer] = []

    def start(**options: Any) -> ConformanceServer:
        started.append(KINDS[request.param](**options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def server(servers: Callable[..., ConformanceServer]) -> ConformanceServer:
    """One fresh server of this test's own."""
    return servers()


@pytest.fixture
def client(server: ConformanceServer) -> Iterator[GearmanClient]:
    """A client of ``server``; jobs that a test leaves in flight are given up at once."""
    with GearmanClient([server.address]) as client:
        yield client
        client.close(0)


@pytest.fixture
def admin(server: ConformanceServer) -> Iterator[GearmanAdminClient]:
    """An admin client of ``server``."""
    with GearmanAdminClient([server.address]) as client:
        yield client


@pytest.fixture
def raw_worker(server: ConformanceServer, raw_workers: Callable[..., RawWorker]) -> RawWorker:
    """A worker of ``server`` for the function "raw" whose jobs the test finishes by hand."""
    return raw_workers(server, "raw")


@pytest.fixture
def echo_worker(server: ConformanceServer, raw_workers: Callable[..., RawWorker]) -> RawWorker:
    """A worker of ``server`` in this process: "echo" and "reverse"."""

    def script(job: RawJob) -> None:
        job.complete(job.data if job.function == "echo" else job.data[::-1])

    return raw_workers(server, ["echo", "reverse"], script, reconnect=True)


@pytest.fixture
def c_worker(server: ConformanceServer, c_workers: Callable[..., CWorker]) -> CWorker:
    """A libgearman worker of ``server``: "echo" and "reverse"."""
    return c_workers(server)


@pytest.fixture
def php_worker(server: ConformanceServer, php_workers: Callable[..., PhpWorker]) -> PhpWorker:
    """A PHP worker of ``server``; see `PhpWorker`."""
    return php_workers(server)
