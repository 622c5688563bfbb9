"""Promise F14; see the package's text."""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gearman_pool import GearmanAdminClient
from gearman_pool.errors import GearmanError

from ...support.gearmand import Gearmand
from ...support.waiting import wait_until
from ...support.workers import CWorker
from .accounting import judge
from .chaos import Chaos
from .processes import LoadProcess, flat, worker_process

__all__ = ["Report", "main", "soak"]

_SERVERS = 3
_LOADS = 2

#: How many jobs at a time each of our worker processes does.
_WORKERS = (1, 4)

_SAMPLES_EVERY = 1.0
_LINES_EVERY = 10.0

Report = dict[str, Any]


def soak(seconds: float, seed: int, progress: bool = True) -> Report:
    """Run it; the report's ``faults`` are empty if every promise was kept."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gearman_pool-soak-")))
        servers = [stack.enter_context(Gearmand()) for _ in range(_SERVERS)]
        addresses = [server.address for server in servers]
        stack.enter_context(CWorker(servers))
        workers = [worker_process(directory, n, concurrency, addresses) for n, concurrency in enumerate(_WORKERS)]
        for worker in workers:
            stack.callback(_end_worker, worker)
        wait_until(lambda: all(_able(address) for address in addresses), 30, message="the workers")
        loads = [LoadProcess(directory, number, seed, addresses) for number in range(_LOADS)]
        for load in loads:
            stack.callback(load.close)
        chaos = Chaos(servers, seed)
        chaos.start()
        started = time.monotonic()
        try:
            _watch(loads, chaos, started, seconds, progress)
        finally:
            chaos.end()
        took = time.monotonic() - started
        for load in loads:
            load.end()
        for load in loads:
            _wait(load)
        wait_until(lambda: all(_queued(address) == 0 for address in addresses), 60, message="empty queues")
        statuses = [_end_worker(worker) for worker in workers]
        figures, faults = judge(directory, chaos.kills)
    counts = sum((load.counts for load in loads), Counter())
    faults += [f"{fault}: {count}" for load in loads for fault, count in load.faults.items()]
    faults += [f"a worker ended with {status}" for status in statuses if status]
    faults += [f"a server could not be troubled: {failure!r}" for failure in chaos.failures]
    growth = []
    for load in loads:
        grown, complaints = flat(load.samples)
        growth.append(grown)
        faults += complaints
    return {
        "seconds": round(took, 1),
        "seed": seed,
        "servers": dict(chaos.done),
        "jobs": counts["jobs"],
        "accounted": dict(figures),
        "counts": dict(sorted(counts.items())),
        "growth": growth,
        "faults": faults,
    }


def _watch(loads: list[LoadProcess], chaos: Chaos, started: float, seconds: float, progress: bool) -> None:
    line = started + _LINES_EVERY
    while (now := time.monotonic()) < started + seconds:
        samples = [load.sample() for load in loads]
        if now >= line and progress:
            line += _LINES_EVERY
            counts = sum((load.counts for load in loads), Counter())
            memory = "+".join(f"{sample['memory'] / 1e6:.0f}" for sample in samples)
            descriptors = "+".join(str(sample["descriptors"]) for sample in samples)
            print(
                f"{now - started:6.0f} s  {counts['jobs']:9,} jobs ({counts['jobs'] / (now - started):,.0f}/s)  "
                f"{dict(chaos.done)}  lost {counts['ConnectionLost']:,}  {memory} MB  {descriptors} descriptors  "
                f"faults {_total(loads)}",
                flush=True,
            )
        time.sleep(_SAMPLES_EVERY)


def _total(loads: list[LoadProcess]) -> int:
    return sum(sum(load.faults.values()) for load in loads)


def _wait(load: LoadProcess) -> None:
    try:
        load.wait(300)
    except subprocess.TimeoutExpired:
        load.faults["a load process does not end"] += 1


def _end_worker(worker: subprocess.Popen[str]) -> int:
    if worker.poll() is None:
        worker.send_signal(signal.SIGTERM)
    try:
        return worker.wait(40)
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.wait()


def _status(address: str) -> dict[str, dict[str, Any]]:
    try:
        with GearmanAdminClient([address], poll_timeout=5) as admin:
            return {row["task"]: dict(row) for row in admin.get_status()}
    except GearmanError:
        return {}


def _able(address: str) -> bool:
    return _status(address).get("count", {}).get("workers", 0) >= len(_WORKERS)


def _queued(address: str) -> int | None:
    status = _status(address)
    return status["count"]["queued"] if "count" in status else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it, print the report and return the exit status: 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.soak",
        description="Mixed load from threads and processes while servers are killed, stopped and restarted at random; "
        "every job is accounted for. Needs gearmand and a C compiler with libgearman. Exit status 1 if anything is "
        "lost, doubled, wrong, hung or growing.",
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (1)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the randomness")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report there too")
    options = parser.parse_args(arguments)
    if options.minutes <= 0:
        parser.error("--minutes takes more than 0")
    try:
        report = soak(options.minutes * 60, options.seed)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if report["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
