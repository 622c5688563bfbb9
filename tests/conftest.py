"""Fixtures for all tests: real servers, workers that are not ours, and a check that nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from gearman_pool.testing.gearmand import find_gearmand

from .support.gearmand import Gearmand
from .support.processes import REQUIRE_REAL
from .support.stunnel import Stunnel, stunnel_program
from .support.workers import (
    CWorker,
    GearmanToolWorker,
    PhpWorker,
    RawJob,
    RawWorker,
    c_compiler,
    php_program,
    tool_program,
)

# A machine that is busy with other tests makes single examples slow; that is no fault of the code.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# A shell has what it starts in the background ignore Ctrl-C, and the programs that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Threads that the library starts carry this prefix, daemons or not.
LIBRARY_THREADS = "gearman_pool"
#: Seconds that threads and descriptors get to go away after a test.
SETTLE_TIME = 5.0

_DESCRIPTORS = next((path for path in ("/proc/self/fd", "/dev/fd") if os.path.isdir(path)), None)


def _require(found: object, what: str, package: str) -> None:
    """Skip the test where a program is missing, or fail it if GEARMAN_POOL_REQUIRE_REAL is set."""
    if found:
        return
    reason = f"{what} is missing (Debian's {package})"
    if REQUIRE_REAL:
        pytest.fail(f"{reason}, and GEARMAN_POOL_REQUIRE_REAL forbids skipping", pytrace=False)
    pytest.skip(reason)


def _forbid_skip(report: Any) -> None:
    """Let a skipped test fail where GEARMAN_POOL_REQUIRE_REAL is set: something that CI can install is missing.

    What needs the extra [fuzz] is run by hand: not every interpreter can have it.
    """
    if REQUIRE_REAL and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if "[fuzz]" in reason:
            return
        report.outcome = "failed"
        report.longrepr = f"{reason}: GEARMAN_POOL_REQUIRE_REAL forbids skipping"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _forbid_skip(report)
    return report


def _library_threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not t.daemon or t.name.startswith(LIBRARY_THREADS)}


def _descriptors() -> dict[int, str]:
    """Open descriptors and what they refer to, without those that Python itself opens once and keeps."""
    if _DESCRIPTORS is None:
        return {}
    found = {}
    for name in os.listdir(_DESCRIPTORS):
        try:
            target = os.readlink(f"{_DESCRIPTORS}/{name}")
        except OSError:
            continue  # the one that listed the directory
        found[int(name)] = target
    found.pop(getattr(resource_tracker._resource_tracker, "_fd", None) or -1, None)
    return {number: target for number, target in found.items() if target not in ("/dev/urandom", "/dev/null")}


def _children() -> set[int]:
    """The child processes of all threads, those included that ended and were not waited for."""
    children: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            children.update(map(int, path.read_text().split()))
        except OSError:
            continue  # the thread has ended
    # multiprocessing starts these once and keeps them.
    kept = (
        getattr(resource_tracker._resource_tracker, "_pid", None),
        getattr(forkserver._forkserver, "_forkserver_pid", None),
    )
    return children.difference(kept)


def _left_behind(threads: set[threading.Thread], descriptors: dict[int, str], children: set[int]) -> list[str]:
    left = [f"thread {t.name}{' (daemon)' if t.daemon else ''}" for t in _library_threads() - threads]
    new = set(_descriptors().items()) - set(descriptors.items())
    left += [f"descriptor {number} ({target})" for number, target in sorted(new)]
    return left + [f"process {number}" for number in sorted(_children() - children)]


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    """Fail a test that leaves threads, descriptors or child processes behind, and say which.

    Counted are threads that are not daemons, those of the library in any case, every descriptor and every child. What
    belongs to fixtures of a wider scope is older than the test and does not count.
    """
    before = _library_threads(), _descriptors(), _children()
    yield
    deadline = time.monotonic() + SETTLE_TIME
    pause = threading.Event()
    while left := _left_behind(*before):
        if time.monotonic() >= deadline:
            pytest.fail("the test left behind: " + "; ".join(left), pytrace=False)
        # What only a reference cycle keeps alive is not a leak, though its ResourceWarning is an error of its own.
        gc.collect()
        pause.wait(0.02)


@pytest.fixture
def needs_gearmand() -> None:
    """For a test whose programs start servers themselves."""
    _require(find_gearmand(), "gearmand", "gearman-job-server")


@pytest.fixture
def needs_gearman_tool() -> None:
    """For a test whose programs start ``gearman -w`` themselves."""
    _require(tool_program(), "the gearman tool", "gearman-tools")


@pytest.fixture
def gearmands(needs_gearmand: None) -> Iterator[Callable[..., Gearmand]]:
    """A factory of fresh servers: ``gearmands(arguments=("-j", "1"), port=0)``."""
    started: list[Gearmand] = []

    def start(**options: Any) -> Gearmand:
        server = Gearmand(**options)
        started.append(server)
        return server

    yield start
    for server in started:
        # Shown by pytest only with the report of a failed test.
        if log := server.log():
            print(f"log of gearmand {server.address}:\n{log}")
        server.close()


@pytest.fixture
def gearmand(gearmands: Callable[..., Gearmand]) -> Gearmand:
    """One fresh server of this test's own."""
    return gearmands()


