"""The pytest plugin: servers, clients and workers as fixtures. It is found by itself once the package is installed.

Nothing of the package is imported before a fixture is used, no fixture is used unless it is asked for, and
``-p no:gearman_pool`` switches it off. See "Testing" in the documentation.

Threads: pytest's own alone calls the fixtures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from gearman_pool import GearmanClient, GearmanJob, GearmanWorker
    from gearman_pool.testing import EagerClient, EmbeddedServer, FaultProxy
    from gearman_pool.testing.gearmand import Gearmand

#: How long a worker may take to be ready, and to stop, in seconds.
_WORKER_TIMEOUT = 10.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options."""
    group = parser.getgroup("gearman_pool")
    group.addoption("--gearmand", metavar="PATH", help="the gearmand that the fixture gearmand starts")
    group.addoption(
        "--gearman-require-real", action="store_true", help="fail, and do not skip, tests whose gearmand is missing"
    )
    parser.addini("gearmand_exec", "the gearmand that the fixture gearmand starts", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin's marker."""
    config.addinivalue_line("markers", "gearmand_real: the test needs a real gearmand (select with -m gearmand_real)")


@pytest.fixture
def gearman_server() -> Iterator[EmbeddedServer]:
    """A fresh `gearman_pool.testing.EmbeddedServer`, for this test alone."""
    from gearman_pool.testing import EmbeddedServer

    with EmbeddedServer() as server:
        yield server


@pytest.fixture(scope="session")
def gearman_session_server() -> Iterator[EmbeddedServer]:
    """One `gearman_pool.testing.EmbeddedServer` for all tests of the session: jobs of one test meet those of others."""
    from gearman_pool.testing import EmbeddedServer

    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def gearman_url(gearman_server: EmbeddedServer) -> str:
    """The DSN of ``gearman_server``, such as ``"gearman://127.0.0.1:40123/"``."""
    return gearman_server.url


@pytest.fixture
def gearman_client(gearman_url: str) -> Iterator[GearmanClient]:
    """A `GearmanClient` of ``gearman_server``; what is in flight at the test's end is given up."""
    from gearman_pool import GearmanClient

    client = GearmanClient(gearman_url)
    yield client
    client.close(0)


@pytest.fixture
def gearman_worker(gearman_url: str) -> Iterator[Callable[..., GearmanWorker]]:
    """A factory of workers that work on threads until the test's end.

    ``gearman_worker({"task": function}, **options)``, or ``gearman_worker(worker)`` for one of your own, returns the
    `GearmanWorker` when it is ready. With ``{}`` tasks can be registered afterwards. At the end it is stopped, and what
    its `work` raised is raised; and so is what a task raised, unless a client was told: nobody else hears of a
    background job's exception. ``raise_exceptions=False`` leaves that to the test.
    """
    from gearman_pool import GearmanWorker

    __tracebackhide__ = True  # of what a task raised, the task's lines are of interest
    started: list[_Running] = []

    def start(
        tasks: Mapping[str, Callable[..., Any]] | GearmanWorker, raise_exceptions: bool = True, **options: Any
    ) -> GearmanWorker:
        if isinstance(tasks, GearmanWorker):
            worker = tasks
        else:
            worker = GearmanWorker(options.pop("host_list", gearman_url), **options)
            for name, function in tasks.items():
                worker.register_task(name, function)
        started.append(_Running(worker, raise_exceptions))
        started[-1].start()
        return worker

    yield start
    for running in started:
        running.stop()
    for running in started:
        running.check()


class _Running:
    """A worker on a thread."""

    def __init__(self, worker: GearmanWorker, raise_exceptions: bool) -> None:
        self.worker = worker
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._work, name="gearman_worker", daemon=True)
        self._before = vars(worker).get("on_job_exception")
        self._on_job_exception = worker.on_job_exception
        if raise_exceptions:
            # On the object: it may be the user's own, of any class.
            setattr(worker, "on_job_exception", self._note)  # noqa: B010 - mypy lets no method be replaced otherwise

    def start(self) -> None:
        self.thread.start()
        if not self.worker.ready.wait(_WORKER_TIMEOUT):
            self.stop()
            self.check()
            pytest.fail(f"{self.worker!r} has not become ready within {_WORKER_TIMEOUT:g} s")

    def _note(self, job: GearmanJob, exc_info: Any) -> bool:
        from gearman_pool.testing.server import find_job

        served = find_job(job.handle or "", str(job.unique))
        if self.failure is None and (served is None or not served.waiting_clients):
            self.failure = exc_info[1]
        return self._on_job_exception(job, exc_info)

    def _work(self) -> None:
        try:
            self.worker.work()
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        self.worker.close(_WORKER_TIMEOUT)
        self.thread.join(_WORKER_TIMEOUT)
        vars(self.worker).pop("on_job_exception", None)
        if self._before is not None:
            vars(self.worker)["on_job_exception"] = self._before

    def check(self) -> None:
        __tracebackhide__ = True
        if isinstance(self.failure, Exception):
            raise self.failure
        if self.failure is not None:
            # SystemExit itself would keep pytest from tearing down the other fixtures.
            pytest.fail(f"{self.worker!r} was ended by {self.failure!r}", pytrace=False)
        if self.thread.is_alive():
            pytest.fail(f"{self.worker!r} does not stop: a task of it hangs", pytrace=False)


@pytest.fixture
def gearman_faults(gearman_server: EmbeddedServer) -> Iterator[FaultProxy]:
    """A `gearman_pool.testing.FaultProxy` in front of ``gearman_server``: give clients its ``address``."""
    from gearman_pool.testing import FaultProxy

    with FaultProxy(gearman_server.address) as proxy:
        yield proxy


@pytest.fixture
def gearmand(request: pytest.FixtureRequest) -> Iterator[Gearmand]:
    """A real gearmand, for this test alone; the test is skipped where it is not installed."""
    from gearman_pool.testing.gearmand import Gearmand, find_gearmand

    path = request.config.getoption("--gearmand") or request.config.getini("gearmand_exec") or None
    program = find_gearmand(path)
    if program is None:
        _missing(request, f"{path or 'gearmand'} is not installed (Debian's package gearman-job-server)")
    with Gearmand(program) as server:
        yield server


def _missing(request: pytest.FixtureRequest, reason: str) -> NoReturn:
    if request.config.getoption("--gearman-require-real"):
        pytest.fail(f"{reason}, and --gearman-require-real forbids skipping", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def gearman_tls() -> Iterator[Any]:
    """An `EmbeddedServer` with TLS, whose ``client_context`` trusts it; needs the package trustme."""
    trustme = pytest.importorskip("trustme", reason="gearman_tls needs the package trustme")
    import ssl

    from gearman_pool.testing import EmbeddedServer

    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    with EmbeddedServer(ssl_context=server_context) as server:
        yield _Tls(server, client_context)


class _Tls:
    """What the fixture ``gearman_tls`` gives.

    Attributes:
        server: The server.
        address: Its address.
        client_context: The ``ssl_context`` for clients and workers.
    """

    def __init__(self, server: EmbeddedServer, client_context: Any) -> None:
        self.server = server
        self.address = server.address
        self.client_context = client_context


@pytest.fixture
def eager_client() -> Iterator[EagerClient]:
    """A `gearman_pool.testing.EagerClient`: no server, no thread; jobs run where they are submitted."""
    from gearman_pool.testing import EagerClient

    with EagerClient() as client:
        yield client
