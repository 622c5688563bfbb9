"""Who waits: requests for which there is no server yet, and callers for whom there is no room.

Threads: what stands under "any thread" may be called from any; those methods take no lock, though `wait_for_room` makes
its caller wait. All else belongs to the I/O thread. Nothing here chooses a server: the pool is asked for each request.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..errors import GearmanError, ServerUnavailable
from ..protocol.packets import COPY_LIMIT, packet_size
from ..protocol.session import Entry, token_of
from ..settings.client_options import ClientOptions
from .connection import Connection
from .io_thread import IOThread, copy_of
from .servers import Server
from .timers import Timer

__all__ = ["Budget", "Holding", "Routing", "WaitingRoom"]

#: How many requests are let in at once besides those that stood in line.
_STRAGGLERS = 1000

#: The unit in which room for bytes is given away without counting what is there.
_ROOM_UNIT = COPY_LIMIT


class Routing(Protocol):
    """What the waiting room asks of its pool. Called on the I/O thread; must not block."""

    def choose(self, key: bytes | Server | None) -> Connection | None:
        """Return the connection for a request with this key, or None if the request must wait."""

    def refusal(self) -> GearmanError | None:
        """Return why there is no server to wait for, if there is none."""

    def unavailable(self) -> ServerUnavailable:
        """Return the error of a request that has waited too long."""

    def on_unroutable(self, entry: Entry, error: GearmanError) -> None:
        """No server could be had for this entry."""


class _Place(NamedTuple):
    """A request that waits."""

    deadline: float
    key: bytes | Server | None
    entry: Entry


class WaitingRoom:
    """Requests that wait for a server.

    A caller's thread puts a request into ``arriving``; the I/O thread takes it from there, and sends it or moves it to
    ``waiting``. ``waiting`` is replaced whole where more than an end of it changes, so that any thread may read it.
    """

    def __init__(self, io: IOThread, pool: Routing) -> None:
        self._io = io
        self._pool = pool
        self.arriving: deque[_Place] = deque()
        self.waiting: deque[_Place] = deque()
        #: Requests that wait go first: a caller puts a new one in line behind them, whatever servers there are.
        self.held_up: bool = True
        # Runs out when the first of ``waiting`` has waited long enough.
        self._timer: Timer | None = None

    # ---- any thread ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many requests wait."""
        return len(self.arriving) + len(self.waiting)

    def arrive(self, entry: Entry, key: bytes | Server | None, deadline: float) -> None:
        """Put a request in line. It counts from here on: a burst must not get past the budget unseen."""
        self.arriving.append(_Place(deadline, key, entry))
        self._io.wake()

    def entries(self) -> list[Entry]:
        """Return what waits."""
        return [place.entry for place in (*copy_of(self.arriving), *copy_of(self.waiting))]

    # ---- the I/O thread --------------------------------------------------------------------------------------------

    def take_arrivals(self) -> None:
        """Send what has arrived, or have it wait."""
        # What comes meanwhile is taken too, or more would go on coming here; but not for ever.
        for _ in range(len(self.arriving) + _STRAGGLERS):
            try:
                arrival = self.arriving[0]
            except IndexError:
                return
            # The arrival stays in line until it is in its place: nobody who comes later gets past a line that is not
            # empty.
            try:
                self.park(arrival.entry, arrival.key, arrival.deadline)
            finally:
                # The same request, not whatever is the first by now: after the loop's end several threads may be here.
                with contextlib.suppress(ValueError):
                    self.arriving.remove(arrival)

    def park(self, entry: Entry, key: bytes | Server | None, deadline: float) -> None:
        """Send the request, or let it wait for a server until ``deadline``."""
        refusal = self._pool.refusal()
        if refusal is not None:
            self._pool.on_unroutable(entry, refusal)
        elif not self._send(entry, key):
            self.waiting.append(_Place(deadline, key, entry))
            self._watch(deadline)

    def hold_up(self) -> None:
        """Have new requests line up here, while the pool changes which servers there are."""
        self.held_up = True

    def go_on(self, available: bool) -> None:
        """Send what waits if servers are ``available``, and only then let new requests pass."""
        if self.waiting and available:
            for _ in range(len(self.waiting)):
                place = self.waiting.popleft()
                if not self._send(place.entry, place.key):
                    self.waiting.append(place)
        self.held_up = not available

    def withdraw(self, token: object) -> bool:
        """Take a token's request out; return whether it was here."""
        self.take_arrivals()
        for place in self.waiting:
            if token_of(place.entry) is token:
                self.waiting.remove(place)
                return True
        return False

    def close(self, error: GearmanError) -> None:
        """Give up what waits, with ``error``."""
        self.take_arrivals()
        waiting, self.waiting = self.waiting, deque()
        for place in waiting:
            self._pool.on_unroutable(place.entry, error)

    def _send(self, entry: Entry, key: bytes | Server | None) -> bool:
        """Send a request if there is a connection for it; return False if it must wait."""
        try:
            connection = self._pool.choose(key)
        except Exception as error:  # a policy of the user's
            self._pool.on_unroutable(entry, GearmanError(f"the policy failed: {error!r}"))
            return True
        if connection is None:
            return False
        connection.submit(entry)
        return True

    def _watch(self, deadline: float) -> None:
        timer = self._timer
        if timer is not None and timer.alive:
            if timer.when <= deadline:
                return
            timer.cancel()
        self._timer = self._io.call_at(deadline, self._expire)

    def _expire(self) -> None:
        now = self._io.clock()
        self._timer = None
        late = [place for place in self.waiting if place.deadline <= now]
        self.waiting = deque(place for place in self.waiting if place.deadline > now)
        for place in late:
            self._pool.on_unroutable(place.entry, self._pool.unavailable())
        if self.waiting:
            self._watch(min(place.deadline for place in self.waiting))


