"""The right to run the loop goes to and fro between the I/O thread and a guest."""

from __future__ import annotations

import itertools
import socket
import sys
import threading
import time
from collections import deque

import pytest

from gearman_pool.threads.waiting import Promise
from gearman_pool.transport import leadership
from gearman_pool.transport.io_thread import IOThread
from tests.support.waiting import wait_until


@pytest.fixture
def loop():
    errors: list[BaseException] = []
    io = IOThread("gearman_pool-test", lambda: None, lambda: False, errors.append, lambda: None)
    io.ensure_running()
    # It leads, and not only runs, before anybody becomes its guest.
    who_runs(io).wait(10)
    yield io
    io.leadership.leave()
    io.post(io.stop)
    assert io.wait_stopped(10)
    assert not errors


def who_runs(io: IOThread) -> Promise:
    """A promise of the thread that makes a posted call."""
    promise = Promise()
    io.post(lambda: promise.set(threading.get_ident()))
    return promise


def lead(io: IOThread) -> int:
    """Run the loop on this thread, and return who makes a call that is posted meanwhile."""
    asked: list[Promise] = []

    def until() -> bool:
        if not asked:
            asked.append(who_runs(io))
        return asked[0].done

    io.run_turns(until, 10)
    return asked[0].wait(0)


def test_guest_makes_posted_calls_while_it_leads(loop):
    loop.leadership.enter()
    assert lead(loop) == threading.get_ident()


def test_call_from_another_thread_wakes_the_guest(loop):
    found: deque[Promise] = deque()
    caller = threading.Thread(target=lambda: (wait_until(lambda: loop.sleeping), found.append(who_runs(loop))))

    def until() -> bool:
        if caller.ident is None:
            caller.start()
        return bool(found) and found[0].done

    loop.leadership.enter()
    started = time.monotonic()
    loop.run_turns(until, 10)
    caller.join()
    assert found[0].wait(0) == threading.get_ident()
    assert time.monotonic() - started < 5


def test_io_thread_leads_while_the_guest_is_away_for_long(loop):
    loop.leadership.enter()
    loop.run_turns(lambda: True, None)
    assert who_runs(loop).wait(10) != threading.get_ident()


def test_guest_gets_the_loop_back_from_the_sleeping_io_thread_at_once(loop):
    loop.leadership.enter()
    for _ in range(20):
        loop.run_turns(lambda: True, None)
        assert who_runs(loop).wait(10) != threading.get_ident()
        wait_until(lambda: loop.sleeping)
        assert lead(loop) == threading.get_ident()


def test_io_thread_leads_when_the_guest_has_left(loop):
    loop.leadership.enter()
    lead(loop)
    loop.leadership.leave()
    assert who_runs(loop).wait(10) != threading.get_ident()


def test_guest_that_is_interrupted_in_the_loop_leaves_it_to_the_io_thread(loop):
    class Interruption(BaseException):
        pass

    def interrupt() -> None:
        raise Interruption

    once = iter([interrupt])
    loop.leadership.enter()
    with pytest.raises(Interruption):
        loop.run_turns(lambda: any(loop.post(call) for call in once), 10)
    loop.leadership.leave()
    assert who_runs(loop).wait(10) != threading.get_ident()


def test_rest_of_a_turn_that_the_guest_leaves_is_done_by_who_leads_next(loop):
    reader, writer = socket.socketpair()
    made: list[int] = []

    class Brought:
        asked = come = due = False

        def on_ready(self, readable: bool, writable: bool) -> None:
            reader.recv(1)
            self.come = self.due = True

        def turn(self) -> bool:
            if self.due:
                self.due = False
                made.append(threading.get_ident())
            return False

        def ask(self) -> bool:
            if not self.asked:
                self.asked = True
                writer.send(b"x")
            return self.come

    brought = Brought()
    loop._turn = brought.turn
    with reader, writer:
        watched = Promise()
        loop.post(lambda: watched.set(loop.watch(reader, brought)))
        watched.wait(10)
        loop.leadership.enter()
        for leads_again in (True, False):
            brought.asked = brought.come = False
            loop.run_turns(brought.ask, 10)
            assert brought.come
            assert not made
            if leads_again:
                loop.run_turns(lambda: bool(made), 10)
                assert made.pop() == threading.get_ident()
        # Away for good.
        wait_until(lambda: made, message="the I/O thread leads")
        assert made.pop() != threading.get_ident()
        unwatched = Promise()
        loop.leadership.leave()
        loop.post(lambda: unwatched.set(loop.unwatch(reader)))
        unwatched.wait(10)


def test_wait_of_the_guest_is_bounded(loop):
    loop.leadership.enter()
    started = time.monotonic()
    loop.run_turns(lambda: False, 0.05)
    assert 0.04 < time.monotonic() - started < 5


