"""``gearman-pool cancel``: have a server drop a waiting job.

The command asks one server, and never stops a job that runs.
"""

from __future__ import annotations

import argparse

from ...errors import ServerError
from ..exits import OK, USAGE, CommandError
from ..servers import add_admin_arguments, chosen, reference_in
from ..terminal.output import print_json

__all__ = ["HELP", "add_arguments", "run"]

HELP = "have a server drop a waiting job"

EPILOG = """\
A job that runs is not stopped. The client that waits for it is told that it failed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("job", metavar="JOB", help="what 'submit --background' printed, or a handle that 'jobs' shows")
    add_admin_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    servers = chosen(args)
    handle = args.job
    try:
        reference = reference_in(handle)
        if reference is not None:
            handle = reference.handle
            address = servers.find(reference.server)
        elif len(servers.addresses) == 1:
            address = servers.addresses[0]
        else:
            raise CommandError("several servers may have this handle; name the one that is meant with -s", USAGE)
        with servers.admin(address, args.timeout) as admin:
            admin.cancel_job(handle)
    except ServerError as error:
        if error.code != "UNKNOWN_JOB":
            raise
        raise CommandError(f"{address} has no job {handle}: it is done, or never was") from None
    except (ValueError, TypeError) as error:
        raise CommandError(str(error), USAGE) from None
    if args.json:
        print_json({"server": str(address), "handle": handle, "cancelled": True})
    else:
        print(f"{handle} is cancelled, unless a worker has it already")
    return OK
