"""Timers: calls that are due at a moment of the monotonic clock, in a heap.

All of it belongs to the I/O thread, or to the guest that runs the loop in its place; nothing here is for other threads.
A timer never runs by itself: the loop asks when the next one is due, and runs those that are.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["NEVER", "Timer", "Timers"]

#: The moment at which nothing is due.
NEVER = float("inf")

#: Cancelled timers are cleared from the heap when there are this many and they are the larger half of it.
_MANY_CANCELLED = 1024


class Timer:
    """A call that is due at a moment of the monotonic clock."""

    __slots__ = ("_call", "_timers", "when")

    def __init__(self, timers: Timers, when: float, call: Callable[[], object]) -> None:
        self.when: float = when
        self._call: Callable[[], object] | None = call
        self._timers = timers

    def cancel(self) -> None:
        """Do not make the call. Harmless when it has been made."""
        if self._call is not None:
            self._call = None
            self._timers.note_cancelled()

    def run(self) -> None:
        """Make the call unless it was cancelled."""
        call, self._call = self._call, None
        if call is not None:
            call()

    @property
    def alive(self) -> bool:
        """Whether the call is still to be made."""
        return self._call is not None


class Timers:
    """All timers of one loop.

    A cancelled timer stays in the heap until its moment comes, or until many of them are cleared together: finding one
    in the heap costs more than leaving it there.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # The number decides between timers of the same moment: the older one runs first.
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        """How many timers the heap holds, cancelled ones included."""
        return len(self._heap)

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        """Have ``call`` made after ``delay`` seconds."""
        return self.call_at(self._clock() + delay, call)

    def call_at(self, when: float, call: Callable[[], object]) -> Timer:
        """Have ``call`` made at ``when`` on the monotonic clock."""
        timer = Timer(self, when, call)
        heapq.heappush(self._heap, (when, next(self._numbers), timer))
        return timer

    def next_moment(self) -> float:
        """Return when the next timer is due; `NEVER` if there is none."""
        heap = self._heap
        while heap:
            when, _, timer = heap[0]
            if timer.alive:
                return when
            heapq.heappop(heap)
            self._cancelled = max(0, self._cancelled - 1)
        return NEVER

    def run_due(self, now: float) -> None:
        """Run the timers whose moment has come by ``now``, the oldest first."""
        # ``_heap`` is looked up anew each time: calls that cancel timers may have it cleared, which replaces the list.
        while self._heap and self._heap[0][0] <= now:
            timer = heapq.heappop(self._heap)[2]
            if timer.alive:
                timer.run()
            else:
                self._cancelled = max(0, self._cancelled - 1)

    def note_cancelled(self) -> None:
        """Count a cancelled timer, and clear the heap of them when they are many."""
        self._cancelled += 1
        if self._cancelled > _MANY_CANCELLED and self._cancelled * 2 > len(self._heap):
            self._heap = [item for item in self._heap if item[2].alive]
            heapq.heapify(self._heap)
            self._cancelled = 0
