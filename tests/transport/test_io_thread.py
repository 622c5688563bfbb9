"""The background thread: wake-ups, timers, errors, and its end."""

from __future__ import annotations

import threading
from collections import deque

import pytest

from gearman_pool.transport.io_thread import IOThread, copy_of

from ..support.waiting import wait_until


class _Loop:
    """An I/O thread with nothing on top."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.stopped = threading.Event()
        self.io = IOThread("gearman_pool-test", lambda: False, lambda: False, self.errors.append, self.stopped.set)

    def run(self, call):
        """Make a call on the thread and return its result."""
        results: deque[object] = deque()
        done = threading.Event()
        self.io.post(lambda: (results.append(call()), done.set()))
        self.io.ensure_running()
        assert done.wait(10)
        return results[0]


@pytest.fixture
def loop():
    loop = _Loop()
    yield loop
    loop.io.post(loop.io.stop)
    assert loop.io.wait_stopped(10)


def test_thread_starts_with_the_first_use_and_only_once(loop):
    assert not loop.io.running
    callers = [threading.Thread(target=loop.io.ensure_running) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    ident = loop.run(threading.get_ident)
    wait_until(lambda: sum(t.name == "gearman_pool-test" for t in threading.enumerate()) == 1, message="one thread")
    assert loop.run(threading.get_ident) == ident
    assert loop.run(loop.io.is_current)
    assert not loop.io.is_current()


def test_no_call_is_lost_when_many_threads_post_to_a_thread_that_keeps_falling_asleep(loop):
    count = 2000
    done = threading.Semaphore(0)

    def post() -> None:
        for _ in range(count):
            loop.io.post(done.release)
            assert done.acquire(timeout=10), "a wake-up was lost"

    loop.io.ensure_running()
    callers = [threading.Thread(target=post) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()


def test_timers_run_in_order_and_cancelled_ones_do_not(loop):
    ran: list[int] = []
    done = threading.Event()

    def arm() -> None:
        for number in (3, 1, 2):
            loop.io.call_later(number / 100, lambda number=number: ran.append(number))
        loop.io.call_later(0.015, lambda: ran.append(9)).cancel()
        loop.io.call_later(0.04, done.set)

    loop.run(arm)
    assert done.wait(10)
    assert ran == [1, 2, 3]


def test_cancelled_timers_are_dropped_long_before_they_are_due(loop):
    def churn() -> int:
        for _ in range(50_000):
            loop.io.call_later(3600, lambda: None).cancel()
        return len(loop.io._timers)

    assert loop.run(churn) < 5_000


def test_idle_thread_does_not_wake(loop):
    loop.run(lambda: None)
    wait_until(lambda: loop.io.sleeping, message="asleep")
    before = loop.io.wakeups
    assert not loop.stopped.wait(0.3)
    assert loop.io.wakeups == before


def test_unexpected_error_is_reported_and_the_loop_goes_on(loop):
    loop.io.post(lambda: 1 / 0)
    loop.run(lambda: None)
    wait_until(lambda: loop.errors, message="the error")
    assert isinstance(loop.errors[0], ZeroDivisionError)
    assert loop.run(lambda: 7) == 7


def test_call_that_is_due_before_the_next_wake_up_wakes_it(loop):
    loop.run(lambda: loop.io.call_later(3600, lambda: None))
    wait_until(lambda: loop.io.sleeping, message="asleep")
    done = threading.Event()
    loop.io.post_by(loop.io.clock() + 0.01, done.set)
    assert done.wait(10)


def test_waiting_for_a_thread_that_never_ran_returns_at_once():
    assert _Loop().io.wait_stopped(10)


def test_waiting_for_the_end_is_bounded(loop):
    loop.run(lambda: None)
    assert not loop.io.wait_stopped(0.01)


def test_waiting_again_and_again_leaves_nothing_behind(loop):
    loop.run(lambda: None)
    for _ in range(100):
        assert not loop.io.wait_stopped(0)
    assert not loop.io._waiters


def test_copy_of_a_deque_that_another_thread_changes_lacks_nothing_that_stays_in_it():
    # Numbers in a row, of which the other thread takes the first away and puts the next to the end.
    entries = deque(range(200))
    ending = threading.Event()

    def change() -> None:
        while not ending.is_set():
            entries.append(entries[-1] + 1)
            entries.popleft()
            sum(range(500))  # about as long as a job takes

    thread = threading.Thread(target=change)
    thread.start()
    try:
        copies = 0
        while copies < 200 or entries[0] < 200:
            last = entries[-1]
            copy = set(copy_of(entries))
            # What was there before, and is there still.
            assert set(range(entries[0], last + 1)) <= copy
            assert max(copy) <= entries[-1]
            copies += 1
    finally:
        ending.set()
        thread.join()
