"""``gearman-pool demo``: servers, workers and one client for all threads, and a server that goes down among it.

The main thread draws, and takes the server down; what works and waits stands in `demo_work`. The demo never talks with
other servers than its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from ... import GearmanClient
from ..exits import FAILED, OK, CommandError
from ..servers import positive
from ..terminal.output import has_rich, print_json
from ..terminal.progress import JobProgress, bar
from .demo_work import Crowd, library_files, start_worker

if TYPE_CHECKING:
    from ...testing import EmbeddedServer

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show it all at work: servers, workers, threads, and a failover"

EPILOG = """\
Needs no server: it starts two of its own. Exit code 1 if any job was lost or any answer was wrong.
"""

_WORKERS = 3
_THREADS = 16
_FILES = 300

#: The parts of the time at which a server goes down, and comes back.
_DOWN = 0.35
_BACK = 0.7

_TICK = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument(
        "--seconds", type=positive, default=6.0, help="how long the threads work (default: %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from ...testing import EmbeddedServer

    say: Callable[[str], object] = (lambda _text: None) if args.json else _say
    files = library_files(_FILES)
    if not files:
        raise CommandError("this Python has its library in no folder, and the demo counts the words of that")
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer()) for _ in range(2)]
        addresses = [server.address for server in servers]
        say(f"Two job servers: {addresses[0]} and {addresses[1]}.")
        _start_workers(stack, addresses)
        say(f"{_WORKERS} workers for both, and one client that {_THREADS} threads share.\n")
        client = GearmanClient(addresses, policy="round_robin", max_retries=5, reconnect_backoff=(0.05, 0.5))
        stack.callback(client.close, 0)
        _survey(client, files, say, args.json)
        crowd = Crowd(client, [path.read_bytes() for path in files], _THREADS)
        stack.callback(crowd.end)
        summary = _failover(crowd, client, servers[0], args.seconds, say, args.json)
    return _report(summary, crowd, args.json)


def _say(text: str) -> None:
    print(text, flush=True)


def _start_workers(stack: ExitStack, addresses: list[str]) -> None:
    started = [start_worker(addresses, number + 1) for number in range(_WORKERS)]
    for worker, thread in started:
        stack.callback(thread.join)
        stack.callback(worker.stop, 1.0)
    for worker, _ in started:
        worker.ready.wait(5)


def _survey(client: GearmanClient, files: list[Path], say: Callable[[str], object], quiet: bool) -> None:
    """Run one job that streams what it finds."""
    say(f"One job goes through {len(files)} files of the standard library, and streams the longest so far:")
    future = client.submit("survey", "\n".join(map(str, files)), timeout=30)
    with JobProgress("survey", not quiet) as progress:
        for update in future.updates():
            if update.kind == "status":
                progress.update(update.numerator, update.denominator)
            else:
                text = update.data.decode()
                progress.aside(lambda text=text: say(f"  {text}"))  # type: ignore[misc]
    say("")


@dataclass(frozen=True)
class _Summary:
    seconds: float
    jobs: int
    wrong: int
    failed: int
    retried: int
    jobs_hit: int
    longest: float

    @property
    def per_second(self) -> float:
        return self.jobs / self.seconds if self.seconds else 0.0


def _failover(
    crowd: Crowd,
    client: GearmanClient,
    server: EmbeddedServer,
    seconds: float,
    say: Callable[[str], object],
    quiet: bool,
) -> _Summary:
    """Have the threads work while a server goes down and comes back."""
    say(f"{_THREADS} threads count the words of these files, for {seconds:g} seconds:")
    hit = 0
    crowd.start()
    started = monotonic()
    with _drawing(crowd, seconds, quiet) as draw:
        _draw_until(draw, started, seconds * _DOWN)
        hit = sum(info.in_flight for info in client.servers() if info.address == server.address)
        address = server.address
        server.stop()
        draw(monotonic() - started, f"{address} is killed with {hit} jobs in flight")
        _draw_until(draw, started, seconds * _BACK)
        server.start()
        draw(monotonic() - started, f"{address} is back, and is used again")
        _draw_until(draw, started, seconds)
        crowd.end()
        took = monotonic() - started
        draw(took, "")
    stats = client.stats()
    return _Summary(took, crowd.done, crowd.wrong, crowd.failed, stats.jobs_retried, hit, crowd.longest)


def _draw_until(draw: Callable[[float, str], object], started: float, end: float) -> None:
    while (elapsed := monotonic() - started) < end:
        draw(elapsed, "")
        sleep(min(_TICK, max(0.0, end - elapsed)))


@contextmanager
def _drawing(crowd: Crowd, seconds: float, quiet: bool) -> Iterator[Callable[[float, str], object]]:
    """Give a function that draws how far the threads have come, and says what has happened."""
    if quiet:
        yield lambda _elapsed, _text: None
    elif has_rich(sys.stdout):
        yield from _drawing_rich(crowd, seconds)
    else:
        yield _PlainDrawing(crowd, seconds)


def _drawing_rich(crowd: Crowd, seconds: float) -> Iterator[Callable[[float, str], object]]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("  word counts"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*columns) as progress:
        task: Any = progress.add_task("", total=seconds, text="")

        def draw(elapsed: float, text: str) -> None:
            if text:
                progress.console.print(f"  {elapsed:4.1f} s: {text}", highlight=False, markup=False)
            rate = crowd.done / elapsed if elapsed else 0.0
            progress.update(task, completed=elapsed, text=f"{crowd.done} jobs, {rate:.0f}/s, {crowd.failed} lost")

        yield draw
        progress.update(task, completed=seconds)


class _PlainDrawing:
    """Draws a line each second."""

    def __init__(self, crowd: Crowd, seconds: float) -> None:
        self._crowd = crowd
        self._seconds = seconds
        self._next = 1.0

    def __call__(self, elapsed: float, text: str) -> None:
        if text:
            _say(f"  {elapsed:4.1f} s: {text}")
        elif elapsed >= self._next:
            self._next += 1.0
            share = min(1.0, elapsed / self._seconds)
            _say(f"  {elapsed:4.1f} s: {bar(share, 20)} {self._crowd.done} jobs, {self._crowd.failed} lost")


def _report(summary: _Summary, crowd: Crowd, as_json: bool) -> int:
    right = summary.jobs - summary.wrong - summary.failed
    good = right == summary.jobs > 0
    if as_json:
        print_json(
            {
                "seconds": round(summary.seconds, 3),
                "jobs": summary.jobs,
                "right": right,
                "wrong": summary.wrong,
                "lost": summary.failed,
                "sent_again": summary.retried,
                "in_flight_when_killed": summary.jobs_hit,
                "longest_seconds": round(summary.longest, 3),
                "jobs_per_second": round(summary.per_second, 1),
                "errors": crowd.errors,
            }
        )
        return OK if good else FAILED
    verdict = "all answers right" if good else f"{summary.wrong} answers wrong, {summary.failed} jobs lost"
    _say(f"\n{summary.jobs} jobs, {verdict}; {summary.retried} were sent again after the server was killed.")
    _say(f"{summary.per_second:.0f} jobs/s; the longest took {summary.longest * 1000:.0f} ms.")
    for error in crowd.errors:
        _say(f"  {error}")
    return OK if good else FAILED
