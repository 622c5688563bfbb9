"""``gearman-pool serve``: an embedded server in the foreground, for development.

The main thread waits for a signal while the server's thread serves. No job is kept beyond the end of the process.
"""

from __future__ import annotations

import argparse
import ipaddress
import signal
import threading

from ...constants import DEFAULT_GEARMAN_PORT
from ..exits import OK, USAGE, CommandError
from ..processes.signals import handling
from ..terminal.output import note, print_json

__all__ = ["HELP", "add_arguments", "run"]

HELP = "run a job server for development, in pure Python"

EPILOG = """\
It is for development and tests: it keeps its jobs in memory, and takes no passwords. Use gearmand for production.
Ctrl-C or SIGTERM ends it, with exit code 0.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_GEARMAN_PORT, help="0 for a free one (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print where it listens as JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from ...testing import EmbeddedServer

    ended = threading.Event()
    server = EmbeddedServer(args.host, args.port)
    if not _is_loopback(args.host):
        note(f"warning: {args.host} can be reached from other machines, and whoever reaches it can submit and do jobs")
    with handling(dict.fromkeys((signal.SIGTERM, signal.SIGINT), lambda *_: ended.set())):
        try:
            server.start()
            note("this server is for development and tests: it keeps its jobs in memory; use gearmand for production")
            if args.json:
                print_json({"host": server.host, "port": server.port, "url": server.url}, indent=None)
            else:
                print(f"listening on {server.address}", flush=True)
                note(f"GEARMAN_SERVERS={server.address} has other commands use it; Ctrl-C ends it")
            ended.wait()
        except OSError as error:
            place = f"{args.host}:{args.port}"
            raise CommandError(f"cannot listen on {place}: {error.strerror or error}; try --port 0", USAGE) from None
        finally:
            server.stop()
    return OK


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _port(text: str) -> int:
    """Return a port, for argparse."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)
