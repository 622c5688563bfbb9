"""Which servers a command talks with, and the clients it does so by.

For the main thread; the threads of `ask_all` have ended when the function returns. No server is connected to before a
question for it, and no error of one keeps the answers of the others from being shown.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..admin_client import DEFAULT_ADMIN_CLIENT_TIMEOUT, GearmanAdminClient
from ..client import GearmanClient
from ..errors import GearmanError
from ..job import JobReference
from ..options import ServerAddress, parse_server, parse_servers, servers_from_env
from .exits import OK, USAGE, CommandError, code_of, text_of
from .terminal.output import complain

__all__ = [
    "DEFAULT_SERVER",
    "Servers",
    "add_admin_arguments",
    "add_server_arguments",
    "ask_all",
    "chosen",
    "reference_in",
]

DEFAULT_SERVER = "127.0.0.1:4730"

_MAX_THREADS = 32

T = TypeVar("T")


@dataclass(frozen=True)
class Servers:
    """The servers of a command line, and the options that came with them in a DSN."""

    addresses: tuple[ServerAddress, ...]
    options: dict[str, Any]

    @contextmanager
    def client(self, **options: Any) -> Iterator[GearmanClient]:
        """Give a client of all servers. It is closed at once at the end: whoever is interrupted waits for no job."""
        client = GearmanClient(self.addresses, **{**self.options, **options})
        try:
            yield client
        finally:
            client.close(0)

    def find(self, text: str) -> ServerAddress:
        """Return the server that a job's reference names; it need not be one of these."""
        return next((address for address in self.addresses if str(address) == text), None) or parse_server(text)

    def including(self, address: ServerAddress) -> Servers:
        """Return these servers and another one."""
        return self if address in self.addresses else replace(self, addresses=(*self.addresses, address))

    def admin(self, address: ServerAddress, timeout: float) -> GearmanAdminClient:
        """Return an admin client of one server."""
        return GearmanAdminClient([address], timeout, **self.options)


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--servers``."""
    parser.add_argument(
        "-s",
        "--servers",
        metavar="HOST:PORT[,...]",
        help="the servers, or a DSN such as gearman://h1,h2/?policy=failover (gearmans:// for TLS); "
        f"else those in GEARMAN_SERVERS, else {DEFAULT_SERVER}",
    )


def add_admin_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all commands have that ask each server."""
    add_server_arguments(parser)
    parser.add_argument(
        "--timeout",
        type=positive,
        default=DEFAULT_ADMIN_CLIENT_TIMEOUT,
        metavar="SECONDS",
        help="how long to wait for a server's answer (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def positive(text: str) -> float:
    """Return a number of seconds above 0, for argparse."""
    value = float(text)
    if not 0 < value < 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def chosen(args: argparse.Namespace) -> Servers:
    """Return the servers of a command line.

    Raises:
        CommandError: they are not usable.
    """
    try:
        if args.servers is not None:
            found = parse_servers(args.servers)
        elif os.environ.get("GEARMAN_SERVERS", "").strip():
            found = servers_from_env()
        else:
            found = parse_servers(DEFAULT_SERVER)
    except (ValueError, TypeError) as error:
        raise CommandError(str(error), USAGE) from None
    return Servers(*found)


def reference_in(text: str) -> JobReference | None:
    """Return the reference of a job that stands on a command line; None if it is a unique or a handle.

    Those may have slashes too: a reference is told by its server's port and the beginning of all handles.
    """
    return JobReference.parse(text) if re.fullmatch(r"[^/]+:\d+/H:[^/]*/[^/]*", text) else None


def ask_all(args: argparse.Namespace, question: Callable[[GearmanAdminClient], T]) -> tuple[list[tuple[str, T]], int]:
    """Ask all servers at the same time.

    What servers cannot answer is said on stderr, and does not keep the answers of others from being shown.

    Returns:
        The servers that answered and their answers, and the exit code.
    """
    servers = chosen(args)

    def ask(admin: GearmanAdminClient) -> T | GearmanError:
        try:
            return question(admin)
        except GearmanError as error:
            return error

    # The clients are closed before the threads are waited for: whoever is interrupted waits for no server.
    with ThreadPoolExecutor(min(_MAX_THREADS, len(servers.addresses))) as pool, ExitStack() as stack:
        admins = [stack.enter_context(servers.admin(address, args.timeout)) for address in servers.addresses]
        answers = list(zip(map(str, servers.addresses), pool.map(ask, admins), strict=True))
    code = OK
    good: list[tuple[str, T]] = []
    for address, answer in answers:
        if isinstance(answer, GearmanError):
            code = max(code, code_of(answer))
            complain(f"{address}: {text_of(answer)}" if address not in str(answer) else text_of(answer))
        else:
            good.append((address, answer))
    return good, code
