"""``gearman-pool jobs``: the servers' unfinished jobs.

The command only looks: no job is changed.
"""

from __future__ import annotations

import argparse

from ...admin_client import GearmanAdminClient
from ..servers import add_admin_arguments, ask_all
from ..terminal.output import print_rows

__all__ = ["HELP", "add_arguments", "run"]

HELP = "list the unfinished jobs"

EPILOG = """\
RETRIES counts how often a job went back because its worker was lost. A job that is dropped was cancelled, or nobody
waits for it any more; the server lists it until a worker asks for it.
"""

_COLUMNS = {
    "server": "SERVER",
    "handle": "HANDLE",
    "background": "BACKGROUND",
    "retries": "RETRIES",
    "dropped": "DROPPED",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_admin_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    answers, code = ask_all(args, GearmanAdminClient.get_jobs)
    rows = [
        {
            "server": server,
            "handle": row["handle"],
            "background": bool(row["queued"]),
            "retries": row["retries"],
            "dropped": bool(row["ignored"]),
        }
        for server, answer in answers
        for row in answer
    ]
    if answers or args.json:
        print_rows(rows, _COLUMNS, args.json, "no unfinished jobs")
    return code
