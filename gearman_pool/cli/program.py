"""The command line as a whole: its parser, and how errors become a line and an exit code.

For the main thread. The program itself never talks with a server: that is the subcommands' part.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from logging import NullHandler
from types import ModuleType

from .. import __version__, gearman_root_logger
from ..errors import GearmanError
from .commands import (
    cancel,
    completion,
    demo,
    jobs,
    maxqueue,
    ping,
    serve,
    status,
    submit,
    top,
    version,
    work,
    workers,
)
from .exits import EXIT_CODES, INTERRUPTED, OK, CommandError, code_of, text_of
from .terminal.output import PROGRAM, allow_any_text, complain

__all__ = ["COMMANDS", "main", "make_parser"]

#: The subcommands, in the order in which --help shows them; `commands` says what each module has.
COMMANDS: dict[str, ModuleType] = {
    "demo": demo,
    "submit": submit,
    "work": work,
    "status": status,
    "workers": workers,
    "jobs": jobs,
    "cancel": cancel,
    "ping": ping,
    "maxqueue": maxqueue,
    "top": top,
    "serve": serve,
    "version": version,
    "completion": completion,
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Submit jobs to Gearman servers, work for them, and look into them.",
        epilog=f"{PROGRAM} COMMAND --help says more of each.\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=f"{module.HELP[0].upper()}{module.HELP[1:]}.",
            epilog=f"{getattr(module, 'EPILOG', '')}\n{EXIT_CODES}".lstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program ``gearman-pool``.

    Args:
        argv: The arguments without the program's name; those of the process if None.

    Returns:
        The exit code; the documentation of the command line lists them.

    Raises:
        SystemExit: as argparse does, for ``--help`` and wrong usage.
    """
    args = make_parser().parse_args(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    args.commands = COMMANDS
    # Nothing is to be printed but what the command prints; ``work`` sets up logging of its own.
    allow_any_text()
    gearman_root_logger.addHandler(NullHandler())
    try:
        code = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return OK
    except (CommandError, GearmanError, TimeoutError) as error:
        complain(text_of(error))
        return code_of(error)
    return code


def _forget_stdout() -> None:
    """Whoever read stdout has gone; the interpreter's last flush must not complain of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
