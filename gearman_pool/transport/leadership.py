"""Who runs the loop: the I/O thread, or a guest that would otherwise only wait for what the loop brings.

A worker with one slot has nothing to do but wait for its next job. If another thread reads the job and hands it over,
each job costs two hand-overs of the interpreter's lock: 4,400-5,200 jobs/s on gearmand, where a C worker does
8,600-12,000. So that thread runs the loop itself while it waits (leader and followers), and the I/O thread stands by.

A guest that runs a task is away, and nobody answers for the connections then. The I/O thread leads again when that has
lasted `PATIENCE`. To notice it looks from time to time, but only while there is something to notice: the guest wakes it
when it goes away for the first time in a while, and it sleeps when it finds the guest back and quiet.
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

    ``_holder`` says who leads: taking and leaving it are single operations of a dict, each of them atomic. The guest
    writes ``_away_since``, ``_trips`` and ``wish``, the I/O thread ``_parked`` and ``_seen``.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self.guest: bool = False
        #: The I/O thread has ended.
        self.ended = False
        self._wake = wake
        self._holder: dict[str, int] = {}
        self._away_since: float | None = None
        # How often it has gone away, and what of that the I/O thread has seen.
        self._trips = 0
        self._seen = -1
        #: The guest wants to lead: a lock that is taken, and released when it may look again.
        self.wish: threading.Lock | None = None
        self._guest_ident = 0
        self._parked: threading.Lock | None = None

    def is_current(self) -> bool:
        """Whether the caller leads."""
        return self._holder.get("leader") == threading.get_ident()

    # ---- the guest -------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        """Become the guest. Nobody else may be it, and the I/O thread has made a turn: it leads until `lead`."""
        self._guest_ident = threading.get_ident()
        self._away_since = monotonic()
        self.guest = True

    def leave(self) -> None:
        """Be it no longer; the I/O thread leads from now on. May be called at any moment, also after an exception."""
        self.guest = False
        self.wish = None
        if self.is_current():
            self._holder.clear()
        self._unpark()

    def lead(self) -> bool:
        """Come back, and wait until the I/O thread has left the loop if it is in it; return False if that has ended."""
        me = threading.get_ident()
        while self._holder.setdefault("leader", me) != me:
            if self.ended:
                return False
            wish = threading.Lock()
            wish.acquire()
            self.wish = wish
            self._wake()
            # Bounded, so that a wish which the I/O thread overlooked is repeated.
            wish.acquire(timeout=PATIENCE)
        self.wish = None
        self._away_since = None
        return True

    def go_away(self) -> None:
        """Let the loop be, to run a task."""
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
        """Return whether the I/O thread may run a turn now; if not, that took a while."""
        me = threading.get_ident()
        if not self.guest:
            self._holder["leader"] = me
            return True
        if self._holder.get("leader") == me:
            wish = self.wish
            if wish is None:
                return True
            # Handed over, not just left: the I/O thread would be the first to take it again.
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
        """Sleep until the guest goes away, or leaves."""
        parked = threading.Lock()
        parked.acquire()
        self._parked = parked
        if self._away_since is None and self.guest:
            parked.acquire()
        self._parked = None
