"""Doing something at one step of a thread's way through the package: at each in turn, to find an unsafe one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gearman_pool

__all__ = ["Line", "Lines", "Steps", "wakes_at_step"]

PACKAGE = Path(gearman_pool.__file__).parent

#: A file's name and the number of a line in it.
Line = tuple[str, int]


class Lines:
    """Tells of each line of the package's code, or of a folder of it, just before the traced thread runs it.

    ``on_line`` is called on that thread, and what it calls is not traced. ``trace`` is for `threading.settrace`, where
    it is the package that starts the thread.
    """

    def __init__(self, on_line: Callable[[Line], object], folder: Path = PACKAGE) -> None:
        self._on_line = on_line
        self._folder = str(folder)

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """Tell of a line."""
        path = frame.f_code.co_filename
        if not path.startswith(self._folder):
            return None
        if event == "line":
            self._on_line((Path(path).name, frame.f_lineno))
        return self.trace

    def run(self, call: Callable[[], object]) -> object:
        """Make a call whose lines are told of."""
        before = sys.gettrace()
        sys.settrace(self.trace)
        try:
            return call()
        finally:
            sys.settrace(before)


class Steps(Lines):
    """Makes a call just before the ``step``-th line, counted from 1, that the traced thread runs."""

    def __init__(self, step: int, call: Callable[[], object]) -> None:
        super().__init__(self._count)
        self.reached = threading.Event()
        self._left = step
        self._call = call

    def _count(self, line: Line) -> None:
        self._left -= 1
        if self._left == 0:
            # First: what the call starts may come here as well.
            self.reached.set()
            self._call()


def wakes_at_step(step: int, wait: Callable[[], object], happen: Callable[[], object]) -> bool:
    """Have a caller wait for what happens at this step of its way; return whether it waits before it comes so far.

    A machine that is too busy for a step in a second is no reason to leave out the next ones, so the first few do not
    count as that.
    """
    steps, came = Steps(step, happen), threading.Event()
    caller = threading.Thread(target=lambda: (steps.run(wait), came.set()), daemon=True)
    caller.start()
    reached = steps.reached.wait(1)
    if not reached:
        happen()
    assert came.wait(5), f"what happens at step {step} of the caller's way does not wake it"
    caller.join(5)
    return step > 5 and not reached
