"""The load of a run, and the clocks and threads that all drivers measure with."""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from time import perf_counter, sleep

__all__ = [
    "HOST",
    "PAYLOAD",
    "TASK",
    "Load",
    "Numbers",
    "Work",
    "alone",
    "check",
    "neighbours",
    "rate",
    "shared",
    "startup",
]

HOST = "127.0.0.1"
TASK = "echo"
PAYLOAD = b"hello"

#: Seconds between the calls of a thread that has CPU-bound neighbours.
_PAUSE = 0.001

#: What a run prints as JSON.
Numbers = dict[str, float]


@dataclass(frozen=True)
class Load:
    """How much a run does, and against which servers."""

    ports: tuple[int, ...]
    seconds: float = 1.0
    count: int = 1000
    size: int = 1024
    window: int = 1000
    threads: int = 1
    neighbours: int = 0
    prefetch: int = 0
    variant: str = ""

    @property
    def port(self) -> int:
        """The port of the only server."""
        (port,) = self.ports
        return port

    @property
    def address(self) -> str:
        """The only server as ``host:port``."""
        return f"{HOST}:{self.port}"


Work = Callable[[Load], Numbers]


def check(result: object, payload: bytes = PAYLOAD) -> None:
    """Stop the run if a job came back with what is not its payload."""
    if result != payload:
        raise AssertionError(f"a job's result is {str(result)[:100]!r}, which is not its payload")


def rate(jobs: int, seconds: float) -> Numbers:
    """The numbers of a run that counted jobs."""
    return {"rate": jobs / seconds, "jobs": jobs, "seconds": seconds}


def _render_page(number: int) -> str:
    """What a template engine does: loops, look-ups, escaping, joining. Plain Python, so the GIL is held throughout."""
    rows = []
    for row in range(100):
        record = {"id": row, "name": f"<name {row}>", "total": row * number % 97}
        cells = [f"<td>{html.escape(str(record[column]))}</td>" for column in ("id", "name", "total")]
        rows.append(f'<tr class="{"odd" if row % 2 else "even"}">{"".join(cells)}</tr>')
    return f"<table>{''.join(rows)}</table>"


@contextmanager
def neighbours(count: int) -> Iterator[Callable[[], float]]:
    """Threads that render pages meanwhile; yields a function that tells how many pages a second they made so far."""
    stopped = False
    pages = [0] * count

    def render(index: int) -> None:
        while not stopped:
            _render_page(pages[index])
            pages[index] += 1

    threads = [threading.Thread(target=render, args=(index,), daemon=True) for index in range(count)]
    start = perf_counter()
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(pages) / (perf_counter() - start)
    finally:
        stopped = True
        for thread in threads:
            thread.join()


def alone(call: Callable[[], object], load: Load) -> Numbers:
    """One caller, one job at a time: the round trips' percentiles in microseconds.

    Beside CPU-bound neighbours the caller sleeps between its calls, as a thread does that waits for requests: each call
    then meets a neighbour that holds the GIL. Calls without a pause come in bursts that a neighbour now and then sleeps
    through, and many fast ones outweigh the slow ones in a median of calls, though next to no time was spent in them.
    """
    for _ in range(20):
        check(call())
    with neighbours(load.neighbours) as pages:
        times = []
        end = perf_counter() + load.seconds
        before = perf_counter()
        while before < end:
            check(call())
            times.append(perf_counter() - before)
            if load.neighbours:
                sleep(_PAUSE)
            before = perf_counter()
        rendered = pages()
    tail = quantiles(times, n=100)[98] if len(times) > 1 else times[0]
    return {"p50": median(times) * 1e6, "p99": tail * 1e6, "jobs": len(times), "pages": rendered}


def shared(call_for: Callable[[int], Callable[[], object]], load: Load) -> Numbers:
    """Some threads, each with one job at a time: jobs a second of all, and their median round trip.

    ``call_for(number)`` gives a thread what it calls. A call that ends after the time is not counted.
    """
    barrier = threading.Barrier(load.threads + 1)
    times: list[list[float]] = [[] for _ in range(load.threads)]
    errors: list[BaseException] = []
    clock = {"end": 0.0}

    def run(number: int) -> None:
        try:
            call = call_for(number)
            for _ in range(3):
                check(call())
            barrier.wait()  # all are connected and warm
            barrier.wait()  # and the neighbours run
            mine, end = times[number], clock["end"]
            before = perf_counter()
            while True:
                check(call())
                after = perf_counter()
                if after > end:
                    break
                mine.append(after - before)
                before = after
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(load.threads)]
    for thread in threads:
        thread.start()
    try:
        barrier.wait(60.0)
        with neighbours(load.neighbours) as pages:
            clock["end"] = perf_counter() + load.seconds
            barrier.wait(60.0)
            for thread in threads:
                thread.join(load.seconds + 60.0)
            rendered = pages()
    except threading.BrokenBarrierError:
        pass
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])
    if any(thread.is_alive() for thread in threads):
        raise TimeoutError("a thread still waits for its job, a minute after the run's time")
    everything = [time for mine in times for time in mine]
    p50 = median(everything) * 1e6 if everything else load.seconds * 1e6
    return {**rate(len(everything), load.seconds), "p50": p50, "pages": rendered}


def startup(program: str, load: Load) -> Numbers:
    """A fresh interpreter that imports a client and does a job with it: milliseconds to the import, and to the result.

    ``program`` is Python with ``ADDRESS`` in it: an import, a line of ``---``, and what does the job.
    """
    imports, _, job = program.replace("ADDRESS", repr(load.address)).partition("---\n")
    timed = (
        "import json, time\nstart = time.perf_counter()\n"
        f"{imports}imported = time.perf_counter()\n{job}first = time.perf_counter()\n"
        "print(json.dumps({'imported': (imported - start) * 1e3, 'first': (first - start) * 1e3}))"
    )
    # Compiled once, as what is installed is.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", timed]
    subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    runs = []
    end = perf_counter() + load.seconds
    while not runs or perf_counter() < end:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
        runs.append(json.loads(done.stdout))
    return {name: median(run[name] for run in runs) for name in ("imported", "first")}
