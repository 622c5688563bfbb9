"""``python -m tests.benchmarks``: measures the rows of the table and prints them. See ``--help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .measuring import measure, quiet
from .rows import ROWS, Effort
from .servers import InstantServer, Programs
from .table import machine, table, to_json

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measures gearman_pool beside its peers, in turns. The peers come with the extra [bench], gcc, "
        "libgearman-dev and gearmand; what is missing is skipped. Exit status 1 if a row could not be measured.",
    )
    parser.add_argument("--quick", action="store_true", help="short runs, for a first impression")
    parser.add_argument("--row", action="append", metavar="NAME", help="only this row; may be repeated")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each case (5)")
    parser.add_argument("--json", action="store_true", help="print all numbers of all runs as JSON")
    parser.add_argument("--peer-python", metavar="PATH", help="the interpreter that has the peers (this one)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    by_name = {row.name.lower(): row for row in ROWS}
    names = [name.lower() for name in options.row or by_name]
    unknown = [name for name in names if name not in by_name]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(row.name for row in ROWS)}")
    if options.runs < 1:
        parser.error("--runs takes 1 or more")
    rows = [row for row in ROWS if row.name.lower() in names]
    effort = Effort(0.5, 1.0, 0.2) if options.quick else Effort()
    progress = _show if sys.stderr.isatty() else quiet
    with Programs() as programs:
        with InstantServer(programs) as server:
            kind = server.kind
        results = measure(
            rows,
            runs=options.runs,
            effort=effort,
            peer_python=options.peer_python,
            programs=programs,
            progress=progress,
        )
    progress("")
    if options.json:
        print(to_json(results))
    else:
        print(f"{machine()}; instant server: {kind}; medians of {options.runs}{' short runs' if options.quick else ''}")
        print(table(results))
    return 1 if any(measured.verdict == "failed" for measured in results) else 0


def _show(text: str) -> None:
    print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
