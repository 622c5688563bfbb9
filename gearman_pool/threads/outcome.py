"""`Outcome`: a `concurrent.futures.Future` whose waiting callers share no lock with the I/O thread.

Two things differ from the standard library's class, both on purpose:

* ``result()`` does not wait on a condition. A waiting caller adds a lock of its own to a list, looks at the state once
  more, and waits for that lock; the I/O thread sets the state and then releases the locks it finds. An exception that
  is raised into a waiting caller from outside (Ctrl-C, a time limit) can leave the standard class's lock taken, and the
  thread that resolves futures then waits for it for ever: a ThreadPoolExecutor froze after about 150 such exceptions.
* The lock that `concurrent.futures.wait` and `as_completed` rely on is still there and still guards the state, but the
  I/O thread waits for it 20 ms at the most; then a callback thread resolves that future.

An `Outcome` also takes a third of the memory: what is rarely used is made when it is used.

Threads: `done`, `cancelled`, `wait_done` and `watch` are for any thread; `resolve` and `replace_guard` for the one that
has the outcome; `tell_waiters` and `call_back` for callback threads, because they run others' code.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from .waiting import release_all, wait_for

__all__ = ["CANCELLED", "FINISHED", "OPEN", "PENDING", "Audience", "Outcome"]

log: logging.Logger = logging.getLogger("gearman_pool.callbacks")

#: The standard library's names of states.
PENDING = "PENDING"
CANCELLED = "CANCELLED_AND_NOTIFIED"
FINISHED = "FINISHED"
#: The states of what is not done.
OPEN = frozenset((PENDING, "RUNNING"))

#: Who is to be told of an outcome: the standard library's waiters and asyncio; and users' callbacks.
Audience = tuple[list[Any], list[Callable[[Any], object]]]

#: What a later Python's class has and this one does not know of.
_NEWER_ATTRIBUTES = sorted(
    set(vars(concurrent.futures.Future()))
    - {"_condition", "_state", "_result", "_exception", "_waiters", "_done_callbacks"}
)

_RLock: Any = type(threading.RLock())


class _Guard(_RLock):  # type: ignore[misc]
    """The lock behind ``Future._condition``: the standard library enters and leaves it, and nobody waits on it."""

    __slots__ = ()

    def notify_all(self) -> None:
        """Nobody waits here: see `Outcome.wait_done`."""


class Outcome(concurrent.futures.Future[Any]):
    """What callers wait for. Set once, by `resolve`.

    ``_condition`` guards ``_state``, ``_result``, ``_exception``, ``_done_callbacks`` and ``_waiters`` (the standard
    library's names). No other lock is held with it; the standard library's functions hold those of several futures.
    ``_audience`` is written with the outcome, and then belongs to who has resolved it. ``_blocked`` and ``_watchers``
    are lists of callers' own locks, changed by single operations. What is read for every job stands in slots, which is
    cheapest up to Python 3.11; what one rarely has stands on the class until it is there.
    """

    __slots__ = (
        "_audience",
        "_blocked",
        "_callback_list",
        "_condition",
        "_exception",
        "_result",
        "_state",
        "_waiter_list",
    )

    _watchers: Any = ()

    def __init__(self) -> None:
        # Not the base class's __init__, which makes at once what is made here when it is needed.
        self._condition = _Guard()
        self._state = PENDING
        self._result = None
        self._exception: BaseException | None = None
        self._callback_list: list[Callable[[Any], object]] | None = None
        self._waiter_list: list[Any] | None = None
        self._audience: Audience | None = None
        self._blocked: list[threading.Lock] = []
        if _NEWER_ATTRIBUTES:
            self._add_newer_attributes()

    def _add_newer_attributes(self) -> None:
        model = concurrent.futures.Future[Any]()
        for name in _NEWER_ATTRIBUTES:
            setattr(self, name, getattr(model, name))

    # The standard library's functions find these two under its own names, and only some futures ever need them.

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        if self._callback_list is None:
            self._callback_list = []
        return self._callback_list

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        if self._waiter_list is None:
            self._waiter_list = []
        return self._waiter_list

    def done(self) -> bool:
        """Whether there is a result, or an error, or it was cancelled."""
        return self._state not in OPEN

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state == CANCELLED

    @property
    def error(self) -> BaseException | None:
        """The exception that was set, as it stands; None if there is none (yet)."""
        return self._exception

    def wait_done(self, timeout: float | None) -> bool:
        """Wait until it is done, for ``timeout`` seconds, or for ever if None; return whether it is."""
        blocked = self._blocked
        deadline = None if timeout is None else monotonic() + timeout
        while self._state in OPEN:
            waiter = threading.Lock()
            waiter.acquire()
            blocked.append(waiter)
            if self._state not in OPEN:
                return True
            if deadline is None:
                waiter.acquire()
            elif not waiter.acquire(timeout=max(0.0, deadline - monotonic())):
                _remove(blocked, waiter)
                return self._state not in OPEN
        return True

    def watch(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until ``condition`` holds, looking whenever `tell_watchers` is called, and when it is done.

        Return whether it holds; after ``timeout`` seconds, or never if None, it is looked at for the last time.
        """
        deadline = None if timeout is None else monotonic() + timeout
        # One list for all who watch, though several may be the first.
        return wait_for(condition, self.__dict__.setdefault("_watchers", []), deadline)

    def tell_watchers(self) -> None:
        """Have who watches look again."""
        if self._watchers:
            release_all(self._watchers)

    def resolve(
        self,
        state: str,
        result: Any,
        error: BaseException | None,
        patience: float,
        release: Callable[[list[threading.Lock]], object] = release_all,
    ) -> bool | None:
        """Set the outcome and have ``release`` wake who waits for it.

        Returns:
            True if it was set, False if there was one already, None if the lock could not be had in ``patience``
            seconds.
        """
        guard = self._condition
        if not guard.acquire(False) and not (patience and guard.acquire(timeout=patience)):
            return None
        try:
            if self._state not in OPEN:
                return False
            self._result = result
            if error is not None:
                self._exception = error
            self._state = state
            # In one step with the state: whoever comes later finds it done and expects to be told nothing.
            if self._waiter_list or self._callback_list:
                self._audience = _sort_audience(self._waiter_list, self._callback_list)
        finally:
            guard.release()
        # A copy, not a look: it takes the list's own lock where there is no GIL, and so orders this after the state.
        if self._blocked.copy():
            release(self._blocked)
        if self._watchers:
            release(self._watchers)
        return True

    def replace_guard(self) -> None:
        """Give it a new lock, because the old one was left taken by a caller that was interrupted, or by a fork."""
        self._condition = _Guard()

    def tell_waiters(self, waiters: list[Any], patience: float) -> None:
        """Tell who waits with `concurrent.futures.wait` and the like, or in an asyncio loop. Not on the I/O thread."""
        for waiter in waiters:
            try:
                if callable(waiter):
                    waiter(self)
                elif not _reachable(waiter, patience):
                    continue
                elif self._state == CANCELLED:
                    waiter.add_cancelled(self)
                elif self._exception is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
            except Exception:  # a loop that is closed by now; the waiters behind this one must be told
                log.exception("whoever waits for %r could not be told that it is done", self)

    def call_back(self, callbacks: list[Callable[[Any], object]]) -> None:
        """Run users' callbacks. On a callback thread."""
        for callback in callbacks:
            try:
                callback(self)
            except BaseException:  # SystemExit too: the callbacks behind this one must run
                log.exception("a done callback of %r failed", self)


def _sort_audience(waiters: list[Any] | None, callbacks: list[Callable[[Any], object]] | None) -> Audience:
    """Part those that only pass the news on, in library code and at once, from users' callbacks, which may block."""
    to_tell = list(waiters or ())
    to_call: list[Callable[[Any], object]] = []
    for callback in callbacks or ():
        # What asyncio.wrap_future, and so await, has added: it hands the future to its loop.
        passes_on = getattr(callback, "__module__", None) == "asyncio.futures"
        (to_tell if passes_on else to_call).append(callback)
    return to_tell, to_call


def _reachable(waiter: Any, patience: float) -> bool:
    """Whether the locks of a waiter of the standard library's can be had; a caller that was interrupted left them."""
    if getattr(waiter, "left_by_its_caller", False):
        return False
    for lock in (getattr(waiter, "lock", None), waiter.event._cond):
        if lock is not None:
            if not lock.acquire(timeout=patience):
                waiter.left_by_its_caller = True
                return False
            lock.release()
    return True


def _remove(waiters: list[threading.Lock], waiter: threading.Lock) -> None:
    try:
        waiters.remove(waiter)
    except ValueError:  # the I/O thread has just taken it
        return
