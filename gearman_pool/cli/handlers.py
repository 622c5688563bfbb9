"""Signal handlers for a while."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["handling"]


@contextmanager
def handling(handlers: Mapping[int, Callable[[int, Any], object]]) -> Iterator[None]:
    """Have signals handled so until the end of the block. For the main thread."""
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None stands for a handler that was there before Python, which it cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
