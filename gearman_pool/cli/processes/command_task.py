"""A task that gives each job to a command, as libgearman's ``gearman -w`` does.

The worker's threads call the task. The command never goes through a shell.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from ..exits import USAGE, CommandError

if TYPE_CHECKING:
    from ...worker import GearmanWorker, GearmanWorkerJob

__all__ = ["CommandTask"]

#: How a program is started in a process group of its own, though in the session of the worker, by which the supervisor
#: finds it. os.setpgrp is a plain call into C, and harmless between fork and exec.
_OWN_GROUP: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"preexec_fn": os.setpgrp}

log: logging.Logger = logging.getLogger("gearman_pool.cli")


class CommandTask:
    """Runs a command for each job: the payload on its stdin, its stdout the result. May be called by several threads.

    The command is run without a shell, with GEARMAN_JOB_TASK, GEARMAN_JOB_HANDLE and GEARMAN_JOB_UNIQUE in its
    environment; its stderr is the worker's. Another exit code than 0 fails the job.

    Args:
        command: The command, with quotes as in a shell.
        timeout: Seconds after which it is killed, with what it has started, and the job fails; never if None.

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
            code, output = self._run(job.data, environment)
        except subprocess.TimeoutExpired:
            log.error("%s took longer than %g s (job %s)", self._command[0], self._timeout, job.handle)
        except OSError as error:
            log.error("cannot run %s: %s (job %s)", self._command[0], error.strerror, job.handle)
        else:
            if code == 0:
                return output
            log.error("%s ended with %d (job %s)", self._command[0], code, job.handle)
        worker.send_job_failure(job)
        return None

    def _run(self, data: bytes, environment: dict[str, str]) -> tuple[int, bytes]:
        """Run the command, and return its exit code and its output."""
        with subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            **_OWN_GROUP,
        ) as process:
            try:
                output = process.communicate(data, self._timeout)[0]
            except BaseException:
                # With what it has started: that may be what takes too long.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        return process.returncode, output
