"""``gearman-pool submit``: one job, or one for each line of stdin.

The main thread submits, prints and waits. No job is sent a second time unless ``--retries`` allows that.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from ...client import GearmanClient
from ...constants import PRIORITY_HIGH, PRIORITY_LOW, PRIORITY_NONE
from ...future import JobFuture
from ...job import JobReference
from ..exits import OK, USAGE, CommandError
from ..servers import add_server_arguments, chosen, positive
from ..terminal.output import complain, json_payload, print_json, write_bytes
from ..terminal.progress import JobProgress
from .submit_lines import submit_lines

__all__ = ["HELP", "add_arguments", "run"]

HELP = "submit a job and print its result"

EPILOG = """\
What the worker sends while it works is printed as it comes, then the result; its warnings go to stderr. With
--background the job's reference is printed as soon as a server has the job, for 'status' and 'cancel'.
With --lines the results are printed in the order of the lines, one a line; jobs that fail are told on stderr, the
others go on, and the exit code is that of the first that failed.
"""

_PRIORITIES = {"high": PRIORITY_HIGH, "normal": PRIORITY_NONE, "low": PRIORITY_LOW}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("task", metavar="TASK", help="the task's name")
    parser.add_argument(
        "data", nargs="?", default="", metavar="DATA", help="the payload; - for stdin, @FILE for a file"
    )
    add_server_arguments(parser)
    parser.add_argument("-b", "--background", action="store_true", help="do not wait for the result")
    parser.add_argument("-p", "--priority", choices=_PRIORITIES, default="normal", help="(default: %(default)s)")
    parser.add_argument("-u", "--unique", help="the job's name: it joins a job of the same task and name")
    parser.add_argument(
        "--at",
        type=_moment,
        metavar="TIME",
        help="not before then, in the background: +90s, +5m, +2h, seconds since 1970, or 2030-01-31T12:00 (local "
        "time unless it has a zone)",
    )
    parser.add_argument("-t", "--timeout", type=positive, metavar="SECONDS", help="give the job up after so long")
    parser.add_argument(
        "--retries",
        type=_count,
        default=None,
        metavar="N",
        help="send the job again if its connection is lost; it may then run twice (default: 0)",
    )
    parser.add_argument("--progress", action="store_true", help="draw on stderr how far the job has come")
    parser.add_argument("--lines", action="store_true", help="make a job of each line of stdin")
    parser.add_argument(
        "--window",
        type=_count,
        default=100,
        metavar="N",
        help="with --lines: how many jobs are in flight, at most (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    _check(args)
    options = {} if args.retries is None else {"max_retries": args.retries}
    servers = chosen(args)
    payload = b"" if args.lines else _payload(args.data)
    with servers.client(**options) as client:
        try:
            if args.lines:
                return submit_lines(args, lambda line: _submit(client, args, line), lambda: client.close(0))
            future = _submit(client, args, payload)
        except (ValueError, TypeError) as error:
            raise CommandError(str(error), USAGE) from None
        if args.background:
            return _report_reference(args, future.result(args.timeout))
        return _follow(args, future)


def _check(args: argparse.Namespace) -> None:
    args.background = args.background or args.at is not None
    if args.lines and args.data:
        raise CommandError("--lines takes the payloads from stdin: leave DATA out", USAGE)
    if args.lines and args.unique is not None:
        raise CommandError("--lines makes many jobs, and --unique is the name of one", USAGE)
    if args.at is not None and args.priority != "normal":
        raise CommandError("a job with --at cannot have a priority: the server gives it the normal one", USAGE)
    if args.window < 1:
        raise CommandError("--window must be 1 or more", USAGE)


def _submit(client: GearmanClient, args: argparse.Namespace, payload: bytes) -> JobFuture:
    if args.background:
        priority = _PRIORITIES[args.priority]
        return client.submit_background(args.task, payload, unique=args.unique, priority=priority, at=args.at)
    return client.submit(
        args.task, payload, unique=args.unique, priority=_PRIORITIES[args.priority], timeout=args.timeout
    )


def _report_reference(args: argparse.Namespace, reference: JobReference) -> int:
    if args.json:
        print_json(
            {
                "reference": str(reference),
                "server": reference.server,
                "handle": reference.handle,
                "unique": reference.unique,
            }
        )
    else:
        print(reference)
    return OK


def _follow(args: argparse.Namespace, future: JobFuture) -> int:
    """Print what comes of a job as it comes."""
    parts: list[bytes] = []
    warnings: list[bytes] = []
    with JobProgress(args.task, args.progress) as progress:
        for update in future.updates():
            if update.kind == "status":
                progress.update(update.numerator, update.denominator)
            elif update.kind == "warning":
                warnings.append(update.data)
                progress.aside(partial(complain, f"warning: {_text(update.data)}"))
            elif args.json:
                parts.append(update.data)
            else:
                progress.aside(partial(_write_part, update.data, args.progress))
        result: bytes = future.result(0)
    if args.json:
        print_json(_as_json(future, result, parts, warnings))
    else:
        write_bytes(result)
        if sys.stdout.isatty() and not result.endswith(b"\n"):
            print()
    return OK


def _write_part(data: bytes, drawing: bool) -> None:
    # Where a bar is drawn below, it needs a line of its own.
    end_line = drawing and sys.stdout.isatty() and not data.endswith(b"\n")
    write_bytes(data + b"\n" if end_line else data)


def _as_json(future: JobFuture, result: bytes, parts: list[bytes], warnings: list[bytes]) -> dict[str, Any]:
    job = future.job
    return {
        "task": job.task,
        "unique": job.unique,
        "handle": job.handle,
        "server": str(job.connection.address),
        **json_payload("result", result),
        "data": [json_payload("data", part) for part in parts],
        "warnings": [_text(warning) for warning in warnings],
    }


def _text(data: bytes) -> str:
    return " ".join(data.decode("utf-8", "replace").split())


def _payload(text: str) -> bytes:
    try:
        if text == "-":
            return sys.stdin.buffer.read()
        if text.startswith("@"):
            return Path(text[1:]).read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {text[1:] or 'stdin'}: {error.strerror}", USAGE) from None
    return text.encode("utf-8", "surrogateescape")


def _moment(text: str) -> float:
    """Return seconds since the epoch, for argparse."""
    relative = re.fullmatch(r"\+(\d+(?:\.\d+)?)([smhd]?)", text)
    if relative:
        return time.time() + float(relative[1]) * _UNITS[relative[2] or "s"]
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write +5m, or 2030-01-31T12:00") from None


def _count(text: str) -> int:
    """Return a whole number, 0 or more, for argparse."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)
