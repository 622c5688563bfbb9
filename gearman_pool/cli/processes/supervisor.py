"""Keeps a number of worker processes running: replaces the dead, forwards signals, reloads.

The main thread does all of this, and any thread may read the snapshot. The supervisor never imports the user's code,
and never talks with a Gearman server: its processes do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from ..exits import FAILED, OK, USAGE, CommandError
from .reports import COUNTERS, Report
from .signals import Wakeups, handling
from .worker_process import WorkerProcess

__all__ = ["Snapshot", "Supervisor"]

log: logging.Logger = logging.getLogger("gearman_pool.cli")

#: Seconds. A process that ends sooner than this, and has done no job, has failed to start.
_SHORT_LIFE = 5.0

#: Seconds before the second process in a row that fails to start is replaced, doubled each time, and the most.
_BACKOFF = (0.5, 30.0)

#: Seconds between two turns of the loop, unless something happens.
_INTERVAL = 0.5


@dataclass(frozen=True)
class Snapshot:
    """How all processes stand together. Never changed: other threads may read it."""

    time: float = 0.0
    stopping: bool = False
    wanted: int = 0
    running: int = 0
    ready: int = 0
    held: int = 0
    servers_up: int = 0
    restarts: int = 0
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))


@dataclass
class _Slot:
    """A place for a process. ``due``: when to start the next one; ``failures``: how many in a row failed to start."""

    process: WorkerProcess | None = None
    due: float = 0.0
    failures: int = 0


class Supervisor:
    """Keeps processes running until a signal comes. Used by the main thread; `snapshot` may be read by any.

    SIGTERM or SIGINT has the processes finish their jobs; a second one kills them. SIGHUP replaces them, one by one as
    they finish.

    Args:
        arguments: The command line of each process, from the subcommand on.
        processes: How many.
        max_jobs: After how many jobs a process ends by itself, if it does.
        reload: Whether to replace them when a file of theirs changes.
    """

    def __init__(self, arguments: Sequence[str], processes: int, max_jobs: int | None, reload: bool) -> None:
        self.snapshot: Snapshot = Snapshot(time=monotonic(), wanted=processes)
        self._arguments = list(arguments)
        self._slots = [_Slot() for _ in range(processes)]
        self._max_jobs = max_jobs
        self._watch = _Files() if reload else None
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._reload_asked = False
        self._stopping = False
        self._killed_by: int | None = None
        self._unclean = 0
        self._restarts = 0
        self._was_ready = False
        self._past: Counter[str] = Counter()

    def run(self) -> int:
        """Run until all processes have ended after a signal, and return the exit code.

        Raises:
            CommandError: the first processes cannot work at all, and say why.
        """
        handlers: dict[int, Callable[[int, Any], object]] = {
            signal.SIGTERM: self._on_signal,
            signal.SIGINT: self._on_signal,
            signal.SIGHUP: self._on_hangup,
            signal.SIGCHLD: lambda *_: None,  # to be woken
        }
        with self._selector, handling(handlers), Wakeups(self._selector) as wakeups:
            try:
                while not (self._stopping and self._living() == 0):
                    wakeups.drain()
                    self._turn()
            finally:
                self._end()
        if self._killed_by is not None:
            return 128 + self._killed_by
        return FAILED if self._unclean else OK

    def _on_signal(self, number: int, _frame: object) -> None:
        self._signals.append(number)

    def _on_hangup(self, *_: object) -> None:
        self._reload_asked = True

    def _living(self) -> int:
        return sum(slot.process is not None for slot in self._slots)

    # ---- one turn --------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._obey_signals()
        for number, slot in enumerate(self._slots):
            if slot.process is not None:
                self._look_at(slot, slot.process)
            if slot.process is None and not self._stopping and monotonic() >= slot.due:
                self._start(number, slot)
        self._reload_if_changed()
        self._take_snapshot()
        self._selector.select(_INTERVAL)

    def _obey_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            name = signal.Signals(number).name
            if self._stopping:
                log.warning("%s again: killing all processes", name)
                self._killed_by = number
                self._each_process(WorkerProcess.kill)
            else:
                log.info("%s: waiting for the jobs that run; once more to kill them", name)
                self._stopping = True
                self._each_process(WorkerProcess.stop)

    def _each_process(self, call: Callable[[WorkerProcess], object]) -> None:
        for slot in self._slots:
            if slot.process is not None:
                call(slot.process)

    def _start(self, number: int, slot: _Slot) -> None:
        slot.process = WorkerProcess(number, self._arguments)
        self._selector.register(slot.process.sock, selectors.EVENT_READ)
        log.info("process %d started (%d of %d)", slot.process.pid, number + 1, len(self._slots))

    def _look_at(self, slot: _Slot, process: WorkerProcess) -> None:
        was_ready = process.report.ready
        process.read()
        if process.report.ready and not was_ready:
            log.info("process %d is ready", process.pid)
            self._was_ready = True
        if not process.connected:
            self._forget(process)
        if process.has_ended():
            self._forget(process)
            slot.process = None
            self._bury(slot, process, process.bury())
        elif process.overdue:
            log.error("process %d has not ended in time: killing it", process.pid)
            process.kill()

    def _forget(self, process: WorkerProcess) -> None:
        """Listen no more to a process that says nothing more."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(process.sock)

    def _bury(self, slot: _Slot, process: WorkerProcess, code: int) -> None:
        for name in COUNTERS:
            self._past[name] += getattr(process.report, name)
        if self._watch is not None:
            self._watch.add(process.report)
        if self._stopping:
            self._unclean += not process.finished(code)
            level = logging.INFO if process.finished(code) else logging.WARNING
            log.log(level, "process %d ended (%s)", process.pid, _said(code))
            return
        if process.report.error is not None and not self._was_ready and self._watch is None:
            self._stopping = True
            self._each_process(WorkerProcess.stop)
            raise CommandError(process.report.error, USAGE)
        self._restarts += 1
        slot.due = monotonic() + self._pause(slot, process)
        self._log_end(process, code, slot.due - monotonic())

    def _pause(self, slot: _Slot, process: WorkerProcess) -> float:
        """Return how long to wait before a process is replaced, in seconds."""
        if process.told_to_stop or process.report.jobs or monotonic() - process.started >= _SHORT_LIFE:
            slot.failures = 0
            return 0.0
        slot.failures += 1
        first, longest = _BACKOFF
        return float(min(longest, first * 2 ** min(slot.failures - 1, 16)))

    def _log_end(self, process: WorkerProcess, code: int, pause: float) -> None:
        jobs = process.report.jobs
        if process.report.error is not None:
            log.error("process %d cannot work: %s", process.pid, process.report.error)
        elif process.told_to_stop and not process.finished(code):
            log.warning("process %d ended (%s) with jobs unfinished, after %d jobs", process.pid, _said(code), jobs)
        elif process.told_to_stop or (code == OK and self._max_jobs is not None and jobs >= self._max_jobs):
            log.info("process %d ended after %d jobs", process.pid, jobs)
        else:
            log.warning("process %d ended unasked (%s) after %d jobs", process.pid, _said(code), jobs)
        if pause > 0:
            log.warning("it is replaced in %.1f s", pause)

    def _reload_if_changed(self) -> None:
        changed = self._watch.changed(self._reports()) if self._watch is not None else None
        if changed is not None:
            log.info("%s has changed: replacing the processes", changed)
        elif self._reload_asked:
            log.info("SIGHUP: replacing the processes")
        else:
            return
        self._reload_asked = False
        for slot in self._slots:
            slot.due = 0.0
        if not self._stopping:
            self._each_process(WorkerProcess.stop)

    def _reports(self) -> list[Report]:
        return [slot.process.report for slot in self._slots if slot.process is not None]

    def _take_snapshot(self) -> None:
        reports = self._reports()
        counters = {name: self._past[name] + sum(getattr(report, name) for report in reports) for name in COUNTERS}
        self.snapshot = Snapshot(
            time=monotonic(),
            stopping=self._stopping,
            wanted=len(self._slots),
            running=len(reports),
            ready=sum(report.ready for report in reports),
            held=sum(report.held for report in reports),
            servers_up=sum(report.servers_up for report in reports),
            restarts=self._restarts,
            counters=counters,
        )

    def _end(self) -> None:
        """Leave nothing behind, whatever has happened."""
        self._each_process(WorkerProcess.kill)
        self._each_process(WorkerProcess.bury)


class _Files:
    """The files that the processes have loaded, and when each was changed last."""

    def __init__(self) -> None:
        self._times: dict[str, float | None] = {}

    def add(self, report: Report) -> None:
        """Watch the files of a process that has ended: it may have ended because of what stands in them."""
        for name in report.files:
            self._times.setdefault(name, _changed_at(name))

    def changed(self, reports: list[Report]) -> str | None:
        """Return a file that has changed since the last call, if one has."""
        for report in reports:
            self.add(report)
        changed = None
        for name, before in self._times.items():
            now = _changed_at(name)
            if now != before:
                self._times[name] = now
                changed = name
        return changed


def _changed_at(name: str) -> float | None:
    try:
        return os.stat(name).st_mtime_ns
    except OSError:
        return None


def _said(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
