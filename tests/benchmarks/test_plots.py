"""The plots of the documentation can be measured and drawn."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from .measuring import measure
from .plots import OURS, PLOTS, Plot, measure_plot
from .rows import Effort
from .servers import ROOT


@pytest.mark.parametrize("plot", PLOTS, ids=[plot.name for plot in PLOTS])
def test_plot_has_a_line_of_ours_with_every_point(plot: Plot) -> None:
    short = replace(plot, points=plot.points[:2])
    results = measure(short.rows(), runs=1, effort=Effort(0.05, 0.1, 0.001))
    lines = measure_plot(short, results)
    assert [measured.ours.error for measured in results] == [None] * len(results)
    assert [x for x, _ in lines[OURS]] == list(short.points)
    assert all(y > 0 for line in lines.values() for _, y in line)


def test_plot_is_drawn_with_its_lines_named_and_each_time_the_same(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason='matplotlib is missing (pip install -e ".[docs]")')
    # In a process of its own, because matplotlib keeps its fonts open.
    program = (
        "import pathlib, sys; from tests.benchmarks.plots import *; "
        "[draw(PLOTS[0], {OURS: [(1, 10.0), (32, 20.0)], 'gear': [(1, 5.0)]}, pathlib.Path(name)) "
        "for name in sys.argv[1:]]"
    )
    paths = [tmp_path / "plot.svg", tmp_path / "again.svg"]
    subprocess.run([sys.executable, "-c", program, *map(str, paths)], cwd=ROOT, check=True, timeout=50)
    drawn, again = (path.read_text() for path in paths)
    assert OURS in drawn
    assert ">gear<" in drawn
    assert again == drawn
