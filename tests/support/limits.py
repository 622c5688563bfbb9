"""A process that may have no more threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["no_room_for_threads"]


@contextmanager
def no_room_for_threads() -> Iterator[None]:
    """Within the block the system refuses every new thread of this process, as it does at the limit of a container.

    It is asked for a stack that no machine can give: limits of the number of threads do not bind root.
    """
    former = threading.stack_size(2**46)
    try:
        yield
    finally:
        threading.stack_size(former)
