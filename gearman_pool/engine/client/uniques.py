"""`Uniques`: names for jobs that nobody else has, also where a fork copies the memory they are made from.

Any thread may ask for one. No lock is taken.
"""

from __future__ import annotations

import itertools
import os

from ...transport.io_thread import IOThread
from ...transport.syscalls import HAS_GIL

__all__ = ["Uniques"]


class Uniques:
    """Makes uniques: the first half of one is random, the second half counts.

    Args:
        io: The client's I/O thread.
        size: How many random bytes a unique stands for.
    """

    def __init__(self, io: IOThread, size: int) -> None:
        self._io = io
        self._size = size
        self.renew()

    def new(self) -> str:
        """Return a unique that nobody else has."""
        if not self._io.running:
            self.renew()
        if not HAS_GIL:
            # Two threads can get the same number from `itertools.count`.
            return os.urandom(self._size).hex()
        return f"{self._prefix}{next(self._numbers)}"

    def renew(self) -> None:
        """Choose another first half, and another number to count from, for the uniques made from now on.

        Until the I/O thread runs, a fork that Python is not told of (uWSGI's) can have copied the former ones. If two
        processes made the same uniques, the server would take their jobs for one, and give both the same result.
        """
        self._prefix = os.urandom(self._size).hex()[:-12]
        # The count does not begin at 0: a short prefix may be another process's too. Twelve digits, for longer than any
        # client lives; as decimals, which cost half as much as hexadecimals of a fixed width.
        self._numbers = itertools.count(10**11 + int.from_bytes(os.urandom(5), "big") % (8 * 10**11))
