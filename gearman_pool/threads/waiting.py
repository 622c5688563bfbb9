"""How a caller waits for what another thread will do, without a lock that both could hold.

A waiting caller adds a lock of its own to a list, looks once more, and waits for that lock. Whoever has done what is
waited for releases the locks on the list. Any thread may be on either side, and one that is interrupted at any moment
holds up nobody else.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

__all__ = ["Promise", "release_all", "wait_for"]


def release_all(waiters: list[threading.Lock] | deque[threading.Lock]) -> None:
    """Release the locks, and take them off the list; who puts one there meanwhile finds it released or still there."""
    while True:
        try:
            # pop, not a look and then a pop: it is the operation by which both sides order themselves.
            waiter = waiters.pop()
        except IndexError:
            return
        waiter.release()


def wait_for(ready: Callable[[], object], waiters: list[threading.Lock], deadline: float | None) -> bool:
    """Wait until ``ready()``, looking whenever somebody releases the locks in ``waiters``; return whether it is.

    ``deadline`` is a moment of the monotonic clock; no limit if None.
    """
    while not ready():
        waiter = threading.Lock()
        waiter.acquire()
        waiters.append(waiter)
        if ready():
            return True
        remaining = -1 if deadline is None else deadline - monotonic()
        if (deadline is not None and remaining <= 0) or not waiter.acquire(timeout=remaining):
            with contextlib.suppress(ValueError):  # it has just been released
                waiters.remove(waiter)
            return bool(ready())
    return True


class Promise:
    """Set once, by the I/O thread; `wait` may be called by any thread, any number of times.

    A waiting caller adds a lock of its own, looks once more, and waits for that lock; `set` and `fail` note the outcome
    and then release the locks they find. Whatever moment the caller is interrupted at, nobody else is held up.
    """

    __slots__ = ("_done", "_error", "_value", "_waiters")

    def __init__(self) -> None:
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiters: list[threading.Lock] = []

    @property
    def done(self) -> bool:
        """Whether there is an outcome."""
        return self._done

    def set(self, value: Any) -> None:
        """Give the value. Ignored if there is an outcome."""
        self._end(value, None)

    def fail(self, error: BaseException) -> None:
        """Give an exception for `wait` to raise. Ignored if there is an outcome."""
        self._end(None, error)

    def _end(self, value: Any, error: BaseException | None) -> None:
        if self.done:
            return
        self._value = value
        self._error = error
        self._done = True
        release_all(self._waiters)

    def wait(self, timeout: float | None) -> Any:
        """Return the value.

        Args:
            timeout: How long to wait, in seconds; for ever if None.

        Raises:
            TimeoutError: it took longer.
            BaseException: what `fail` was given.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if not wait_for(lambda: self._done, self._waiters, deadline):
            raise TimeoutError(f"no answer within {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._value