class Holding(Protocol):
    """Where requests are held besides the waiting room."""

    @property
    def connections(self) -> Sequence[Connection]:
        """All connections."""

    @property
    def lingering(self) -> Sequence[Connection]:
        """Closed connections that may still hold requests."""


class Budget:
    """What may be in flight, in jobs and in bytes, and the callers that wait for room in it.

    Jobs and bytes are counted where they are held: a counter would drift with each caller that is interrupted between
    taking and giving back. Jobs are counted for each request. Bytes are not, for to count a queue of 900 takes 60 us,
    ten times what a job costs: the room that is found is given away in numbers, of which each request draws one for
    each unit of its size, and bytes are counted again when those numbers have been drawn.
    """

    def __init__(self, io: IOThread, options: ClientOptions, room: WaitingRoom, pool: Holding) -> None:
        self._io = io
        self._max_in_flight = options.max_in_flight
        self._max_bytes = options.max_outbound_bytes
        self._room = room
        self._pool = pool
        #: The callers that wait for room: a lock that is taken, and how many bytes of room.
        self.callers: deque[tuple[threading.Lock, int]] = deque()
        self._numbers = itertools.count()
        # A request that draws a number below this bound has room for certain. Any thread may replace the bound, and a
        # bound that is written or read late does no harm: it says to which numbers the room goes that was counted when
        # it was made, and each number is drawn once.
        self._room_until = 0

    # ---- any thread ------------------------------------------------------------------------------------------------

    def full(self, size: int) -> bool:
        """Whether one more job, of ``size`` bytes, is more than the budget allows."""
        room = self._room
        pool = self._pool
        held = len(room.arriving) + len(room.waiting)
        # The sum costs every job: no tuple is made for the rare connection that lingers.
        for connection in (*pool.connections, *pool.lingering) if pool.lingering else pool.connections:
            held += len(connection.queue) + len(connection.order) + len(connection.handles)
        if held >= self._max_in_flight:
            return True
        number = next(self._numbers)
        for _ in range(size // _ROOM_UNIT):
            number = next(self._numbers)
        return number >= self._room_until and self._too_many_bytes(size, number)

    def _too_many_bytes(self, size: int, number: int) -> bool:
        """Count the bytes that wait to be sent, and say up to which number there is room."""
        held = sum(packet_size(packet) for packet, _, _ in self._room.entries())
        held += sum(connection.outbound_bytes() for connection in self._pool.connections)
        room = self._max_bytes - held - size
        # A job that is larger than the limit goes alone.
        if held > 0 and room < 0:
            return True
        self._room_until = number + 1 + max(room, 0) // _ROOM_UNIT
        return False

    def wait_for_room(self, size: int, deadline: float) -> bool:
        """Block until there is room for one more job of this size; return False if that took too long."""
        while self.full(size):
            waiter = threading.Lock()
            waiter.acquire()
            caller = waiter, size
            self.callers.append(caller)
            self._io.wake()
            remaining = deadline - self._io.clock()
            if self.full(size) and (remaining <= 0 or not waiter.acquire(timeout=remaining)):
                with contextlib.suppress(ValueError):  # the caller has just been let in
                    self.callers.remove(caller)
                return not self.full(size)
        return True

    # ---- the I/O thread --------------------------------------------------------------------------------------------

    def take_back(self) -> None:
        """Count the bytes at the next question: a request that had left has come back, and gave up its room then."""
        self._room_until = 0

    def let_in(self) -> None:
        """Wake the callers for whom there is room by now."""
        if self.full(0):
            return
        for _ in range(len(self.callers)):
            waiter, size = self.callers.popleft()
            if self.full(size):
                self.callers.append((waiter, size))
            else:
                waiter.release()

    def close(self) -> None:
        """Wake all callers: there will be no more room, and none is needed."""
        while self.callers:
            self.callers.popleft()[0].release()
