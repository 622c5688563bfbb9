"""Doing something at one step of a thread's way through the package: at each in turn, to find an unsafe one."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import gearman_pool

__all__ = ["Steps"]

_PACKAGE = str(Path(gearman_pool.__file__).parent)


class Steps:
    """Makes a call just before the ``step``-th line of the package's code, counted from 1, that the traced thread runs.

    The call is made on that thread. ``trace`` is for `threading.settrace`, where it is the package that starts it.
    """

    def __init__(self, step: int, call: Callable[[], object]) -> None:
        self.reached = threading.Event()
        self._step = step
        self._call = call
        self._count = 0

    def trace(self, frame: FrameType, event: str, argument: object) -> Any:
        """Count a line."""
        if self.reached.is_set() or not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == "line":
            self._count += 1
            if self._count == self._step:
                # First: what the call starts is not to be traced.
                self.reached.set()
                self._call()
        return self.trace

    def run(self, call: Callable[[], object]) -> object:
        """Make a call whose steps are counted."""
        sys.settrace(self.trace)
        try:
            return call()
        finally:
            sys.settrace(None)
