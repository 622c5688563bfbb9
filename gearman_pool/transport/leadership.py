"""Who runs the loop: the I/O thread, or a guest that would otherwise only wait for what the loop brings.

A worker with one slot has nothing to do but wait for its next job. If another thread reads the job and hands it over,
each job costs two hand-overs of the interpreter's lock: 4,400-5,200 jobs/s on gearmand, where a C worker does
8,600-12,000. So that thread runs the loop itself while it waits (leader and followers), and the I/O thread stands by.

A guest that runs a task is away, and nobody answers for the connections then. The I/O thread leads again once the guest
has been away for `PATIENCE`. For that the I/O thread looks from time to time, but only while the guest comes and goes:
an I/O thread that finds the guest back, and not gone since the last look, sleeps, and the guest wakes it when it goes.

Threads: each method stands under the banner of the thread that calls it; `is_current` may be called from any. Only
`lead` and `take` wait, the first for the end of a turn, the second while the guest leads or has just gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

__all__ = ["PATIENCE", "Leadership"]

#: How long a guest may be away before the I/O thread leads, in seconds: long against a short task, short against any
#: time limit of the protocol.
PATIENCE = 0.02


class Leadership:
    """The right to run turns of the loop. At most one guest at a time.

    ``_holder`` says who leads: a thread takes or leaves the lead by a single operation of that dict, each of them
    atomic. The guest writes ``_away_since``, ``_trips`` and ``wish``, the I/O thread ``_parked`` and ``_seen``.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self.guest: bool = False
        #: The I/O thread has ended.
        self.ended = False
        self._wake = wake
        # The identity of the thread that leads, under the only key "leader"; empty if nobody leads.
        self._holder: dict[str, int] = {}
        # When the guest went away; None while the guest leads.
        self._away_since: float | None = None
        # How often the guest has gone away, and how often it had when the I/O thread looked last.
        self._trips = 0
        self._seen = -1
        #: The guest wants to lead: a lock that is taken, and that the I/O thread releases when it hands the lead over.
        self.wish: threading.Lock | None = None
        self._guest_ident = 0
        # The lock on which the I/O thread sleeps; whoever releases it wakes the I/O thread.
        self._parked: threading.Lock | None = None

    def is_current(self) -> bool:
        """Whether the caller leads."""
        return self._holder.get("leader") == threading.get_ident()

    # ---- the guest -------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Become the guest. There is no other, and the I/O thread, which has made a turn, leads until `lead`."""
        self._guest_ident = threading.get_ident()
        self._away_since = monotonic()
        self.guest = True

    def leave(self) -> None:
        """Be the guest no longer; the I/O thread leads from now on. Harmless at any moment, also after an exception."""
        self.guest = False
        self.wish = None
        if self.is_current():
            self._holder.clear()
        self._unpark()

    def lead(self) -> bool:
        """Come back, after the turn that the I/O thread may be in; return False if the I/O thread has ended."""
        me = threading.get_ident()
        while self._holder.setdefault("leader", me) != me:
            if self.ended:
                return False
            wish = threading.Lock()
            wish.acquire()
            self.wish = wish
            self._wake()
            # The wait is bounded, so that a wish which the I/O thread overlooked is repeated.
            wish.acquire(timeout=PATIENCE)
        self.wish = None
        self._away_since = None
        return True

    def go_away(self) -> None:
        """Leave the loop, to run a task."""
        self._away_since = monotonic()
        self._trips += 1
        self._holder.clear()
        if self._parked is not None:
            self._unpark()

    def _unpark(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.release()

    # ---- the I/O thread --------------------------------------------------------------------------------------------

    def take(self) -> bool:
        """Return whether the I/O thread may run a turn now; if not, the call has waited a while or slept."""
        me = threading.get_ident()
        if not self.guest:
            self._holder["leader"] = me
            return True
        if self._holder.get("leader") == me:
            wish = self.wish
            if wish is None:
                return True
            # The lead is handed over, not just left: the I/O thread would be the first to take it again.
            self._holder["leader"] = self._guest_ident
            wish.release()
        away = self._away_since
        if away is not None and monotonic() - away >= PATIENCE and self._holder.setdefault("leader", me) == me:
            return True
        if away is None and self._trips == self._seen:
            self._park()
        else:
            self._seen = self._trips
            threading.Event().wait(PATIENCE)
        return False

    def _park(self) -> None:
        """Sleep until the guest goes away, or leaves for good."""
        parked = threading.Lock()
        parked.acquire()
        self._parked = parked
        # The guest may have gone before it could find the lock above.
        if self._away_since is None and self.guest:
            parked.acquire()
        self._parked = None
