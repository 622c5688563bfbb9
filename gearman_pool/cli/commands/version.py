"""``gearman-pool version``: the versions of this program and of the servers.

The servers are asked at the same time, and no job is sent.
"""

from __future__ import annotations

import argparse

from ... import __version__
from ...admin_client import GearmanAdminClient
from ..servers import add_admin_arguments, ask_all
from ..terminal.output import PROGRAM, print_rows

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show the versions of the servers and of this program"

_COLUMNS = {"server": "SERVER", "version": "VERSION", "pid": "PID"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_admin_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    answers, code = ask_all(args, _version_and_pid)
    rows = [{"server": server, "version": version, "pid": pid} for server, (version, pid) in answers]
    print_rows([{"server": PROGRAM, "version": __version__, "pid": None}, *rows], _COLUMNS, args.json, "")
    return code


def _version_and_pid(admin: GearmanAdminClient) -> tuple[str | None, str]:
    # A gearmand that was built outside its repository does not know its version.
    return admin.get_version() or None, admin.get_pid()
