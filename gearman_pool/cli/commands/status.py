"""``gearman-pool status``: the servers' functions, or how one job stands.

The command only looks: no job is changed, and none is waited for.
"""

from __future__ import annotations

import argparse

from ...admin_client import GearmanAdminClient, StatusRow
from ...job import JobStatus
from ..exits import FAILED, OK, USAGE, CommandError
from ..servers import Servers, add_admin_arguments, ask_all, chosen, reference_in
from ..terminal.output import print_json, print_rows

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show the tasks that the servers know, or how one job stands"

EPILOG = """\
Without JOB: a row for each task, with the jobs that wait, those that run, and the workers.
With JOB: exit code 0 if a server has the job, and 1 if none has: then it is done, or never was.
"""

_COLUMNS = {"server": "SERVER", "task": "TASK", "waiting": "WAITING", "running": "RUNNING", "workers": "WORKERS"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "job", nargs="?", metavar="JOB", help="what 'submit --background' printed, or the unique of a job"
    )
    add_admin_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if args.job is not None:
        return _run_job(args, chosen(args))
    answers, code = ask_all(args, GearmanAdminClient.get_status)
    rows = [task_row(server, row) for server, answer in answers for row in answer]
    rows.sort(key=lambda row: (str(row["task"]), str(row["server"])))
    if answers or args.json:
        print_rows(rows, _COLUMNS, args.json, "no server knows any task: no worker and no job has come yet")
    return code


def task_row(server: str, row: StatusRow) -> dict[str, str | int]:
    """Return a row of the table of tasks. Waiting jobs are told apart from running ones, which gearmand adds up."""
    waiting = max(0, row["queued"] - row["running"])
    return {
        "server": server,
        "task": row["task"],
        "waiting": waiting,
        "running": row["running"],
        "workers": row["workers"],
    }


def _run_job(args: argparse.Namespace, servers: Servers) -> int:
    try:
        reference = reference_in(args.job)
        if reference is not None:
            with servers.including(servers.find(reference.server)).client() as client:
                status = client.status(reference, timeout=args.timeout)
        else:
            with servers.client() as client:
                status = client.status(unique=args.job, timeout=args.timeout)
    except (ValueError, TypeError) as error:
        raise CommandError(str(error), USAGE) from None
    if args.json:
        print_json(
            {
                "known": status.known,
                "running": status.running,
                "numerator": status.numerator,
                "denominator": status.denominator,
                "waiting_clients": status.waiting_clients,
                "server": status.server,
            }
        )
    else:
        print(_sentence(status))
    return OK if status.known else FAILED


def _sentence(status: JobStatus) -> str:
    if not status.known:
        return "no server has this job: it is done, or never was"
    parts = ["running" if status.running else "waiting", f"at {status.server}"]
    if status.fraction is not None:
        parts.append(f"{status.fraction:.0%} ({status.numerator} of {status.denominator})")
    if status.waiting_clients is not None:
        parts.append(f"{status.waiting_clients} waiting for its result")
    return ", ".join(parts)
