"""The threads on which users' callbacks run: never the I/O thread.

There are as many as are needed so that a callback that blocks holds up nobody: a new one starts when all are busy, up
to `MAX_THREADS`, and one that has had nothing to do for a while ends. Callbacks of one job go through one `Mailbox`, so
they run one after the other, in order.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic

__all__ = ["MAX_THREADS", "CallbackThreads", "Mailbox"]

log: logging.Logger = logging.getLogger("gearman_pool.callbacks")

#: With this many callbacks blocked at the same time, further ones wait.
MAX_THREADS = 16

#: A thread ends after this time without work, in seconds.
IDLE_TIME = 5.0

#: When a thread that could not be started is tried again, in seconds.
RETRY_AFTER = 0.1

Call = Callable[[], object]


class _Idle:
    """An idle thread: ``lock``, taken from the beginning, is released when there is a call for it, or it is to end."""

    __slots__ = ("call", "lock")

    def __init__(self) -> None:
        self.call: Call | None = None
        self.lock = threading.Lock()
        self.lock.acquire()


class CallbackThreads:
    """Runs calls on daemon threads. Any thread may call `submit`.

    ``_lock`` guards all fields. It is held for a few instructions, by the I/O thread, by these threads, by those that
    run tasks and by who stops them, never across a call, and no other lock is held or taken with it.
    """

    def __init__(self, name: str, post_later: Callable[[float, Call], object]) -> None:
        """``post_later(delay, call)`` makes a call after a time, on some other thread; it must not block."""
        self._name = name
        self._post_later = post_later
        self._lock = threading.Lock()
        self._idle: list[_Idle] = []
        self._backlog: deque[Call] = deque()
        self._threads: set[threading.Thread] = set()
        self._stopped = False

    def submit(self, call: Call) -> None:
        """Run ``call`` on one of the threads, soon."""
        with self._lock:
            if self._idle:
                idle = self._idle.pop()
                idle.call = call
                idle.lock.release()
                return
            self._backlog.append(call)
        self.resume()

    def resume(self) -> None:
        """Start a thread for what waits, if there may be one more."""
        with self._lock:
            if not self._backlog or len(self._threads) >= MAX_THREADS:
                return
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:  # too many threads in this process, or the interpreter is shutting down
            with self._lock:
                self._threads.discard(thread)
                missing = not self._threads
            if missing:
                self._post_later(RETRY_AFTER, self.resume)

    def stop(self) -> None:
        """Let the threads end when they have done what they were given."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
        for waiting in idle:
            waiting.lock.release()

    def join(self, timeout: float) -> None:
        """Wait for the threads to end, but for the calling one, for at most ``timeout`` seconds."""
        deadline = monotonic() + timeout
        with self._lock:
            # One that has no number yet has not been started.
            threads = [thread for thread in self._threads if thread.ident not in (None, threading.get_ident())]
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))

    def _run(self) -> None:
        call = self._next()
        while call is not None:
            try:
                call()
            except BaseException:  # SystemExit too: it would end the thread, and what waits for one would wait
                log.exception("a callback failed")
            # Not kept while idle: it would keep alive what it refers to.
            del call
            call = self._next()

    def _next(self) -> Call | None:
        """Return the next call; None if this thread is to end, which then counts as a thread no more."""
        idle = _Idle()
        with self._lock:
            if self._backlog:
                return self._backlog.popleft()
            if self._stopped:
                self._threads.discard(threading.current_thread())
                return None
            self._idle.append(idle)
        idle.lock.acquire(timeout=IDLE_TIME)
        with self._lock:
            if idle in self._idle:
                self._idle.remove(idle)
            if idle.call is None and self._backlog:
                return self._backlog.popleft()
            if idle.call is None:
                self._threads.discard(threading.current_thread())
            return idle.call


class Mailbox:
    """Runs its calls in order, one at a time, on the callback threads.

    ``_lock`` guards ``_calls`` and ``_scheduled``; it is held for a few instructions by library code only, with no
    other lock.
    """

    __slots__ = ("_calls", "_lock", "_scheduled", "_threads")

    def __init__(self, threads: CallbackThreads) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque()
        self._scheduled = False

    def put(self, call: Call) -> None:
        """Run ``call`` after those put before."""
        with self._lock:
            self._calls.append(call)
            if self._scheduled:
                return
            self._scheduled = True
        self._threads.submit(self._run)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._scheduled = False
                    return
                call = self._calls.popleft()
            try:
                call()
            except BaseException:  # SystemExit too: the calls behind this one must run
                log.exception("a callback failed")
