"""SIGTERM and SIGINT while `GearmanWorker.run` works: how a signal reaches a worker whose main thread is busy in C.

Threads: see `StopSignals`. A signal is told on, and nothing is stopped here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["StopSignals"]

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Calls ``on_first`` with the number of the first signal, and ends the process at the second.

    Python calls a signal's handler on the main thread, and not before that is back from C: a task may be there for
    minutes. But its handler in C writes each number to the process's wakeup descriptor at once. The I/O thread reads it
    (`descriptor`, `on_ready`), so that both ways lead to ``on_first``, which must bear two calls. Either may be the
    faster; the second signal of each ends the process, by ``on_second`` where the main thread cannot do it itself.

    The wakeup descriptor is the process's. Who had it before is told of all signals meanwhile, and has it again at the
    end; who takes it meanwhile, as an event loop of asyncio that handles signals, leaves the other way.

    Threads: entered, left and called by Python on the main thread; ``on_ready`` is the I/O thread's.
    """

    def __init__(self, on_first: Callable[[int], object], on_second: Callable[[int], object]) -> None:
        self._on_first = on_first
        self._on_second = on_second
        self._handled = False
        self._read = False

    def __enter__(self) -> Self:
        self.descriptor: int = -1
        self._writer = self._previous_wakeup = -1
        with contextlib.suppress(OSError):  # a process that has no descriptors left makes do with Python's handlers
            self.descriptor, self._writer = os.pipe()
        _entered.append(self)
        self._previous = {number: signal.signal(number, self._handle) for number in _NUMBERS}
        if self._writer >= 0:
            os.set_blocking(self.descriptor, False)
            os.set_blocking(self._writer, False)
            self._previous_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous:
            if self._writer >= 0:
                current = signal.set_wakeup_fd(-1)
                with contextlib.suppress(ValueError, OSError):  # who had it before may have closed it
                    signal.set_wakeup_fd(self._previous_wakeup if current in (-1, self._writer) else current)
            self._restore()

    def after_fork_in_child(self) -> None:
        """Leave the parent's descriptor alone: a signal for the child would be taken for one of the parent's.

        Called for each that is entered, in the child of a fork.
        """
        if self._previous:
            signal.set_wakeup_fd(-1)
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            # None stands for a handler that was there before Python, which it cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
        _entered.remove(self)
        if self._writer >= 0:
            os.close(self.descriptor)
            os.close(self._writer)

    def _handle(self, number: int, _frame: object) -> None:
        # No lock may be taken here: the thread may hold it. Nothing is logged for the same reason.
        if self._handled:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._handled = True
        self._on_first(number)

    def on_ready(self, readable: bool, writable: bool) -> None:
        """See `Pollable.on_ready`."""
        if not self._previous:
            return  # it was left just now, and the number may be another file's
        try:
            numbers = os.read(self.descriptor, 4096)
        except BlockingIOError:
            return
        if self._previous_wakeup >= 0:
            with contextlib.suppress(OSError):
                os.write(self._previous_wakeup, numbers)
        for number in numbers:
            # A task may have put a handler of its own in our place.
            if number in _NUMBERS and signal.getsignal(number) == self._handle:
                (self._on_second if self._read else self._on_first)(number)
                self._read = True


# ---- fork ----------------------------------------------------------------------------------------------------------

#: Those that have been entered and not left.
_entered: list[StopSignals] = []
#: The signals that threads blocked before they began to fork.
_masks: dict[int, set[Any]] = {}


def _before_fork() -> None:
    # Until `StopSignals.after_fork_in_child` is through, a signal for the child would be told to the parent.
    if _entered:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _NUMBERS)


def _after_fork() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _after_fork_in_child() -> None:
    try:
        for signals in _entered.copy():
            signals.after_fork_in_child()
    finally:
        _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
