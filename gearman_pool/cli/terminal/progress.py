"""How far a job has come, drawn on stderr: a bar on a terminal, lines elsewhere.

For one thread. Nothing here writes to stdout, which is for results.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .output import has_rich, note

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["JobProgress", "bar"]

_WIDTH = 30

#: Seconds between two lines in a file; the last status always gets one.
_LINE_INTERVAL = 1.0


class JobProgress:
    """The status of one job. Three ways: rich's bar, a bar of plain characters on a terminal, or lines in a file.

    Not for several threads.
    """

    def __init__(self, task: str, wanted: bool) -> None:
        self._task = task
        self._wanted = wanted
        self._started = time.monotonic()
        self._last = ""
        self._rich: Any = None
        self._rich_task: Any = None
        self._drawn = False
        self._next_line = 0.0

    def __enter__(self) -> Self:
        if self._wanted and has_rich(sys.stderr):
            self._start_rich()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()
        elif self._drawn:
            note("")

    def _start_rich(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
        )
        self._rich = Progress(*columns, console=Console(stderr=True))
        self._rich_task = self._rich.add_task(self._task, total=None, count="")
        self._rich.start()

    def update(self, numerator: int, denominator: int) -> None:
        """Draw a status that has come."""
        if not self._wanted:
            return
        count = f"{numerator}/{denominator}"
        if self._rich is not None:
            total = denominator or None
            self._rich.update(self._rich_task, completed=numerator, total=total, count=count)
            return
        share = min(1.0, numerator / denominator) if denominator else 0.0
        text = f"{self._task} {bar(share)} {share:4.0%} {count}"
        if text == self._last:
            return
        self._last = text
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text} {time.monotonic() - self._started:.0f} s")
            sys.stderr.flush()
            self._drawn = True
        elif time.monotonic() >= self._next_line or numerator == denominator:
            self._next_line = time.monotonic() + _LINE_INTERVAL
            note(f"{self._task}: {share:.0%} ({count})")

    def aside(self, write: Callable[[], object]) -> None:
        """Let something else be written to the terminal, with the bar out of the way."""
        if self._rich is not None:
            # Erased, not left standing above what is written.
            self._rich.live.transient = True
            self._rich.stop()
            write()
            self._rich.live.transient = False
            self._rich.start()
            return
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False
            self._last = ""
        write()


def bar(share: float, width: int = _WIDTH) -> str:
    """Return a bar of plain characters for a part of 1."""
    done = round(share * width)
    return f"[{'#' * done}{'.' * (width - done)}]"
