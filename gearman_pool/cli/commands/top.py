"""``gearman-pool top``: servers, queues and workers, live.

The main thread draws and waits for keys, a thread for each server asks. The command only looks at the servers, and
leaves the terminal as it was.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

from ...admin_client import GearmanAdminClient, StatusRow, WorkerRow
from ...errors import GearmanError
from ..exits import OK, UNAVAILABLE
from ..processes.signals import handling
from ..servers import add_server_arguments, chosen, positive
from ..terminal.keys import Keys
from ..terminal.output import has_rich, plain_table, print_json, rich_table
from .status import task_row

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show servers, queues and workers, live"

EPILOG = """\
q, Ctrl-C or SIGTERM ends it, with exit code 0. Where stdout is not a terminal, each look is printed below the one
before.
"""

#: A server that is asked for longer than this shows as one that does not answer, in seconds.
_PATIENCE = 2.0

_SERVERS = {"server": "SERVER", "state": "STATE", "waiting": "WAITING", "running": "RUNNING", "workers": "WORKERS"}
_TASKS = {"task": "TASK", "server": "SERVER", "waiting": "WAITING", "running": "RUNNING", "workers": "WORKERS"}
_WORKERS = {"server": "SERVER", "ip": "ADDRESS", "client_id": "ID", "tasks": "TASKS"}

_Tables = list[tuple[list[dict[str, Any]], dict[str, str]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    add_server_arguments(parser)
    parser.add_argument(
        "-n",
        "--interval",
        type=positive,
        default=1.0,
        metavar="SECONDS",
        help="seconds between looks (default: %(default)g)",
    )
    parser.add_argument("--once", action="store_true", help="look once, and end; exit code 3 if a server is down")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line for each look")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    servers = chosen(args)
    names = [str(address) for address in servers.addresses]
    # The clients are closed before the threads are waited for: whoever is interrupted waits for no server.
    with (
        ThreadPoolExecutor(len(names), thread_name_prefix="gearman_pool-cli-top") as pool,
        ExitStack() as stack,
    ):
        admins = [stack.enter_context(servers.admin(address, _PATIENCE)) for address in servers.addresses]

        def look() -> dict[str, Any]:
            return _look(names, list(pool.map(_ask, admins)))

        return _once(args, look()) if args.once else _forever(args, look)


def _once(args: argparse.Namespace, view: dict[str, Any]) -> int:
    if args.json:
        print_json(view)
    elif has_rich(sys.stdout):
        _print_rich(view)
    else:
        print(_plain(view), flush=True)
    return OK if all(server["state"] == "UP" for server in view["servers"]) else UNAVAILABLE


def _forever(args: argparse.Namespace, look: Callable[[], dict[str, Any]]) -> int:
    try:
        # SIGTERM ends it as Ctrl-C does: the terminal has to be put right.
        with handling({signal.SIGTERM: signal.default_int_handler}), Keys() as keys, _screen(args) as draw:
            while True:
                draw(look())
                if keys.wait(args.interval) in ("q", "Q"):
                    return OK
    except KeyboardInterrupt:
        return OK


# ---- looking -------------------------------------------------------------------------------------------------------


def _ask(admin: GearmanAdminClient) -> tuple[tuple[StatusRow, ...], tuple[WorkerRow, ...]] | GearmanError:
    try:
        return admin.get_status(), admin.get_workers()
    except GearmanError as error:
        return error


def _look(names: list[str], answers: list[Any]) -> dict[str, Any]:
    """Return what all servers say, as it is printed in JSON."""
    servers: list[dict[str, Any]] = []
    tasks: list[dict[str, Any]] = []
    workers: list[dict[str, Any]] = []
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, GearmanError):
            nothing = {"waiting": 0, "running": 0, "workers": 0}
            servers.append({"server": name, "state": "DOWN", **nothing, "error": str(answer)})
            continue
        mine = [task_row(name, row) for row in answer[0]]
        able = [{"server": name, **row, "tasks": list(row["tasks"])} for row in answer[1] if row["tasks"]]
        sums = {key: sum(int(row[key]) for row in mine) for key in ("waiting", "running")}
        servers.append({"server": name, "state": "UP", **sums, "workers": len(able), "error": None})
        tasks += mine
        workers += able
    tasks.sort(key=lambda row: (-row["waiting"] - row["running"], row["task"], row["server"]))
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"time": now, "servers": servers, "tasks": tasks, "workers": workers}


# ---- drawing -------------------------------------------------------------------------------------------------------


@contextmanager
def _screen(args: argparse.Namespace) -> Iterator[Callable[[dict[str, Any]], object]]:
    """Give a function that draws a look, and put the terminal right again at the end."""
    if args.json:
        yield lambda view: print_json(view, indent=None)
    elif has_rich(sys.stdout):
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            yield lambda view: live.update(_rich(view), refresh=True)
    elif sys.stdout.isatty():
        sys.stdout.write("\x1b[?1049h\x1b[?25l")
        try:
            yield _draw_plain
        finally:
            sys.stdout.write("\x1b[?25h\x1b[?1049l")
            sys.stdout.flush()
    else:
        yield lambda view: print(_plain(view) + "\n", flush=True)


def _draw_plain(view: dict[str, Any]) -> None:
    columns, rows = shutil.get_terminal_size()
    lines = [line[:columns] for line in _plain(view).splitlines()[: rows - 1]]
    sys.stdout.write("\x1b[H\x1b[2J" + "\n".join(lines))
    sys.stdout.flush()


def _tables(view: dict[str, Any]) -> _Tables:
    found: _Tables = [(view["servers"], _SERVERS), (view["tasks"], _TASKS), (view["workers"], _WORKERS)]
    return [(rows, columns) for rows, columns in found if rows]


def _errors(view: dict[str, Any]) -> list[str]:
    return [server["error"] for server in view["servers"] if server["error"]]


def _plain(view: dict[str, Any]) -> str:
    return "\n\n".join(
        [f"gearman-pool top  {view['time']}", *(plain_table(*table) for table in _tables(view)), *_errors(view)]
    )


def _rich(view: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.text import Text

    head = Text.assemble(("gearman-pool top", "bold"), f"  {view['time']}  ", ("q ends it", "dim"))
    errors = [Text(error, style="red") for error in _errors(view)]
    return Group(head, *(rich_table(*table) for table in _tables(view)), *errors)


def _print_rich(view: dict[str, Any]) -> None:
    from rich.console import Console

    Console().print(_rich(view))
