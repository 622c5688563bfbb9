"""``gearman-pool work``: worker processes under a supervisor.

The main thread supervises, or is, with the hidden ``--child-fd``, that of a worker process. The user's code is never
imported by the process that supervises.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys

from ..exits import USAGE, CommandError
from ..processes.child import run_child
from ..processes.health import HealthServer
from ..processes.supervisor import Supervisor
from ..servers import add_server_arguments, chosen, positive

__all__ = ["HELP", "add_arguments", "run"]

HELP = "run worker processes that do jobs"

EPILOG = """\
WORKER is a GearmanWorker, or a function that returns one; it is called with the servers if it takes an argument. With
--task it is a plain function of (job). In place of it, --exec CMD --task NAME gives each job to a command: the payload
on its stdin, its stdout the result; the job fails if the command's exit code is not 0. GEARMAN_JOB_TASK,
GEARMAN_JOB_HANDLE and GEARMAN_JOB_UNIQUE stand in its environment.

Processes that die are replaced. SIGTERM or Ctrl-C lets them finish their jobs (exit code 0, or 1 if not all were
finished); a second one kills them (130 or 143). SIGHUP replaces them.
"""

_LEVELS = ("debug", "info", "warning", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("worker", nargs="?", metavar="MODULE:ATTRIBUTE", help="what does the jobs; see below")
    add_server_arguments(parser)
    parser.add_argument("--exec", dest="command_line", metavar="CMD", help="give each job to this command")
    parser.add_argument("--task", metavar="NAME", help="the task's name, for a plain function or a command")
    parser.add_argument(
        "--task-timeout", type=_task_timeout, metavar="SECONDS", help="with --task: how long a job may take, from 1 on"
    )
    parser.add_argument("--processes", type=_count, default=1, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--concurrency", type=_count, metavar="N", help="how many jobs each process runs at a time")
    parser.add_argument("--max-jobs", type=_count, metavar="N", help="replace a process after so many jobs")
    parser.add_argument(
        "--shutdown-timeout", type=positive, metavar="SECONDS", help="how long jobs may take when it is told to stop"
    )
    parser.add_argument("--reload", action="store_true", help="replace the processes when a source file changes")
    parser.add_argument(
        "--health-port",
        type=_address,
        metavar="[HOST:]PORT",
        help="serve /livez, /readyz and /metrics by HTTP (HOST: 127.0.0.1 unless told otherwise; PORT 0: a free one)",
    )
    parser.add_argument("--log-level", choices=_LEVELS, default="info", help="(default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="log JSON, one object a line")
    parser.add_argument("--child-fd", type=int, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    _check(args)
    _set_up_logging(args)
    if args.child_fd is not None:
        return run_child(args)
    supervisor = Supervisor(args.argv, args.processes, args.max_jobs, args.reload)
    with contextlib.ExitStack() as stack:
        if args.health_port is not None:
            host, port = args.health_port
            health = stack.enter_context(HealthServer(host, port, lambda: supervisor.snapshot))
            logging.getLogger("gearman_pool.cli").info("health checks at http://%s/readyz", health.address)
        return supervisor.run()


def _check(args: argparse.Namespace) -> None:
    """Refuse what can be seen to be wrong before a process is started."""
    if (args.worker is None) == (args.command_line is None):
        raise CommandError("give either MODULE:ATTRIBUTE or --exec CMD", USAGE)
    if args.command_line is not None and args.task is None:
        raise CommandError("--exec needs --task NAME: the task whose jobs the command does", USAGE)
    if args.worker is not None and not all(args.worker.partition(":")):
        raise CommandError(f"{args.worker!r} is not MODULE:ATTRIBUTE, such as myapp.workers:worker", USAGE)
    if args.task_timeout is not None and args.task is None:
        raise CommandError("--task-timeout is for --task; else give register_task() a timeout", USAGE)
    chosen(args)


def _set_up_logging(args: argparse.Namespace) -> None:
    handler = logging.StreamHandler(sys.stderr)
    form = "%(asctime)s %(levelname)-7s [%(process)d] %(message)s"
    handler.setFormatter(_JSONFormatter() if args.json else logging.Formatter(form))
    logging.basicConfig(level=args.log_level.upper(), handlers=[handler])


class _JSONFormatter(logging.Formatter):
    """A log record as a JSON object in one line."""

    def format(self, record: logging.LogRecord) -> str:
        value = {
            "time": record.created,
            "level": record.levelname.lower(),
            "process": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return json.dumps(value, ensure_ascii=False)


def _count(text: str) -> int:
    """Return a whole number, 1 or more, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _task_timeout(text: str) -> float:
    """Return a number of seconds that servers take, for argparse."""
    value = positive(text)
    if value < 1:
        raise argparse.ArgumentTypeError("servers take 1 second or more")
    return value


def _address(text: str) -> tuple[str, int]:
    """Return a host and a port, for argparse."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not [HOST:]PORT")
    return host.strip("[]") or "127.0.0.1", int(port)
