"""``gearman-pool ping``: whether the servers answer, and how fast.

The servers are asked at the same time, and no job is sent.
"""

from __future__ import annotations

import argparse

from ...admin_client import GearmanAdminClient
from ..servers import add_admin_arguments, ask_all
from ..terminal.output import print_rows

__all__ = ["HELP", "add_arguments", "run"]

HELP = "tell whether the servers answer, and how fast"

_COLUMNS = {"server": "SERVER", "milliseconds": "MS"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_admin_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    answers, code = ask_all(args, GearmanAdminClient.ping_server)
    rows = [{"server": server, "milliseconds": round(seconds * 1000, 3)} for server, seconds in answers]
    if answers or args.json:
        print_rows(rows, _COLUMNS, args.json, "")
    return code
