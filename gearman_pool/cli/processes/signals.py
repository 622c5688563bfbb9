"""Signals for a while: handlers that are put back, and a selector that wakes.

For the main thread. Nothing here knows what a signal is to mean.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Wakeups", "handling"]


@contextlib.contextmanager
def handling(handlers: Mapping[int, Callable[[int, Any], object]]) -> Iterator[None]:
    """Have signals handled so until the end of the block. For the main thread."""
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None stands for a handler that was there before Python, which it cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class Wakeups:
    """Lets signals wake a selector in a ``with`` block."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._ours, self._wakeup = socket.socketpair()
        self._ours.setblocking(False)
        self._wakeup.setblocking(False)

    def __enter__(self) -> Self:
        self._selector.register(self._ours, selectors.EVENT_READ)
        self._previous_wakeup = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous_wakeup)
        self._ours.close()
        self._wakeup.close()

    def drain(self) -> None:
        """Forget that the selector was woken."""
        with contextlib.suppress(BlockingIOError):
            while self._ours.recv(4096):
                pass
