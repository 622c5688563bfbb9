"""`EagerClient`: a client without servers, for unit tests: it runs each job in the caller's thread, before it returns.

It is `GearmanClient` with another engine, so that arguments are checked, payloads encoded, jobs moved through their
states and futures resolved by the same code; and the tasks are run by `GearmanWorker` with another engine, through the
same hooks. Both engines are `eager_engine`'s.

Threads: any may call any method; a job is run by the thread that submits it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..client import GearmanClient
from ..future import JobFuture
from ..options import ServerAddress, parse_server
from ..worker import GearmanWorker
from .eager_engine import EagerEngine

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options import ClientOptionsDict

__all__ = ["EagerClient", "SubmittedJob"]

#: Where jobs seem to be, unless servers are given.
_NOWHERE = "eager.invalid:4730"


@dataclass(frozen=True)
class SubmittedJob:
    """A job that an `EagerClient` was given.

    Attributes:
        task, data, unique, priority, background: What it was submitted with; ``data`` as it was before encoding.
        at: When it was to run, in seconds since the epoch; None for at once.
        future: Its future, which is done.
    """

    task: str
    data: Any = field(repr=False)
    unique: str
    priority: str | None
    background: bool
    at: float | None
    future: JobFuture


class EagerClient(GearmanClient):
    """A `GearmanClient` without servers, for unit tests: each job runs in the caller's thread before `submit` returns.

    It checks arguments, encodes payloads and results, and gives futures as `GearmanClient` does; they are done at once.
    A task that is not registered is a LookupError. Callbacks run in the caller's thread. ``at=`` does not delay a job.
    No time limit interrupts one, but a job that took longer ends as it would have: with `JobTimeout` after the caller's
    ``timeout=``, with `JobException` after the task's. Threads may share it; each runs its own jobs.

    Args:
        host_list: Servers to seem to talk with; one that does not exist if None.
        worker: A worker whose tasks, hooks and encoder are used; it must not be running. One without tasks, and with
            this client's encoder and prefix, if None.
        options: Those of `GearmanClient`.

    Example::

        client = EagerClient()

        @client.task("reverse")
        def reverse(job):
            return job.data[::-1]

        assert client.submit("reverse", b"abc").result() == b"cba"
        client.assert_submitted("reverse", data=b"abc")
    """

    def __init__(
        self,
        host_list: str | bytes | Iterable[Any] | None = None,
        *,
        worker: GearmanWorker | None = None,
        **options: Unpack[ClientOptionsDict],
    ) -> None:
        #: All jobs since the start or the last `clear`, oldest first.
        self.submitted: list[SubmittedJob] = []
        super().__init__(_NOWHERE if host_list is None else host_list, **options)
        if worker is None:
            servers = [server.address for server in self._engine.pool.servers]
            worker = GearmanWorker(servers, data_encoder=self.data_encoder, prefix=self.options.prefix)
        #: The worker whose tasks are run.
        self.worker = worker
        self._doubles().begin(worker, self._record)

    def _new_engine(self, addresses: tuple[ServerAddress, ...]) -> EagerEngine:
        engine = EagerEngine(addresses, self.options, self._connection, self.random_unique_bytes)
        if hasattr(self, "worker"):
            # This is the child of a fork.
            engine.begin(self.worker, self._record)
        return engine

    def _record(self, future: JobFuture, at: float | None) -> None:
        request = future.request
        job = request.gearman_job
        name = job.task if isinstance(job.task, str) else bytes(job.task).decode("utf-8", "surrogateescape")
        unique, background = str(job.unique), request.background
        self.submitted.append(SubmittedJob(name, job.data, unique, request.priority, background, at, future))

    def _doubles(self) -> EagerEngine:
        engine = self._engine
        assert isinstance(engine, EagerEngine)
        return engine

    # ---- tasks -----------------------------------------------------------------------------------------------------

    def task(self, task: Any, *, timeout: float | None = None) -> Any:
        """Register the decorated function, as `GearmanWorker.task` does."""
        return self.worker.task(task) if callable(task) else self.worker.task(task, timeout=timeout)

    def register_task(
        self, task: str | bytes, callback_function: Callable[..., Any], timeout: float | None = None
    ) -> str | bytes:
        """Run jobs of this task by calling a function, as `GearmanWorker.register_task` does."""
        return self.worker.register_task(task, callback_function, timeout)

    # ---- looking ---------------------------------------------------------------------------------------------------

    def assert_submitted(self, task: str, **expected: Any) -> SubmittedJob:
        """Return the last job of a task that has these attributes of `SubmittedJob`.

        Raises:
            AssertionError: there is none; the text lists what there is.

        Example::

            client.assert_submitted("mail", data=b"...", background=True)
        """
        __tracebackhide__ = True  # pytest shows the caller's line
        for job in reversed(self.submitted):
            if job.task == task and all(getattr(job, name) == value for name, value in expected.items()):
                return job
        found = "\n".join(f"  {job.task} data={job.data!r} background={job.background}" for job in self.submitted)
        wanted = ", ".join([repr(task), *(f"{name}={value!r}" for name, value in expected.items())])
        raise AssertionError(f"no job was submitted like {wanted}; there were:\n{found or '  none'}")

    def clear(self) -> None:
        """Forget what was submitted."""
        self.submitted.clear()

    # ---- servers ---------------------------------------------------------------------------------------------------

    def add_server(self, server: Any) -> None:
        """Seem to talk with one more server."""
        self._doubles().seem_to_have(parse_server(server))

    def remove_server(self, server: Any, drain: bool = True) -> None:
        """Seem to talk with one server less.

        Raises:
            ValueError: there is no such server, or it is the last one.
        """
        self._doubles().seem_not_to_have(parse_server(server))
