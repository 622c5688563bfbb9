"""A value that the I/O thread will give to callers who wait, without a lock that both could hold."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any

from .transport.io_thread import release_all, wait_for

__all__ = ["Promise"]


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
