"""`Submitting`: from a request to a future that is in line, with everything checked and encoded that can be refused.

Any thread may use it; users' encoders run here, on the thread that submits. It takes no lock, and blocks only where
`ClientEngine.submit` does.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any, Protocol

from ...encoders import BytesEncoder, NoopEncoder, encode_payload
from ...jobs.future import JobFuture
from ...jobs.job import GearmanJobRequest
from ...protocol.commands import submit_command
from ...protocol.values import encode_task, encode_unique
from ...settings.client_options import ClientOptions
from ...settings.policies import STICKY
from .engine import ClientEngine

__all__ = ["Submitting"]

#: Encoded task names are kept for this many tasks.
_TASK_CACHE = 1000


class Encoding(Protocol):
    """What has an encoder: a client."""

    data_encoder: Any


class Submitting:
    """Makes futures of a client's requests, and submits them.

    Args:
        options: The client's options.
        encoder: How results become objects, and whether payloads may pass as they are; which encoder a payload goes
            through is looked up for each, as python-gearman does.

    Attributes:
        engine: Where futures are submitted. Set by the client, and replaced in the child of a fork, by its one thread.
    """

    engine: ClientEngine

    def __init__(self, options: ClientOptions, encoder: Any) -> None:
        self._options = options
        self._plain = encoder is BytesEncoder or encoder is NoopEncoder
        self._decode: Callable[[Any], Any] | None = None if self._plain else encoder.decode
        # Changed by any thread, by single operations; one that is lost is encoded once more.
        self._tasks: dict[Any, bytes] = {}
        self._warned_of_unique = False

    def future(self, client: Encoding, request: GearmanJobRequest, unique_given: bool, recover: bool) -> JobFuture:
        """Return a future for a request, with everything checked that can be refused.

        Args:
            client: Who is to stay until the job is done.
            request: The request. Its future is kept in it.
            unique_given: Whether its unique is the user's.
            recover: Whether an accepted job may be sent again.

        Raises:
            ValueError, TypeError: task, unique or priority cannot be one.
            EncodeError: the encoder does not take the data.
        """
        job = request.gearman_job
        command = submit_command(request.background, request.priority)
        wire_task = self._tasks.get(job.task) if type(job.task) is str else None
        if wire_task is None:
            wire_task = self._encode_task(job.task)
        data = job.data
        payload = data if self._plain and type(data) is bytes else encode_payload(client.data_encoder, data)
        key = None
        if unique_given:
            key = encode_unique(job.unique)
            if type(job.unique) is bytes:
                job.unique = key.decode("utf-8", "surrogateescape")
            if not self._warned_of_unique and len(self.engine.pool.wanted) > 1:
                self._warn_of_unique()
        return JobFuture(request, client, command, wire_task, payload, key, unique_given, recover, self._decode)

    def _encode_task(self, task: str | bytes) -> bytes:
        wire_task = encode_task(task, self._options.prefix)
        if len(self._tasks) >= _TASK_CACHE:
            self._tasks.clear()
        if type(task) is str:
            self._tasks[task] = wire_task
        return wire_task

    def _warn_of_unique(self) -> None:
        self._warned_of_unique = True
        policy = self._options.policy
        if isinstance(policy, str) and policy not in STICKY:
            warnings.warn(
                f"jobs with a unique of yours coalesce only on one server, and policy={policy!r} spreads them over "
                "several: use policy='unique' or policy='failover'",
                RuntimeWarning,
                stacklevel=_level_of_caller(),
            )

    def send(self, future: JobFuture, timeout: float | None) -> None:
        """Submit a future: see `ClientEngine.submit`. Refused before it was in line, its request is as it was."""
        try:
            self.engine.submit(future, future.take_arguments(), timeout)
        except BaseException:  # Ctrl+C too: the request must be as it was
            future.take_back()
            raise


def _level_of_caller() -> int:
    """Return the ``stacklevel`` for the caller that names the user's line, however many calls of ours are between."""
    package = __name__.partition(".")[0]
    level = 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame = frame.f_back
        level += 1
    return level
