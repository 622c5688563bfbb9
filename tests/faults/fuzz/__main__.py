"""See the package's text."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from . import __doc__ as description
from . import guided

__all__ = ["MAX_GROWTH", "main"]

#: How much the process may grow while it runs its inputs, in KiB: what allocators and caches take at first, with room.
#: A million inputs that leave 32 bytes each behind take more.
MAX_GROWTH = 24 * 1024


def _peak() -> int:
    """The most memory that this process has had, in KiB. (That of getrusage() counts the parent's before exec, too.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError("this system does not tell how much memory a process has had")


def _generated(inputs: int, seed: int, first: int) -> int:
    from .generator import fuzz

    # Caches fill, regular expressions are compiled.
    fuzz(min(inputs, 2000), seed + 1)
    before = _peak()
    started = time.monotonic()
    outcomes: Counter[str] = fuzz(inputs, seed, first)
    elapsed = time.monotonic() - started
    peak = _peak()
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:9,d}  {outcome}")
    print(
        f"{inputs:,d} inputs of seed {seed} in {elapsed:.0f} s; the memory grew by {peak - before:,d} KiB to "
        f"{peak / 1024:.0f} MiB at most"
    )
    if peak - before > MAX_GROWTH:
        print(f"that is more than {MAX_GROWTH:,d} KiB")
        return 1
    return 0


def _files(paths: Sequence[Path]) -> int:
    from .machines import MACHINES, Input, check

    for path in paths:
        what = Input.parse(path.read_bytes())
        for name in MACHINES:
            print(f"{path}: {name}: {check(name, what)[1]}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.fuzz", description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="inputs to run through all machines, and nothing else")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None, help="random if not given")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--guided", action="store_true", help="let atheris look for inputs that reach new code")
    parser.add_argument("--keep", type=Path, help="with --guided: a directory for the inputs that it finds")
    options = parser.parse_args(arguments)
    seed = Random().getrandbits(31) if options.seed is None else options.seed
    if options.files:
        return _files(options.files)
    if options.guided:
        return guided.fuzz(options.inputs, seed, options.keep)
    return _generated(options.inputs, seed, options.first)


if __name__ == "__main__":
    sys.exit(main())
