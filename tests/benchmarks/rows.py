"""The rows of the table: what each measures, against which peer, and the target."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .servers import NEVER

__all__ = ["ROWS", "Case", "Effort", "Row"]


@dataclass(frozen=True)
class Effort:
    """How much each run does. ``scale`` shrinks what is counted, ``seconds`` is the length of what is timed."""

    seconds: float = 2.0
    seconds_with_neighbours: float = 4.0
    scale: float = 1.0

    def count(self, full: int) -> int:
        """Of a full run's number of jobs, that of this one."""
        return max(100, round(full * self.scale))


@dataclass(frozen=True)
class Case:
    """One work by one driver on one kind of server. ``count``, ``size`` and ``lag`` shrink with the effort."""

    driver: str
    work: str
    server: str = "instant"
    servers: int = 1
    lag: int = 0
    threads: int = 1
    neighbours: int = 0
    window: int = 1000
    count: int = 0
    size: int = 0
    prefetch: int = 0
    #: How the work is done, if it knows several ways.
    variant: str = ""

    def settings(self, effort: Effort) -> dict[str, float | str]:
        """What `tests.benchmarks.run_one` is told."""
        seconds = effort.seconds_with_neighbours if self.neighbours else effort.seconds
        settings: dict[str, float | str] = {
            "seconds": seconds,
            "threads": self.threads,
            "neighbours": self.neighbours,
            "window": self.window,
        }
        if self.variant:
            settings["variant"] = self.variant
        if self.count:
            settings["count"] = effort.count(self.count)
        if self.prefetch:
            settings["prefetch"] = self.prefetch
        if self.size:
            settings["size"] = max(64 * 1024, round(self.size * effort.scale))
        return settings

    def lag_for(self, effort: Effort) -> int:
        """The server's lag (see `InstantServer`)."""
        return effort.count(self.lag) if self.lag > 0 else self.lag


@dataclass(frozen=True)
class Row:
    """Ours and, if there is one, a peer; ``metric`` names the number to compare and ``unit`` its unit.

    ``at_least`` or ``at_most`` is the target for the ratio ours / peer, or for our number itself without a peer; a row
    with neither is there for orientation.
    """

    name: str
    what: str
    ours: Case
    peer: Case | None
    peer_name: str
    metric: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """The target as text."""
        unit = "x" if self.peer else f" {self.unit}".rstrip()
        if self.at_least is not None:
            return f">= {self.at_least:g}{unit}"
        return "" if self.at_most is None else f"<= {self.at_most:g}{unit}"

    def verdict(self, value: float | None) -> str:
        """``pass``, ``short``, or nothing where a number or a target is missing."""
        if value is None or (self.at_least is None and self.at_most is None):
            return ""
        enough = (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)
        return "pass" if enough else "short"


