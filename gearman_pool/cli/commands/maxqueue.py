"""``gearman-pool maxqueue``: limit how many jobs of a task the servers hold.

The limit is for jobs to come: none that a server has is dropped.
"""

from __future__ import annotations

import argparse
from typing import Any

from ...admin_client import GearmanAdminClient
from ..exits import FAILED, USAGE, CommandError
from ..servers import add_admin_arguments, ask_all
from ..terminal.output import complain, print_rows

__all__ = ["HELP", "add_arguments", "run"]

HELP = "limit how many jobs of a task the servers hold"

EPILOG = """\
One size is for all priorities, two or three are for high, normal and low. No size, or 0, means no limit. Jobs beyond
the limit are refused. The server forgets the limit when it is restarted or forgets the task.
"""

_COLUMNS = {"server": "SERVER", "task": "TASK", "sizes": "SIZES"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("task", metavar="TASK", help="the task's name")
    parser.add_argument("sizes", nargs="*", type=int, metavar="SIZE", help="one size, or up to three by priority")
    parser.add_argument("--create", action="store_true", help="make the task known to servers that do not know it")
    add_admin_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    if len(args.sizes) > 3:
        raise CommandError("there are three priorities: give up to three sizes", USAGE)

    def limit(admin: GearmanAdminClient) -> bool:
        if args.create:
            admin.create_function(args.task)
        # gearmand says OK to a limit for a task that it does not know, and forgets it.
        elif not any(row["task"] == args.task for row in admin.get_status()):
            return False
        admin.send_maxqueue(args.task, args.sizes or None)
        return True

    try:
        answers, code = ask_all(args, limit)
    except (ValueError, TypeError) as error:
        raise CommandError(str(error), USAGE) from None
    rows: list[dict[str, Any]] = []
    for server, done in answers:
        if done:
            rows.append({"server": server, "task": args.task, "sizes": args.sizes or "no limit"})
        else:
            complain(f"{server} does not know the task {args.task!r}, and would forget the limit: use --create")
            code = max(code, FAILED)
    if rows or args.json:
        print_rows(rows, _COLUMNS, args.json, "")
    return code
