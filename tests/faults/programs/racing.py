"""What programs share in which threads race: the shortest switch interval, an end, and no thread that is stuck."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

__all__ = ["Race"]


class Race:
    """Runs functions again and again, each on a thread of its own, until the time is over.

    ``counts`` is for whatever is to be counted, by `count`. An exception that is none of ``expected`` ends its thread
    and stands in ``unexpected``. A thread that does not end ends the process, with the stacks of all threads.
    """

    def __init__(self, seconds: float, expected: tuple[type[BaseException], ...] = ()) -> None:
        faulthandler.enable()
        # Servers and connections that come and go are what it is about; errors of the loop are logged higher.
        logging.disable(logging.WARNING)
        sys.setswitchinterval(1e-6)
        self.end = time.monotonic() + seconds
        self.counts: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self._expected = expected
        self._lock = threading.Lock()

    def count(self, what: str) -> None:
        """Count one more of something."""
        with self._lock:
            self.counts[what] += 1

    def _until_end(self, work: Callable[[], object]) -> None:
        while time.monotonic() < self.end:
            try:
                work()
            except self._expected as error:
                self.count(type(error).__name__)
            except BaseException as error:
                self.unexpected.append(repr(error))
                return

    def run(self, works: Iterable[Callable[[], object]]) -> None:
        """Run all of them; return when the last thread has ended."""
        threads = [threading.Thread(target=self._until_end, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        self.join(threads)

    def join(self, threads: Iterable[threading.Thread]) -> None:
        """Wait for threads that should be about to end."""
        for thread in threads:
            thread.join(max(0.0, self.end - time.monotonic()) + 25)
            if thread.is_alive():
                print("stuck:", thread.name, flush=True)
                os.abort()

    def finish(self) -> None:
        """Print the counts, and fail if anything unexpected happened or a thread of the library is left."""
        deadline = time.monotonic() + 10
        while left := [t.name for t in threading.enumerate() if t.name.startswith("gearman_pool")]:
            if time.monotonic() > deadline:
                self.unexpected.append(f"threads that are left: {left}")
                break
            time.sleep(0.02)
        print(dict(self.counts), flush=True)
        assert not self.unexpected, self.unexpected[:5]