@pytest.fixture
def raw_workers() -> Iterator[Callable[..., RawWorker]]:
    """A factory of `RawWorker`: ``raw_workers(server, "name", script=None, max_jobs=..., reconnect=False)``."""
    started: list[RawWorker] = []

    def start(server: Gearmand, *arguments: Any, **options: Any) -> RawWorker:
        worker = RawWorker(server, *arguments, **options)
        started.append(worker)
        return worker

    yield start
    errors = []
    for worker in started:
        try:
            worker.close()
        except AssertionError as error:
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture
def raw_worker(gearmand: Gearmand, raw_workers: Callable[..., RawWorker]) -> RawWorker:
    """A worker of ``gearmand`` for the function "raw" whose jobs the test finishes by hand (``next_job``)."""
    return raw_workers(gearmand, "raw")


@pytest.fixture
def echo_worker(gearmand: Gearmand, raw_workers: Callable[..., RawWorker]) -> RawWorker:
    """A worker of ``gearmand`` in this process for the functions "echo" and "reverse"; comes back with its server."""

    def script(job: RawJob) -> None:
        job.complete(job.data if job.function == "echo" else job.data[::-1])

    return raw_workers(gearmand, ["echo", "reverse"], script, reconnect=True)


@pytest.fixture
def c_worker(gearmand: Gearmand) -> Iterator[CWorker]:
    """A fast libgearman worker of ``gearmand`` in a process of its own: "echo" and "reverse"."""
    _require(c_compiler(), "a C compiler with libgearman", "gcc and libgearman-dev")
    with CWorker(gearmand) as worker:
        yield worker


@pytest.fixture
def php_worker(gearmand: Gearmand) -> Iterator[PhpWorker]:
    """A PHP worker of ``gearmand``: reverse, upper, sleep, slow, fail, exception, stream (see `PhpWorker`)."""
    _require(php_program(), "PHP with the gearman extension", "php-cli and php-gearman")
    with PhpWorker(gearmand) as worker:
        yield worker


@pytest.fixture
def c_workers() -> Iterator[Callable[..., CWorker]]:
    """A factory: ``c_workers(server_or_servers, prefix="")``."""
    _require(c_compiler(), "a C compiler with libgearman", "gcc and libgearman-dev")
    yield from _factory(CWorker)


@pytest.fixture
def php_workers() -> Iterator[Callable[..., PhpWorker]]:
    """A factory: ``php_workers(server_or_servers, prefix="")``."""
    _require(php_program(), "PHP with the gearman extension", "php-cli and php-gearman")
    yield from _factory(PhpWorker)


@pytest.fixture
def tool_workers(needs_gearman_tool: None) -> Iterator[Callable[..., GearmanToolWorker]]:
    """A factory: ``tool_workers(server, "function", "command", "argument", ...)``, libgearman's ``gearman -w``."""
    yield from _factory(GearmanToolWorker)


@pytest.fixture
def stunnels() -> Iterator[Callable[..., Stunnel]]:
    """A factory of TLS ports in front of servers: ``stunnels(address, certificate, client_ca=None, version=None)``."""
    _require(stunnel_program(), "stunnel", "stunnel4")
    yield from _factory(Stunnel)


def _factory(kind: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    started = []

    def start(*arguments: Any, **options: Any) -> Any:
        worker = kind(*arguments, **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()
