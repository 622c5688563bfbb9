"""Exact accounting: what each process says came of its jobs, against what the workers say they ran.

Every job of the task ``count`` has a number of its own. A load process appends an `Outcome` for each job to a file, and
a worker the number of each job that it runs, so that nothing grows in their memory; afterwards `judge` compares.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["ACCEPTED", "RIGHT", "SENT", "UNSENT", "WRONG", "Journal", "Ledger", "Outcome", "judge"]

#: A result came, and was the right one; or another one.
RIGHT, WRONG = 0, 1
#: An error came, and the job may have run (``maybe_sent``); or it cannot have.
SENT, UNSENT = 2, 3
#: A background job was accepted.
ACCEPTED = 4

_OUTCOME = struct.Struct("<QBBBd")
_NUMBER = struct.Struct("<Q")
_PROCESS_SHIFT = 40

#: How often a job may run that may be sent again twice.
_MOST_RUNS = 3

#: A background job that did not run must have been at a server that was killed at most so long after it was accepted,
#: in seconds: longer than a queue takes to empty, with the longest time that a server is stopped.
_QUEUED_FOR = 30.0

#: A job may be accepted, and its acceptance noted, so long after its server was killed, in seconds.
_NOTED_AFTER = 1.0


class Outcome(NamedTuple):
    """What came of a job; ``server`` and ``time`` matter to background jobs alone."""

    number: int
    what: int
    retries: int
    server: int
    time: float


class Journal:
    """Appends records to a file. From any thread: each record is one write."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def outcome(self, outcome: Outcome) -> None:
        """Note what came of a job."""
        os.write(self._file, _OUTCOME.pack(*outcome))

    def ran(self, number: int) -> None:
        """Note that a job is run."""
        os.write(self._file, _NUMBER.pack(number))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Ledger:
    """The files of a soak in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def outcomes_of(self, process: int) -> Journal:
        """The journal of what came of a process's jobs."""
        return Journal(self.directory / f"outcomes.{process}")

    def runs_of(self, worker: int) -> Journal:
        """The journal of what a worker ran."""
        return Journal(self.directory / f"runs.{worker}")

    def close_books(self, process: int, submitted: int) -> None:
        """Note how many jobs a process has submitted in all."""
        (self.directory / f"submitted.{process}").write_text(str(submitted))

    @staticmethod
    def number(process: int, job: int) -> int:
        """The number of a process's job; processes and jobs are counted from 0."""
        return process << _PROCESS_SHIFT | job


def _records(path: Path, form: struct.Struct) -> Iterator[tuple[int, ...]]:
    size = form.size * 4096
    with path.open("rb") as file:
        while chunk := file.read(size):
            yield from form.iter_unpack(chunk)


def judge(directory: Path, kills: Sequence[Sequence[float]]) -> tuple[Counter[str], list[str]]:
    """Compare everything; return figures, and a line for each kind of fault.

    Args:
        kills: For each server when it was killed, on the system's monotonic clock, in seconds.
    """
    figures: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    submitted = {
        int(path.suffix[1:]): int(path.read_text()) for path in directory.glob("submitted.*") if path.suffix[1:]
    }
    ran = {process: bytearray(count) for process, count in submitted.items()}
    told = {process: bytearray(count) for process, count in submitted.items()}

    def place(counts: dict[int, bytearray], number: int) -> int:
        process, job = number >> _PROCESS_SHIFT, number & ((1 << _PROCESS_SHIFT) - 1)
        try:
            counts[process][job] = min(255, counts[process][job] + 1)
        except (KeyError, IndexError):
            faults["a job that nobody submitted"] += 1
            return 0
        return ran[process][job]

    for path in directory.glob("runs.*"):
        for (number,) in _records(path, _NUMBER):
            place(ran, number)
            figures["runs"] += 1
    for path in directory.glob("outcomes.*"):
        for record in _records(path, _OUTCOME):
            outcome = Outcome(*record)
            _compare(outcome, place(told, outcome.number), kills, figures, faults)
    for process, counts in told.items():
        figures["submitted"] += submitted[process]
        faults["a job without an outcome"] += counts.count(0)
        faults["a job with more than one outcome"] += sum(count > 1 for count in counts)
    return figures, [f"{fault}: {count}" for fault, count in faults.items() if count]


def _compare(
    outcome: Outcome, runs: int, kills: Sequence[Sequence[float]], figures: Counter[str], faults: Counter[str]
) -> None:
    names = {RIGHT: "results", WRONG: "wrong", SENT: "errors, maybe sent", UNSENT: "errors, not sent"}
    figures[names.get(outcome.what, "accepted in the background")] += 1
    faults["a wrong result"] += outcome.what == WRONG
    faults["a job that was sent once and ran twice"] += runs > 1 and not outcome.retries
    faults["a job that ran more often than it may be sent"] += runs > _MOST_RUNS
    faults["a result of a job that did not run"] += outcome.what == RIGHT and not runs
    faults["a job that ran and was called not sent"] += outcome.what == UNSENT and runs > 0
    if runs > 1:
        figures["ran more than once, as retries may"] += 1
    if outcome.what == ACCEPTED and not runs:
        if _killed(kills[outcome.server], outcome.time):
            figures["background jobs lost with their server"] += 1
        else:
            faults["an accepted background job that did not run, though its server lived"] += 1


def _killed(kills: Sequence[float], accepted: float) -> bool:
    index = bisect_left(kills, accepted - _NOTED_AFTER)
    return index < len(kills) and kills[index] <= accepted + _QUEUED_FOR
