"""Runs the cases of some rows in turns, each run in a process of its own, and keeps all numbers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .rows import Case, Effort, Row
from .run_one import NOT_INSTALLED
from .servers import ROOT, Missing, Programs, php, queue_jobs, start_servers

__all__ = ["Measured", "Outcome", "measure", "quiet"]

#: Beyond what a run is to take, for starting, warming up and giving up.
_PATIENCE = 120.0


@dataclass
class Outcome:
    """The numbers of a case's runs, and why there are none or fewer."""

    runs: list[dict[str, float]] = field(default_factory=list)
    #: What is not installed; the case is then skipped.
    missing: str | None = None
    #: What went wrong; the case is then not run again.
    error: str | None = None

    @property
    def over(self) -> bool:
        """Whether there is no use in running it again."""
        return self.missing is not None or self.error is not None

    def median(self, metric: str) -> float | None:
        """The median of a number over all runs, or None if a run failed or none took place."""
        return median(run[metric] for run in self.runs) if self.runs and not self.over else None


@dataclass(frozen=True)
class Measured:
    """A row and what came of it."""

    row: Row
    ours: Outcome
    peer: Outcome | None

    @property
    def value(self) -> float | None:
        """The ratio of the medians, or our median where there is no peer; None if something is missing for it."""
        ours = self.ours.median(self.row.metric)
        if self.peer is None or ours is None:
            return ours
        peer = self.peer.median(self.row.metric)
        return ours / peer if peer else None

    @property
    def verdict(self) -> str:
        """``pass``, ``short``, ``failed``, ``skipped`` or nothing."""
        outcomes = [outcome for outcome in (self.ours, self.peer) if outcome is not None]
        if any(outcome.error for outcome in outcomes):
            return "failed"
        if any(outcome.missing for outcome in outcomes):
            return "skipped"
        return self.row.verdict(self.value)

    @property
    def notes(self) -> list[str]:
        """Why numbers are missing."""
        sides = [("ours", self.ours), (self.row.peer_name, self.peer)]
        return [f"{name}: {text}" for name, o in sides if o is not None for text in (o.missing, o.error) if text]


def quiet(text: str) -> None:
    """Take progress and do nothing with it."""


def measure(
    rows: Sequence[Row],
    *,
    runs: int = 5,
    effort: Effort | None = None,
    peer_python: str | None = None,
    programs: Programs | None = None,
    progress: Callable[[str], object] = quiet,
) -> list[Measured]:
    """Run all cases of the rows ``runs`` times and return the rows with their numbers.

    Cases that are compared run directly after each other, in turns (A B A B); one that several rows share runs once a
    turn. What fails or is not installed is told in the outcomes, never raised.

    Args:
        peer_python: The interpreter of the peers; the one that runs this if None.
        programs: Where compiled programs are kept; a new directory, removed at the end, if None.
        progress: Called with a line for each run.
    """
    outcomes: dict[Case, Outcome] = {}
    with ExitStack() as stack:
        if programs is None:
            programs = stack.enter_context(Programs())
        runner = _Runner(programs, effort or Effort(), peer_python or sys.executable)
        for cases in _groups(rows):
            for turn in range(runs):
                for case in cases:
                    outcome = outcomes.setdefault(case, Outcome())
                    if not outcome.over:
                        progress(f"run {turn + 1} of {runs}: {case.work} by {case.driver}")
                        runner.run(case, outcome)
    return [Measured(row, outcomes[row.ours], outcomes[row.peer] if row.peer else None) for row in rows]


def _groups(rows: Sequence[Row]) -> list[list[Case]]:
    """The cases that belong together: those of all rows with the same case of ours, each once."""
    groups: dict[Case, list[Case]] = {}
    for row in rows:
        group = groups.setdefault(row.ours, [row.ours])
        if row.peer is not None and row.peer not in group:
            group.append(row.peer)
    return list(groups.values())


class _Runner:
    def __init__(self, programs: Programs, effort: Effort, peer_python: str) -> None:
        self._programs = programs
        self._effort = effort
        self._peer_python = peer_python

    def run(self, case: Case, outcome: Outcome) -> None:
        """Run a case once on fresh servers."""
        try:
            with ExitStack() as stack:
                ports = start_servers(stack, self._programs, case.server, case.servers, case.lag_for(self._effort))
                if case.work == "drain":
                    queue_jobs(ports[0], int(case.settings(self._effort)["count"]))
                outcome.runs.append(self._numbers(self._command(case, ports), case))
        except Missing as error:
            outcome.missing = str(error)
        except (OSError, RuntimeError, ValueError, AssertionError, subprocess.SubprocessError) as error:
            outcome.error = str(error)

    def _command(self, case: Case, ports: list[int]) -> list[str]:
        settings = case.settings(self._effort)
        if case.driver == "libgearman" and case.work == "drain":
            return [str(self._programs.get("drain_jobs", "gearman")), str(ports[0]), str(settings["count"])]
        if case.driver == "libgearman":
            program = str(self._programs.get("run_tasks", "gearman"))
            return [program, *map(str, ports), str(settings["seconds"]), str(case.window)]
        if case.driver == "php":
            program = str(Path(__file__).with_name("run_tasks.php"))
            return [php(), program, case.work, *map(str, ports), str(settings["seconds"]), str(case.window)]
        python = self._peer_python if case.driver.startswith("peer_") else sys.executable
        options = [f"{name}={value}" for name, value in settings.items()]
        return [python, "-m", f"{__package__}.run_one", case.driver, case.work, ",".join(map(str, ports)), *options]

    def _numbers(self, command: list[str], case: Case) -> dict[str, float]:
        limit = 2 * float(case.settings(self._effort)["seconds"]) + _PATIENCE
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
        )
        complaint = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if done.returncode == NOT_INSTALLED:
            if case.driver == "ours":
                raise RuntimeError(complaint)
            raise Missing(f"not installed ({complaint})")
        if done.returncode:
            raise RuntimeError(f"exit status {done.returncode}: {complaint}")
        numbers: dict[str, float] = json.loads(done.stdout)
        if not all(math.isfinite(number) for number in numbers.values()):
            raise ValueError(f"strange numbers: {numbers}")
        return numbers
