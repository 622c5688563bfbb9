"""The background thread: wake-ups, the order within a turn, errors, and its end."""

from __future__ import annotations

import itertools
import socket
import sys
import threading
from collections import deque
from pathlib import Path

import pytest

from gearman_pool.transport import io_thread, syscalls
from gearman_pool.transport.io_thread import IOThread, copy_of

from ..support.waiting import wait_until

_TRANSPORT = Path(io_thread.__file__).parent


class _Stop:
    """A trace function that stops its thread once, at one line of the transport, counted from where it begins."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.is_there, self.go_on = threading.Event(), threading.Event()
        self.place = "asleep"

    def __call__(self, frame, event, _argument):
        if Path(frame.f_code.co_filename).parent != _TRANSPORT:
            return None
        if event == "line":
            self._count -= 1
            if self._count == 0:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self.is_there.set()
                self.go_on.wait(20)
        return self


class _Loop:
    """An I/O thread with nothing on top."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.stopped = threading.Event()
        self.io = IOThread("gearman_pool-test", lambda: None, lambda: False, self.errors.append, self.stopped.set)

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


def test_call_that_is_posted_at_any_moment_of_the_loops_way_is_made(loop):
    for count in itertools.count(1):
        stop = _Stop(count)
        loop.run(lambda stop=stop: sys.settrace(stop))
        # Once it does not come so far it sleeps, and is to wake.
        asleep = not stop.is_there.wait(1)
        made = threading.Event()
        loop.io.post(made.set)
        stop.go_on.set()
        assert made.wait(5), f"a call was posted while the I/O thread was at: {stop.place}"
        loop.run(lambda: sys.settrace(None))
        if asleep:
            break
    assert count > 1


def test_one_wake_up_is_enough_for_all_callers_until_the_thread_has_woken(loop, monkeypatch):
    """Under load dozens find it asleep before it gets the interpreter's lock, and each system call costs them."""
    sent = []
    real = syscalls.send
    for count in itertools.count(1):
        stop = _Stop(count)
        loop.run(lambda stop=stop: sys.settrace(stop))
        asleep = not stop.is_there.wait(1)
        made = threading.Semaphore(0)
        with monkeypatch.context() as patch:
            patch.setattr(syscalls, "send", lambda sock, data: (sent.append(data), real(sock, data))[1])
            if not asleep:
                for _ in range(5):
                    loop.io.post(made.release)
        assert len(sent) <= 1, f"the I/O thread was at: {stop.place}"
        sent.clear()
        stop.go_on.set()
        if asleep:
            break
        for _ in range(5):
            assert made.acquire(timeout=5)
        loop.run(lambda: sys.settrace(None))
    loop.run(lambda: sys.settrace(None))
    assert count > 1


def test_caller_that_is_held_up_while_it_wakes_the_thread_suppresses_nobody_elses_wake_up(loop):
    def post(stop: _Stop) -> None:
        sys.settrace(stop)
        try:
            loop.io.post(lambda: None)
        finally:
            sys.settrace(None)

    for count in itertools.count(1):
        loop.run(lambda: None)
        wait_until(lambda: loop.io.sleeping, message="asleep")
        stop = _Stop(count)
        caller = threading.Thread(target=post, args=(stop,))
        caller.start()
        wait_until(lambda stop=stop, caller=caller: stop.is_there.is_set() or not caller.is_alive(), message="the call")
        # Meanwhile the thread wakes, by whomever, and falls asleep again.
        loop.run(lambda: None)
        wait_until(lambda: loop.io.sleeping, message="asleep")
        stop.go_on.set()
        caller.join(10)
        made = threading.Event()
        loop.io.post(made.set)
        assert made.wait(5), f"another caller was at: {stop.place}"
        if not stop.is_there.is_set():
            break
    assert count > 1


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


def test_what_has_come_is_read_before_timers_that_are_due(loop):
    """A process that was stopped for a while must not take a server for dead whose answer lies there."""
    reader, writer = socket.socketpair()
    seen = []
    done = threading.Event()

    class Served:
        def on_ready(self, readable: bool, writable: bool) -> None:
            seen.append(reader.recv(1))

    with reader, writer:
        loop.run(lambda: loop.io.watch(reader, Served()))
        loop.run(lambda: (writer.send(b"x"), loop.io.call_later(0, lambda: (seen.append("timer"), done.set()))))
        assert done.wait(10)
        loop.run(lambda: loop.io.unwatch(reader))
    assert seen == [b"x", "timer"]


def test_calls_that_post_further_calls_do_not_keep_a_socket_waiting(loop):
    reader, writer = socket.socketpair()
    calls = 0
    over = threading.Event()

    class Served:
        come = False

        def on_ready(self, readable: bool, writable: bool) -> None:
            reader.recv(1)
            self.come = True

    served = Served()

    def again() -> None:
        nonlocal calls
        calls += 1
        if served.come or calls == 1000:
            over.set()
        else:
            loop.io.post(again)

    with reader, writer:
        loop.run(lambda: loop.io.watch(reader, served))
        loop.run(lambda: (writer.send(b"x"), loop.io.post(again)))
        assert over.wait(10)
        assert served.come
        loop.run(lambda: loop.io.unwatch(reader))
    assert calls < 10


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
