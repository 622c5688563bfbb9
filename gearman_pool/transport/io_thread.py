"""The one background thread of a client: a loop over selector, timers and posted calls, and the waker that wakes it.

Threads: `post` and its kin, `wake`, `ensure_running`, `is_current` and `wait_stopped` may be called from any thread and
take no lock. `run_turns` is the guest's, see `Leadership`. Everything else belongs to whichever of the two runs the
loop. The loop never blocks but in the selector's wait, and never reads what comes: it tells whoever watches the socket.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ..errors import GearmanError
from ..threads.launch import launch
from ..threads.waiting import release_all
from . import syscalls
from .leadership import Leadership
from .timers import NEVER, Timer, Timers

__all__ = ["IOThread", "Pollable", "copy_of"]

#: So many waiting callers are reason enough to wake them before the turn is over.
_RELEASE_LIMIT = 32

#: How often a loop without a selector looks for work, and for descriptors to have one, in seconds.
_BLIND_TURN = 0.02

T = TypeVar("T")


class Pollable(Protocol):
    """What the selector watches."""

    def on_ready(self, readable: bool, writable: bool) -> None:
        """Called on the I/O thread when the socket is ready. Must not block."""


class IOThread:
    """A selector loop on a daemon thread that starts with the first use.

    ``turn`` is called once in each turn, after what was ready has been handled. ``has_work`` tells whether the next
    turn should begin at once. ``on_error`` is told of an exception that nobody expected; the loop goes on after it.
    ``on_stop`` runs last.

    ``sleeping`` is written by the I/O thread alone: the thread sets it to the number of this sleep, looks once more for
    work, waits, and sets it to 0. A caller that finds it set after putting its work in place sends a wake-up; one that
    finds 0 knows that the thread will look again. (Letting callers clear a flag loses wake-ups.)

    The timers are reached through `call_later` and `call_at`, which stand for those of `Timers`.

    Where the process has no descriptor left for the selector, the loop runs without one: timers and calls go on, so
    that nothing waits longer than it may, nothing can be watched, and each turn tries to have one.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], object],
        has_work: Callable[[], bool],
        on_error: Callable[[BaseException], None],
        on_stop: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.clock = clock
        #: Somebody has started the thread, which may not have come so far as to run.
        self.started: bool = False
        #: The thread takes calls. Never unset.
        self.running: bool = False
        self.sleeping: int = 0
        self.stopped: bool = False
        self.ended: bool = False
        #: When the loop wakes by itself at the latest.
        self.wake_at: float = 0.0
        #: The moment at which this turn began.
        self.now: float = clock()
        self.receive: Callable[[socket.socket], bytes | None] = syscalls.receiver()
        self.wakeups: int = 0
        # The number of the last sleep for which a wake-up was sent. Under load dozens of callers find the thread asleep
        # before it gets the interpreter's lock; one wake-up is enough.
        self._woken = 0
        self._turn = turn
        self._has_work = has_work
        self._on_error = on_error
        self._on_stop = on_stop
        self._inbox: deque[Callable[[], object]] = deque()
        self._role: dict[str, int] = {}
        self.leadership: Leadership = Leadership(self.wake)
        self._selector: selectors.BaseSelector | None = None
        self._waker: tuple[socket.socket, socket.socket] | None = None
        self._timers = Timers(clock)
        self.call_later: Callable[[float, Callable[[], object]], Timer] = self._timers.call_later
        self.call_at: Callable[[float, Callable[[], object]], Timer] = self._timers.call_at
        # When the guest that leads wants to be back.
        self._guest_deadline = NEVER
        # A guest has left in the middle of a turn.
        self._rest_is_due = False
        # The locks of callers that wait for the end of the thread.
        self._waiters: deque[threading.Lock] = deque()
        # The locks of callers whose wait for something else is over; see `release_soon`.
        self._releases: list[threading.Lock] = []

    # ---- from any thread -------------------------------------------------------------------------------------------

    def ensure_running(self) -> None:
        """Start the thread unless it runs. Several callers may start one each; all but one of those end at once.

        Raises:
            ClientClosed, ThreadUnavailable: see `launch`.
        """
        if not self.running and not self.stopped:
            self.started = True
            try:
                launch(threading.Thread(target=self._run, name=self.name, daemon=True))
            except GearmanError:
                self.started = bool(self._role)
                raise

    def post(self, call: Callable[[], object]) -> None:
        """Have ``call`` made on the I/O thread, soon."""
        self._inbox.append(call)
        self.wake()

    def post_by(self, when: float, call: Callable[[], object]) -> None:
        """Have ``call`` made on the I/O thread before ``when``; a thread that wakes by itself in time is not woken."""
        self._inbox.append(call)
        if when < self.wake_at:
            self.wake()

    def post_later(self, delay: float, call: Callable[[], object]) -> None:
        """Have ``call`` made on the I/O thread after ``delay`` seconds."""
        self.post(lambda: self.call_later(delay, call))

    def wake(self) -> None:
        """Make the I/O thread look for work, if it sleeps."""
        sleep = self.sleeping
        waker = self._waker
        if sleep and sleep != self._woken and waker is not None:
            # A full buffer means that a wake-up is on its way; a closed one that the thread has ended.
            with contextlib.suppress(OSError):
                syscalls.send(waker[1], b"\0")
            # Noted after the send, so that an interrupted caller suppresses nobody else's wake-up; noted as a number,
            # so that a caller that was held up here, and notes an earlier sleep, suppresses none of this one.
            self._woken = sleep

    def is_current(self) -> bool:
        """Whether the caller is the I/O thread, or the guest that runs the loop in its place."""
        return self.leadership.is_current()

    def wait_stopped(self, timeout: float | None) -> bool:
        """Wait until the thread has ended; return whether it has. At once if nobody has started it."""
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        if self.started and not self.ended:
            waiter.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        with contextlib.suppress(ValueError):  # it has been released
            self._waiters.remove(waiter)
        return self.ended or not self.started

    # ---- a guest ---------------------------------------------------------------------------------------------------

    def run_turns(self, until: Callable[[], bool], timeout: float | None) -> None:
        """Run the loop on the calling thread, which is the guest of ``leadership``.

        Ends when ``until()`` is true, the loop is to stop, or ``timeout`` seconds are over.
        """
        if self.stopped or not self.leadership.lead():
            return
        try:
            deadline = self._guest_deadline = NEVER if timeout is None else self.clock() + timeout
            while not (self.stopped or until() or self.now >= deadline):
                self._guarded_turn(until)
        finally:
            self._guest_deadline = NEVER
            self.release_now()
            self.leadership.go_away()

    # ---- the child of a fork ---------------------------------------------------------------------------------------

    def close_after_fork(self) -> None:
        """Close the descriptors that the child inherited, and touch nothing else.

        The selector is shared with the parent: taking a socket out of it here would make the parent deaf.
        """
        self.stopped = True
        self.sleeping = 0
        self._close_descriptors()

    def take_inbox(self) -> list[Callable[[], object]]:
        """Return the posted calls that nobody will make here."""
        calls = list(self._inbox)
        self._inbox.clear()
        return calls

    # ---- the I/O thread --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the loop after this turn."""
        self.stopped = True

    def run_leftovers(self) -> None:
        """Make the calls that were posted to a loop that has ended."""
        while self._inbox:
            with contextlib.suppress(Exception):  # one call's failure must not keep the next from closing its socket
                self._inbox.popleft()()

    def release_soon(self, waiters: list[threading.Lock]) -> None:
        """Wake those who wait for these locks, just before the loop waits and gives up the interpreter's lock.

        A caller that is woken earlier finds that lock taken, and has to be woken once more. Whoever calls this has seen
        that somebody waits, after what they wait for had happened.
        """
        releases = self._releases
        if self.ended or not self.running:
            # Whoever closes the client does the rest of its work, and no turn will follow.
            releases = waiters
        else:
            try:
                while waiters:
                    releases.append(waiters.pop())
            except IndexError:  # the last one has just given up waiting
                pass
            if len(releases) < _RELEASE_LIMIT:
                return
        release_all(releases)

    def release_now(self) -> None:
        """Wake those whose wait is over."""
        while self._releases:
            self._releases.pop().release()

    def watch(self, sock: socket.socket | int, pollable: Pollable) -> None:
        """Call ``pollable.on_ready`` whenever ``sock``, or a descriptor of another kind, can be read.

        Raises:
            OSError: there is no descriptor for the selector, or it takes no more sockets.
        """
        selector = self._selector or self._open()
        selector.register(sock, selectors.EVENT_READ, pollable)

    def watch_writes(self, sock: socket.socket, pollable: Pollable, writes: bool) -> None:
        """Watch for writability too, or no longer."""
        assert self._selector is not None
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writes else 0)
        self._selector.modify(sock, events, pollable)

    def unwatch(self, sock: socket.socket) -> None:
        """Stop watching a socket, before it is closed."""
        if self._selector is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(sock)

    def _run(self) -> None:
        me = threading.get_ident()
        if self._role.setdefault("io", me) != me:
            return
        self.running = True
        try:
            while not self.stopped:
                if self.leadership.take():
                    self._guarded_turn()
        finally:
            self.stopped = True
            self.leadership.ended = True
            self._on_stop()
            self._close_descriptors()
            self.ended = True
            # Callers that post or submit after this see that the loop has ended; those that did before are served here.
            self._on_stop()
            self.run_leftovers()
            self.release_now()
            release_all(self._waiters)

    def _close_descriptors(self) -> None:
        """Close the selector and the waker, and touch no socket that is watched."""
        selector, self._selector = self._selector, None
        waker, self._waker = self._waker, None
        if selector is not None:
            selector.close()
        for end in waker or ():
            end.close()

    def _open(self) -> selectors.BaseSelector:
        """Make the selector and the waker: both, or neither.

        Raises:
            OSError: the process has no descriptors for them.
        """
        selector = selectors.DefaultSelector()
        try:
            reader, writer = socket.socketpair()
        except OSError:
            selector.close()
            raise
        reader.setblocking(False)
        writer.setblocking(False)
        selector.register(reader, selectors.EVENT_READ, None)
        self._waker = reader, writer
        self._selector = selector
        return selector

    def _guarded_turn(self, until: Callable[[], bool] | None = None) -> None:
        try:
            self._one_turn(until)
        except Exception as error:  # the loop must outlive whatever nobody thought of
            self._on_error(error)

    def _one_turn(self, until: Callable[[], bool] | None) -> None:
        """Wait for what is ready, handle it, and do the rest of the turn.

        If a guest finds that it has what it leads for, the rest is a turn of its own, the next one: the rest is then
        done while the server works on what the guest sends, and the server does not wait for the rest.
        """
        if self._rest_is_due:
            self._do_the_rest()
            return
        if self._selector is None:
            with contextlib.suppress(OSError):
                self._open()
        # Callers that post between the look at the inbox and the new moment must wake the loop.
        self.wake_at = NEVER
        self.sleeping = self.wakeups + 1
        if self._inbox or self._has_work() or self.leadership.wish is not None:
            timeout: float | None = 0.0
        else:
            moment = min(self._timers.next_moment(), self._guest_deadline)
            timeout = None if moment == NEVER else max(0.0, moment - self.clock())
        self.wake_at = NEVER if timeout is None else self.clock() + timeout
        self.release_now()
        try:
            ready = self._select(timeout)
        finally:
            self.sleeping = 0
        self.wakeups += 1
        self.now = self.clock()
        for key, events in ready:
            pollable = key.data
            if pollable is None:
                with contextlib.suppress(OSError):
                    key.fileobj.recv(4096)  # type: ignore[union-attr]
            else:
                pollable.on_ready(bool(events & selectors.EVENT_READ), bool(events & selectors.EVENT_WRITE))
        self._rest_is_due = True
        if until is None or not until():
            self._do_the_rest()

    def _do_the_rest(self) -> None:
        self._rest_is_due = False
        # Sockets first, timers after: a process that was stopped for a while finds answers and due health checks at
        # once, and must not take a server for dead whose answer lies there unread.
        self._timers.run_due(self.now)
        self._run_inbox()
        self._turn()

    def _select(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._selector is not None:
            return self._selector.select(timeout)
        # Nobody can wake the loop without a waker, so the loop looks for work by itself.
        threading.Event().wait(_BLIND_TURN if timeout is None else min(timeout, _BLIND_TURN))
        return []

    def _run_inbox(self) -> None:
        inbox = self._inbox
        # No more than is there now: calls that post calls must not keep the sockets waiting.
        for _ in range(len(inbox)):
            inbox.popleft()()


def copy_of(entries: deque[T]) -> Sequence[T]:
    """Return a copy of a deque at whose end other threads put entries, and from whose front they take some, meanwhile.

    With the GIL that is one step. Without it none is missing that is there all the time, and some may be there twice.
    """
    # Without the GIL CPython 3.13's copy() waits for a lock of its own at each entry, which takes microseconds.
    with contextlib.suppress(RuntimeError):  # somebody changed it
        return entries.copy() if syscalls.HAS_GIL else tuple(entries)
    # Counted from the end, so that no entry moves up unseen when the first one is taken away.
    found: list[T] = []
    with contextlib.suppress(IndexError):
        while True:
            found.append(entries[-1 - len(found)])
    found.reverse()
    return found
