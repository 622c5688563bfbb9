"""``python -m tests.mutations [AREA | NAME ...]``: break a copy of the project in one way at a time, and run its tests.

Each test of a mutation must fail with it, and all must pass without any. Ends with 0 if that is so, and with 1 if a
mutation survived or no longer fits the code. Nothing of the working tree is changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue

from .applying import ROOT, all_mutations, mutated, unfit
from .mutation import Mutation

#: Seconds for one test; each has its own limit of a minute.
_LIMIT = 150


def main() -> int:
    """Run what the command line names, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__.partition("\n\n")[2])
    parser.add_argument("names", nargs="*", metavar="AREA|NAME", help="which of them (default: all)")
    parser.add_argument("--list", action="store_true", help="print them, and run none")
    parser.add_argument("--check", action="store_true", help="only tell which no longer fit the code")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (%(default)s)")
    args = parser.parse_args()
    chosen = [
        (area, mutation)
        for area, mutations in all_mutations().items()
        for mutation in mutations
        if not args.names or area in args.names or mutation.name in args.names
    ]
    if not chosen:
        parser.error(f"no area and no mutation of the name {' or '.join(args.names)}")
    if args.list:
        for area, mutation in chosen:
            print(f"{area:10} {mutation.name}: {mutation.breaks}")
        return 0
    unfitting = [(area, mutation.name, why) for area, mutation in chosen if (why := unfit(mutation))]
    for area, name, why in unfitting:
        print(f"does not fit  {area}/{name}: {why}")
    if args.check or unfitting:
        print(f"{len(chosen) - len(unfitting)} of {len(chosen)} mutations fit the code")
        return 1 if unfitting else 0
    return _run_all(chosen, args.jobs)


def _run_all(chosen: list[tuple[str, Mutation]], jobs: int) -> int:
    started = time.monotonic()
    copies: SimpleQueue[Path] = SimpleQueue()
    with ExitStack() as stack:
        for _ in range(jobs):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gearman-pool-mutations-"))
            copies.put(_copy(Path(folder, "project")))
        named = sorted({test for _, mutation in chosen for test in mutation.tests})
        print(
            f"{len(chosen)} mutations; first the {len(named)} tests that they name, on the code as it is ...",
            flush=True,
        )
        with _borrowed(copies) as copy:
            done = _pytest(copy, ["-n", str(2 * jobs), *named], _LIMIT * len(named))
        if done.returncode:
            print(done.stdout)
            print("Tests that fail without any mutation prove nothing.")
            return 1
        survivors = 0
        with ThreadPoolExecutor(jobs) as threads:
            for line in threads.map(lambda pair: _run(copies, *pair), chosen):
                print(line, flush=True)
                survivors += not line.startswith("noticed")
    print(f"{len(chosen) - survivors} of {len(chosen)} noticed, in {time.monotonic() - started:.0f} s")
    return 1 if survivors else 0


def _copy(to: Path) -> Path:
    return Path(
        shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(".git", ".*venv*", "venv", "__pycache__", "build"))
    )


@contextmanager
def _borrowed(copies: SimpleQueue[Path]) -> Iterator[Path]:
    copy = copies.get()
    try:
        yield copy
    finally:
        copies.put(copy)


def _run(copies: SimpleQueue[Path], area: str, mutation: Mutation) -> str:
    """Run the tests of one mutation in a copy that has it; return what came of it as a line."""
    started = time.monotonic()
    with _borrowed(copies) as copy:
        path = copy / mutation.file
        path.write_text(mutated(mutation))
        try:
            codes = {test: _pytest(copy, [test], _LIMIT).returncode for test in mutation.tests}
        finally:
            shutil.copy2(ROOT / mutation.file, path)
    name, took = f"{area}/{mutation.name}", f"{time.monotonic() - started:.0f} s"
    if passed := [test for test, code in codes.items() if code == 0]:
        return f"SURVIVED  {name} ({took}): {', '.join(passed)} passed"
    # 1 is pytest's code for tests that failed; with others they did not even run.
    if broken := [f"{test} ({code})" for test, code in codes.items() if code != 1]:
        return f"BROKEN    {name} ({took}): pytest could not run {', '.join(broken)}"
    return f"noticed   {name} ({took})"


def _pytest(copy: Path, arguments: list[str], limit: float) -> subprocess.CompletedProcess[str]:
    # The copy comes before an installed package, also for the programs that tests start. Compiled modules are not
    # kept: a mutation can leave the size and the second of a file as they were.
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command,
        cwd=copy,
        env=environment,
        timeout=limit,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