def test_wait_of_the_guest_is_bounded_before_the_next_timer_is_due(loop):
    due: list[float] = []
    loop.leadership.enter()
    loop.run_turns(lambda: True, 10)
    armed = Promise()
    loop.post(lambda: armed.set(loop.call_later(8, lambda: due.append(8))))
    timer = armed.wait(10)
    loop.run_turns(lambda: False, 0.05)
    assert not due
    timer.cancel()


def test_guest_gets_the_loop_as_soon_as_the_io_thread_hands_it_over(loop):
    """And does not look for itself, after so long a time, whether it may lead."""
    took = []
    loop.leadership.enter()
    # If nobody wakes the I/O thread.
    loop.post(lambda: loop.call_later(5, lambda: None))
    for _ in range(20):
        loop.run_turns(lambda: True, None)
        assert who_runs(loop).wait(10) != threading.get_ident()
        wait_until(lambda: loop.sleeping)
        started = time.monotonic()
        assert loop.leadership.lead()
        took.append(time.monotonic() - started)
        assert took[-1] < 4
        loop.leadership.go_away()
    # On a busy machine some take longer.
    assert min(took) < leadership.PATIENCE / 2


def test_io_thread_that_sleeps_while_the_guest_leads_wakes_when_it_goes_away(loop):
    loop.leadership.enter()
    # Long against the I/O thread's looks: it finds the guest quiet, and looks no more.
    loop.run_turns(lambda: False, 0.5)
    assert who_runs(loop).wait(5) != threading.get_ident()


class _Follower(threading.Thread):
    """Looks whether it may lead until it may, as the I/O thread does, and stops at one line of its way to be overtaken.

    ``count`` says at which, counted from its start.
    """

    def __init__(self, followed: leadership.Leadership, count: int) -> None:
        super().__init__()
        self._followed = followed
        self._count = count
        self.is_there, self.go_on = threading.Event(), threading.Event()
        self.place = "asleep"

    def run(self) -> None:
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            while not self._followed.take():
                pass
        finally:
            sys.settrace(before)

    def _trace(self, frame, event, _argument):
        if frame.f_code.co_filename != leadership.__file__:
            return None
        if event == "line":
            self._count -= 1
            if self._count == 0:
                self.place = f"line {frame.f_lineno}"
                self.is_there.set()
                self.go_on.wait(20)
        return self._trace


@pytest.mark.parametrize("ends", ["go_away", "leave"])
def test_guest_that_goes_at_any_moment_of_the_io_threads_look_is_followed(ends):
    for count in itertools.count(1):
        followed = leadership.Leadership(lambda: None)
        followed.enter()
        assert followed.lead()
        follower = _Follower(followed, count)
        follower.start()
        # Once it does not come so far it sleeps, and is to wake.
        asleep = not follower.is_there.wait(1)
        getattr(followed, ends)()
        follower.go_on.set()
        follower.join(5)
        stuck = follower.is_alive()
        if stuck:
            followed.go_away()
            followed.leave()
            follower.join(5)
        assert not stuck, f"nobody leads: the guest went while the I/O thread was at: {follower.place}"
        if asleep:
            break
    assert count > 1


def test_loop_that_is_stopped_ends_the_guests_wait(loop):
    loop.leadership.enter()
    loop.post(loop.stop)
    loop.run_turns(lambda: False, None)
    loop.leadership.leave()
    assert loop.wait_stopped(10)


def test_io_thread_does_not_wake_while_the_guest_waits(loop):
    loop.leadership.enter()
    looks = 0
    original = loop.leadership.take

    def take() -> bool:
        nonlocal looks
        looks += 1
        return original()

    loop.leadership.take = take
    # Long against the I/O thread's looks, each 20 ms after the last; it may look twice before it finds the guest quiet.
    loop.run_turns(lambda: False, 0.5)
    assert looks <= 5


@pytest.mark.slow
def test_only_one_thread_runs_turns_at_a_time(loop):
    inside = 0
    most = 0
    turns = 0

    def turn() -> bool:
        nonlocal inside, most, turns
        inside += 1
        most = max(most, inside)
        turns += 1
        inside -= 1
        return False

    loop._turn = turn
    done = threading.Event()

    def post() -> None:
        while not done.is_set():
            loop.post(lambda: None)
            done.wait(0.0005)

    poster = threading.Thread(target=post)
    poster.start()
    loop.leadership.enter()
    pause = threading.Event()
    for number in range(200):
        target = turns + 3
        loop.run_turns(lambda target=target: turns >= target, 10)
        # Away for a while that is sometimes shorter and sometimes longer than the I/O thread's patience.
        pause.wait((number % 5) * 0.01)
    done.set()
    poster.join()
    assert most == 1
    assert turns >= 600
