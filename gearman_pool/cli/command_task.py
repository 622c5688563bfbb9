"""A task that gives each job to a command, as libgearman's ``gearman -w`` does."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from typing import TYPE_CHECKING

from .exits import USAGE, CommandError

if TYPE_CHECKING:
    from ..worker import GearmanWorker
    from ..worker_job import GearmanWorkerJob

__all__ = ["CommandTask"]

log: logging.Logger = logging.getLogger("gearman_pool.cli")


class CommandTask:
    """Runs a command for each job: the payload on its stdin, its stdout the result. May be called by several threads.

    The command is run without a shell, with GEARMAN_JOB_TASK, GEARMAN_JOB_HANDLE and GEARMAN_JOB_UNIQUE in its
    environment; its stderr is the worker's. Another exit code than 0 fails the job.

    Args:
        command: The command, with quotes as in a shell.
        timeout: Seconds after which it is killed and the job fails; never if None.

    Raises:
        CommandError: no command can be made of the text.
    """

    def __init__(self, command: str, timeout: float | None) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise CommandError(f"--exec {command!r}: {error}", USAGE) from None
        if not self._command:
            raise CommandError("--exec needs a command", USAGE)
        self._timeout = timeout

    def __call__(self, worker: GearmanWorker, job: GearmanWorkerJob) -> bytes | None:
        environment = {
            **os.environ,
            "GEARMAN_JOB_TASK": str(job.task),
            "GEARMAN_JOB_HANDLE": str(job.handle),
            "GEARMAN_JOB_UNIQUE": str(job.unique),
        }
        try:
            done: subprocess.CompletedProcess[bytes] = subprocess.run(
                self._command,
                input=job.data,
                stdout=subprocess.PIPE,
                timeout=self._timeout,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            log.error("%s took longer than %g s (job %s)", self._command[0], self._timeout, job.handle)
        except OSError as error:
            log.error("cannot run %s: %s (job %s)", self._command[0], error.strerror, job.handle)
        else:
            if done.returncode == 0:
                return done.stdout
            log.error("%s ended with %d (job %s)", self._command[0], done.returncode, job.handle)
        worker.send_job_failure(job)
        return None
