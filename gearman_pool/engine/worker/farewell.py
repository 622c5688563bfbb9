"""The end of a worker's run: wait for the last results, for the servers to have them, and not for ever.

All that belongs to the I/O thread, and nothing here blocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ...transport.connection import Connection
from ...transport.handler import Query
from ...transport.io_thread import IOThread
from ...transport.pool import Pool
from ...transport.timers import Timer
from ..announcer import Announcer
from .held_jobs import HeldJobs, fence
from .slots import Slots

__all__ = ["Farewell"]

#: How long the servers may take at the end to say that they have the last results, in seconds.
_PATIENCE = 2.0


class Farewell:
    """How one run of a worker ends.

    Args:
        on_give_up: Called when the time to stop is over and jobs are left.
    """

    def __init__(
        self,
        io: IOThread,
        pool: Pool,
        held: HeldJobs,
        slots: Slots,
        announcer: Announcer,
        on_give_up: Callable[[], object],
    ) -> None:
        #: Whether jobs were left.
        self.given_up: bool = False
        self._io = io
        self._pool = pool
        self._held = held
        self._slots = slots
        self._announcer = announcer
        self._on_give_up = on_give_up
        #: When what is held is given up.
        self._deadline: Timer | None = None
        #: The servers that have yet to say that they have everything; None as long as nobody was asked.
        self._waited_for: set[Connection] | None = None
        #: Whether a timer runs that ends a wait for servers which is too long.
        self._impatient = False

    def give_up_after(self, timeout: float) -> None:
        """Give up what is held in so many seconds, or at an earlier end that was set before."""
        self._slots.publish()
        deadline = self._deadline
        if deadline is None or self._io.clock() + timeout < deadline.when:
            if deadline is not None:
                deadline.cancel()
            self._deadline = self._io.call_later(timeout, self._give_up)

    def see_whether_all_is_done(self) -> None:
        """End the loop if every result is sent, no question is on its way, and the servers have everything."""
        if self._held.unsent:
            return
        if self._waited_for is None:
            if not self._impatient:
                self._impatient = True
                self._io.call_later(_PATIENCE, self._stop_unless_busy)
            if not self._slots.all_idle:
                return  # a question is on its way, and may be answered with a job
            # Closing a socket with something unread in it destroys what was sent: wait until the server has it all.
            self._waited_for = {connection for connection in self._pool.connections if connection.up}
            fence(_HasEverything(self), list(self._waited_for))
        if not self._waited_for:
            self._io.stop()

    def _stop_unless_busy(self) -> None:
        """Some server takes too long: it is left without waiting for it."""
        if self._held.unsent:
            self._impatient = False
        else:
            self._io.stop()

    def no_longer_waits_for(self, connection: Connection) -> None:
        """A server has everything, or is lost."""
        if self._waited_for is not None:
            self._waited_for.discard(connection)

    def _give_up(self) -> None:
        self.given_up = True
        self._on_give_up()
        for assignment in list(self._held.unfinished):
            self._announcer.log(
                logging.ERROR,
                "task %r (%s) has not ended within the shutdown timeout; %s gives the job to another worker",
                assignment.ability.name,
                assignment.handle.decode("utf-8", "replace"),
                assignment.server,
            )
        self._io.stop()


class _HasEverything(Query):
    """Asks whether the server has everything."""

    def __init__(self, farewell: Farewell) -> None:
        self._farewell = farewell

    def answered(self, connection: Connection, value: Any) -> None:
        self._farewell.no_longer_waits_for(connection)