def _rows() -> tuple[Row, ...]:
    bulk = Case("ours", "bulk")
    callers = Case("ours", "shared", threads=32)
    busy = replace(callers, threads=16, neighbours=1)
    crowded = replace(busy, neighbours=4)
    alone = Case("ours", "alone")
    alone_busy = replace(alone, neighbours=1)
    background = Case("ours", "background", server="gearmand", count=100_000)
    drain = Case("ours", "drain", server="gearmand", count=20_000)
    prefetching = replace(drain, prefetch=16)
    by_c = replace(drain, driver="libgearman")
    megabyte = Case("ours", "payload", size=2**20)
    large = replace(megabyte, size=2**26)

    cost = Case("ours", "cost")
    startup = Case("ours", "startup")

    def by(driver: str, case: Case) -> Case:
        return replace(case, driver=driver)

    def jobs(name: str, what: str, ours: Case, driver: str, peer_name: str, target: float | None) -> Row:
        return Row(name, what, ours, by(driver, ours), peer_name, "rate", "jobs/s", at_least=target)

    def trips(name: str, what: str, ours: Case, driver: str, peer_name: str, target: float | None) -> Row:
        return Row(name, what, ours, by(driver, ours), peer_name, "p50", "us", at_most=target)

    def costs(name: str, what: str, **changes: object) -> Row:
        ours = replace(cost, **changes)  # type: ignore[arg-type]
        return Row(name, f"CPU per job: {what}", ours, cost, "itself, without", "cost", "us")

    return (
        jobs("P1", "1 thread, 1,000 in flight", bulk, "libgearman", "libgearman run_tasks", 1.0),
        jobs("P1b", "1 thread, 1,000 in flight", bulk, "peer_pygearman", "pygearman batches", 2.0),
        jobs("P1c", "1 thread, 1,000 in flight", bulk, "peer_gear", "gear", 10.0),
        jobs("P1d", "1 thread, 1,000 in flight", bulk, "php", "php-gearman run_tasks", None),
        jobs("P2", "32 threads, one client", callers, "peer_pygearman", "pygearman, a client per thread", 4.0),
        jobs("P2b", "32 threads, one client", callers, "peer_gear", "gear, one client", 2.0),
        trips("P3", "1 job at a time, p50", alone, "raw", "blocking socket", 1.25),
        trips("P3b", "1 job at a time, p50", alone, "peer_pygearman", "pygearman", 0.8),
        trips("P3c", "1 job at a time, p50", alone, "php", "php-gearman", None),
        jobs("P4", "16 threads + 1 CPU-bound", busy, "peer_pygearman", "pygearman, a client per thread", 1.8),
        jobs("P4c", "16 threads + 4 CPU-bound", crowded, "peer_pygearman", "pygearman, a client per thread", 1.0),
        jobs("P4d", "16 threads + 1 CPU-bound", busy, "raw", "a blocking socket per thread", None),
        trips("P4b", "1 at a time + 1 CPU-bound, p50", alone_busy, "peer_pygearman", "pygearman", 0.6),
        jobs("P5", "background jobs, gearmand", background, "raw", "raw pipelined packets", 0.5),
        Row(
            "P6",
            "memory of a job in flight",
            Case("ours", "memory", lag=NEVER, count=100_000),
            None,
            "",
            "kilobytes",
            "KB",
            at_most=2.0,
        ),
        Row("P7", "worker drains 20,000 jobs, gearmand", drain, by_c, "libgearman worker", "rate", "jobs/s", 0.9),
        Row("P7b", "the same with prefetch=16", prefetching, by_c, "libgearman worker", "rate", "jobs/s", 4.0),
        Row(
            "P8",
            "idle, 3 servers: wake-ups",
            Case("ours", "idle", servers=3),
            None,
            "",
            "wakeups",
            "",
            at_most=0,
        ),
        Row("P9", "payloads of 1 MiB", megabyte, by("raw", megabyte), "raw socket", "megabytes", "MB/s", at_least=0.7),
        Row("P9b", "payloads of 64 MiB", large, by("raw", large), "raw socket", "megabytes", "MB/s", at_least=0.7),
        Row(
            "P9c",
            "copies of a 64 MiB payload",
            Case("ours", "copies", size=2**26),
            None,
            "",
            "copies",
            "",
            at_most=3.01,  # three, and what a job takes besides
        ),
        Row(
            "P10",
            "CPU per job, 100,000 in flight",
            Case("ours", "growth", lag=100_000, count=100_000),
            Case("ours", "growth", lag=100, count=100),
            "itself, 100 in flight",
            "cost",
            "us",
            at_most=1.3,
        ),
        Row(
            "A1",
            "objects of a job in flight",
            Case("ours", "memory", lag=NEVER, count=100_000, variant="objects"),
            None,
            "",
            "objects",
            "",
        ),
        Row("U1", "import", startup, by("peer_pygearman", startup), "pygearman", "imported", "ms"),
        Row("U2", "import, connect, first result", startup, by("peer_pygearman", startup), "pygearman", "first", "ms"),
        costs("C1", "three servers", servers=3),
        costs("C2", "four connections", variant="connections"),
        costs("C3", "a listener", variant="listener"),
        costs("C4", "a done callback", variant="callback"),
        costs("C5", "timeout=60", variant="timeout"),
        costs("C6", "a unique of one's own", variant="unique"),
        costs("C7", "JSON both ways", variant="json"),
        costs("C8", "TLS", variant="tls", server="tls"),
    )


#: All rows, in the table's order.
ROWS = _rows()
