"""``python -m tests.benchmarks.plots``: measures and draws the two plots of the documentation, as SVG.

Needs the extra [docs] for matplotlib, and what the benchmarks need: the peers of the extra [bench] and a C compiler.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measuring import Measured, measure, quiet
from .rows import Case, Effort, Row
from .servers import ROOT
from .table import machine

__all__ = ["OURS", "PLOTS", "Plot", "draw", "main", "measure_plot"]

#: What our line is called.
OURS = "gearman_pool, one shared client"

_COLOURS = {"gearman_pool": "#c2410c", "pygearman": "#1d4ed8", "gear": "#15803d", "a blocking socket": "#737373"}


@dataclass(frozen=True)
class Plot:
    """Lines over one setting of a work, by several drivers; each point is the median of its runs."""

    name: str
    title: str
    setting: str
    points: tuple[int, ...]
    case: Case
    peers: tuple[tuple[str, str], ...]
    metric: str
    unit: str
    #: What the numbers are divided by.
    scale: float = 1.0

    def rows(self) -> list[Row]:
        """What is measured: ours and each peer, at each point."""
        return [
            Row(f"{self.name} {point}", self.title, ours, _by(driver, ours), peer, self.metric, self.unit)
            for point in self.points
            for ours in [_with(self.case, self.setting, point)]
            for driver, peer in self.peers
        ]


def _with(case: Case, setting: str, value: int) -> Case:
    values: dict[str, Any] = {**vars(case), setting: value}
    return Case(**values)


def _by(driver: str, case: Case) -> Case:
    return Case(**{**vars(case), "driver": driver})


PLOTS = (
    Plot(
        "throughput",
        "Jobs per second over threads, one job at a time each",
        "threads",
        (1, 2, 4, 8, 16, 32),
        Case("ours", "shared"),
        (("peer_pygearman", "pygearman, a client per thread"), ("peer_gear", "gear, one shared client")),
        "rate",
        "jobs/s",
    ),
    Plot(
        "neighbours",
        "Median round trip beside CPU-bound threads in the same process",
        "neighbours",
        (0, 1, 2, 4),
        Case("ours", "alone"),
        (("peer_pygearman", "pygearman"), ("raw", "a blocking socket, by hand")),
        "p50",
        "ms",
        1000.0,
    ),
)


def measure_plot(plot: Plot, results: Sequence[Measured]) -> dict[str, list[tuple[int, float]]]:
    """The lines of a plot, by name, from the results of its rows. What is missing is left out."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for measured in results:
        point = getattr(measured.row.ours, plot.setting)
        for name, outcome in (
            ("gearman_pool, one shared client", measured.ours),
            (measured.row.peer_name, measured.peer),
        ):
            value = outcome.median(plot.metric) if outcome is not None else None
            line = lines.setdefault(name, [])
            if value is not None and (point, value / plot.scale) not in line:
                line.append((point, value / plot.scale))
    return {name: line for name, line in lines.items() if line}


def draw(plot: Plot, lines: dict[str, list[tuple[int, float]]], path: Path) -> None:
    """Write the plot."""
    import matplotlib as mpl

    mpl.use("svg")
    # Text stays text, and the same numbers give the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": plot.name, "font.family": "sans-serif"})
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for name, line in lines.items():
        colour = next((value for key, value in _COLOURS.items() if name.startswith(key)), None)
        xs, ys = zip(*line, strict=True)
        axes.plot([plot.points.index(x) for x in xs], ys, marker="o", color=colour, label=name)
    axes.set_xticks(range(len(plot.points)), [str(point) for point in plot.points])
    axes.set_xlabel({"threads": "threads", "neighbours": "CPU-bound threads beside the caller"}[plot.setting])
    axes.set_ylabel(plot.unit)
    axes.set_ylim(bottom=0)
    axes.set_title(plot.title, fontsize=11)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, draw and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.plots", description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="runs of each point (3)")
    parser.add_argument("--quick", action="store_true", help="short runs")
    parser.add_argument("--directory", type=Path, default=ROOT / "docs" / "images", help="where they go (docs/images)")
    options = parser.parse_args(arguments)
    effort = Effort(0.3, 0.5) if options.quick else Effort()
    options.directory.mkdir(parents=True, exist_ok=True)
    print(machine())
    for plot in PLOTS:
        lines = measure_plot(plot, measure(plot.rows(), runs=options.runs, effort=effort, progress=_progress()))
        draw(plot, lines, options.directory / f"{plot.name}.svg")
        print(f"{plot.title} ({plot.unit})")
        for name, line in lines.items():
            print(f"  {name}: " + ", ".join(f"{x}: {y:,.4g}" for x, y in line))
    return 0


def _progress() -> Any:
    if not sys.stderr.isatty():
        return quiet
    return lambda text: print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
