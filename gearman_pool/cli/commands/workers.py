"""``gearman-pool workers``: who is connected to the servers.

The command only looks: no worker is told anything.
"""

from __future__ import annotations

import argparse

from ...admin_client import GearmanAdminClient
from ..servers import add_admin_arguments, ask_all
from ..terminal.output import print_rows

__all__ = ["HELP", "add_arguments", "run"]

HELP = "list the workers that are connected"

_COLUMNS = {"server": "SERVER", "ip": "ADDRESS", "client_id": "ID", "tasks": "TASKS"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--all", action="store_true", help="list clients too, which have no tasks")
    add_admin_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    answers, code = ask_all(args, GearmanAdminClient.get_workers)
    rows = [
        {"server": server, **row, "tasks": list(row["tasks"])}
        for server, answer in answers
        for row in answer
        if row["tasks"] or args.all
    ]
    if answers or args.json:
        print_rows(rows, _COLUMNS, args.json, "no worker is connected")
    return code
