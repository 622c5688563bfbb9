"""`Outcome`: set once, told to everybody who waits, however they wait, and whatever became of the others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import threading
import time
from collections import Counter
from concurrent.futures import _base
from functools import partial

import pytest

from gearman_pool.threads.outcome import CANCELLED, FINISHED, Outcome

from ..support.steps import Steps
from ..support.waiting import wait_until


class Interruption(BaseException):
    """What is raised into a waiting caller from outside."""


def interrupt():
    raise Interruption


def settle(outcome, state=FINISHED, result=None, error=None):
    """Resolve it, and tell everybody, as an engine and its callback threads do."""
    # A caller that begins to wait may have its lock for a moment.
    resolved = outcome.resolve(state, result, error, 10)
    assert resolved
    audience, outcome._audience = outcome._audience, None
    if audience is not None:
        waiters, done_callbacks = audience
        outcome.tell_waiters(waiters, 1.0)
        outcome.call_back(done_callbacks)


@pytest.fixture
def run():
    """Start calls on threads of their own; all must have ended at the test's end. Gives a list of what they return."""
    threads, results = [], []

    def start(call):
        thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
        threads.append(thread)
        thread.start()
        return results

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def leave_taken(lock):
    """Take a lock on a thread that ends without giving it back.

    No assertion may then name the outcome itself: the text of one that fails would wait for that lock.
    """
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()


# ---- the outcome ---------------------------------------------------------------------------------------------------


def test_outcome_that_is_open_has_nothing():
    outcome = Outcome()
    assert (outcome.done(), outcome.cancelled(), outcome.running(), outcome.error) == (False, False, False, None)


def test_outcome_has_all_that_the_standard_librarys_class_has():
    model, outcome = concurrent.futures.Future(), Outcome()
    missing = [name for name in dir(model) if not hasattr(outcome, name)]
    assert not missing


def test_value_is_the_result():
    outcome = Outcome()
    assert outcome.resolve(FINISHED, b"result", None, 0) is True
    assert (outcome.done(), outcome.cancelled(), outcome.error) == (True, False, None)
    assert (outcome.result(0), outcome.exception(0)) == (b"result", None)


def test_error_is_raised():
    outcome, error = Outcome(), ZeroDivisionError("why")
    assert outcome.resolve(FINISHED, None, error, 0) is True
    assert (outcome.done(), outcome.cancelled(), outcome.error) == (True, False, error)
    assert outcome.exception(0) is error
    with pytest.raises(ZeroDivisionError, match="why"):
        outcome.result(0)


def test_cancelled_is_done():
    outcome = Outcome()
    assert outcome.resolve(CANCELLED, None, None, 0) is True
    assert (outcome.done(), outcome.cancelled(), outcome.error) == (True, True, None)
    with pytest.raises(concurrent.futures.CancelledError):
        outcome.result(0)


@pytest.mark.parametrize("second", [(FINISHED, "second", None), (FINISHED, None, OSError()), (CANCELLED, None, None)])
def test_first_outcome_is_the_one_that_counts(second):
    outcome = Outcome()
    assert outcome.resolve(FINISHED, "first", None, 0) is True
    assert outcome.resolve(*second, 0) is False
    assert (outcome.result(0), outcome.exception(0), outcome.cancelled()) == ("first", None, False)


def test_of_many_that_resolve_it_at_once_one_does(run):
    outcome, barrier = Outcome(), threading.Barrier(8)

    def resolve(number: int) -> object:
        barrier.wait(10)
        return number, outcome.resolve(FINISHED, number, None, 10)

    for number in range(8):
        results = run(partial(resolve, number))
    wait_until(lambda: len(results) == 8, message="all")
    assert [number for number, first in results if first] == [outcome.result(0)]
    assert sum(first is False for _, first in results) == 7


# ---- waiting callers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 0, 60.0])
def test_outcome_that_is_there_is_not_waited_for(timeout):
    outcome = Outcome()
    settle(outcome)
    assert outcome.wait_done(timeout)
    assert not outcome._blocked


@pytest.mark.parametrize("timeout", [-1.0, 0, 0.01])
def test_wait_that_is_over_leaves_nothing_behind(timeout):
    outcome = Outcome()
    assert not outcome.wait_done(timeout)
    assert not outcome._blocked
    assert not outcome.watch(lambda: False, timeout)
    assert not outcome._watchers


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("state", [FINISHED, CANCELLED])
def test_all_who_wait_are_woken(run, timeout, state):
    outcome = Outcome()
    for _ in range(10):
        results = run(lambda: outcome.wait_done(timeout))
    wait_until(lambda: len(outcome._blocked) == 10, message="all wait")
    settle(outcome, state)
    wait_until(lambda: results == [True] * 10, message="all are woken")
    assert not outcome._blocked


def test_who_waits_is_woken_by_what_the_resolver_says(run):
    outcome, released = Outcome(), []
    results = run(lambda: outcome.wait_done(None))
    run(lambda: outcome.watch(outcome.done, None))
    wait_until(lambda: outcome._blocked and outcome._watchers, message="both wait")
    assert outcome.resolve(FINISHED, None, None, 0, released.append)
    assert released == [outcome._blocked, outcome._watchers]
    for waiters in released:
        for waiter in waiters:
            waiter.release()
    wait_until(lambda: results == [True, True], message="both are woken")


@pytest.mark.parametrize("how", ["wait_done", "watch"])
def test_caller_that_is_interrupted_at_whatever_step_of_its_wait_holds_up_nobody(run, how):
    for step in itertools.count(1):
        outcome = Outcome()

        def wait(timeout: float | None, outcome: Outcome = outcome) -> bool:
            return outcome.wait_done(timeout) if how == "wait_done" else outcome.watch(outcome.done, timeout)

        results = run(partial(wait, 60))
        waiters = outcome._blocked if how == "wait_done" else None
        wait_until(lambda outcome=outcome, waiters=waiters: waiters or outcome._watchers, message="the other waits")
        steps = Steps(step, interrupt)
        try:
            assert steps.run(partial(wait, 0.001)) is False
        except Interruption:
            assert steps.reached.is_set()
        settle(outcome)
        wait_until(lambda results=results, step=step: results == [True] * step, message=f"the other, at step {step}")
        if not steps.reached.is_set():
            break
    assert step > 5


def test_what_holds_is_not_watched_for():
    outcome = Outcome()
    assert outcome.watch(lambda: True, 0)
    assert not outcome._watchers
    outcome.tell_watchers()  # nobody watches


def test_who_watches_looks_again_when_told(run):
    outcome, holds, looks = Outcome(), [], []

    def look() -> bool:
        looks.append(True)
        return bool(holds)

    results = run(lambda: outcome.watch(look, None))
    wait_until(lambda: outcome._watchers and len(looks) >= 2, message="somebody watches")
    outcome.tell_watchers()
    wait_until(lambda: outcome._watchers and len(looks) >= 4, message="it looks again")
    assert not results
    holds.append(True)
    outcome.tell_watchers()
    wait_until(lambda: results == [True], message="it sees what holds")
    assert not outcome.done()


def test_all_who_watch_are_woken_by_the_outcome(run):
    outcome = Outcome()
    for _ in range(10):
        results = run(lambda: outcome.watch(outcome.done, 60))
    wait_until(lambda: len(outcome._watchers) == 10, message="all watch")
    settle(outcome)
    wait_until(lambda: results == [True] * 10, message="all are woken")


# ---- callbacks -----------------------------------------------------------------------------------------------------


def test_callbacks_added_before_are_handed_to_the_resolver_who_calls_none_of_them():
    outcome, called = Outcome(), []
    first, second = (lambda done: called.append(("first", done))), (lambda done: called.append(("second", done)))
    outcome.add_done_callback(first)
    outcome.add_done_callback(second)
    assert outcome.resolve(FINISHED, None, None, 0)
    assert outcome._audience == ([], [first, second])
    assert not called
    outcome.call_back(outcome._audience[1])
    assert called == [("first", outcome), ("second", outcome)]


def test_outcome_that_nobody_hears_of_has_no_audience():
    outcome = Outcome()
    assert outcome.resolve(FINISHED, None, None, 0)
    assert outcome._audience is None


def test_callback_added_after_is_called_at_once():
    outcome, called = Outcome(), []
    settle(outcome, result=1)
    outcome.add_done_callback(lambda done: called.append(done.result(0)))
    assert called == [1]
    assert outcome._audience is None


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
def test_callback_that_raises_is_logged_and_the_next_one_called(caplog, kind):
    outcome, called = Outcome(), []

    def fail(_: object) -> None:
        raise kind("from a callback")

    outcome.add_done_callback(fail)
    outcome.add_done_callback(called.append)
    settle(outcome)
    assert called == [outcome]
    assert f"{kind.__name__}: from a callback" in caplog.text


# ---- who waits with the standard library's functions, or in a loop --------------------------------------------------


@pytest.mark.parametrize(
    ("when", "error", "done"),
    [("FIRST_COMPLETED", None, 1), ("FIRST_EXCEPTION", OSError(), 1), ("FIRST_EXCEPTION", None, 3)],
)
def test_wait_returns_what_is_done(run, when, error, done):
    outcomes = [Outcome() for _ in range(3)]
    results = run(lambda: concurrent.futures.wait(outcomes, timeout=60, return_when=when))
    wait_until(lambda: all(outcome._waiters for outcome in outcomes), message="somebody waits")
    settle(outcomes[0], error=error)
    if done == 3:
        assert not results
        settle(outcomes[1])
        settle(outcomes[2], CANCELLED)
    wait_until(lambda: results, message="the wait ends")
    assert results[0].done == set(outcomes[:done])
    assert results[0].not_done == set(outcomes[done:])


def test_wait_that_times_out_leaves_nothing_behind():
    outcomes = [Outcome() for _ in range(3)]
    settle(outcomes[0])
    done, pending = concurrent.futures.wait(outcomes, timeout=0.001)
    assert (done, pending) == ({outcomes[0]}, set(outcomes[1:]))
    assert not any(outcome._waiters for outcome in outcomes)


def test_as_completed_yields_each_once_those_done_before_first(run):
    outcomes = [Outcome() for _ in range(6)]
    settle(outcomes[5])
    seen = []
    run(lambda: seen.extend(concurrent.futures.as_completed(outcomes, timeout=60)) or "end")
    wait_until(lambda: all(outcome._waiters for outcome in outcomes[:5]), message="somebody waits")
    for outcome in (outcomes[2], outcomes[0], outcomes[4]):
        settle(outcome)
    settle(outcomes[1], error=OSError())
    settle(outcomes[3], CANCELLED)
    wait_until(lambda: len(seen) == 6, message=lambda: f"all: {seen}")
    assert seen == [outcomes[number] for number in (5, 2, 0, 4, 1, 3)]


def test_loops_are_told_apart_from_users_callbacks(run):
    """What passes an outcome on to a loop is told with the waiters: it waits for no callback thread that blocks."""
    outcome, called = Outcome(), []

    async def wait() -> object:
        outcome.add_done_callback(called.append)
        return await asyncio.wait_for(asyncio.wrap_future(outcome), 30)

    results = run(lambda: asyncio.run(wait()))
    wait_until(lambda: len(outcome._done_callbacks) == 2, message="the loop waits")
    assert outcome.resolve(FINISHED, "result", None, 10)
    waiters, done_callbacks = outcome._audience
    assert done_callbacks == [called.append]
    outcome.tell_waiters(waiters, 1.0)
    wait_until(lambda: results == ["result"], message="the loop's result")
    assert not called


def test_waiter_that_raises_is_logged_and_the_next_one_told(caplog):
    class Closed(_base._AsCompletedWaiter):
        def add_result(self, future: object) -> None:
            raise RuntimeError("Event loop is closed")

    outcome, waiter = Outcome(), _base._AsCompletedWaiter()
    outcome._waiters.extend([Closed(), waiter])
    settle(outcome)
    assert waiter.finished_futures == [outcome]
    assert "Event loop is closed" in caplog.text


def test_waiter_whose_locks_were_left_taken_is_waited_for_once(monkeypatch):
    outcomes = [Outcome() for _ in range(50)]
    left, waiter = _base._AsCompletedWaiter(), _base._AsCompletedWaiter()
    leave_taken(left.lock)
    started = time.monotonic()
    for outcome in outcomes:
        outcome.tell_waiters([left, waiter], 0.2)
    assert Counter(waiter.finished_futures) == Counter(outcomes)
    assert not left.finished_futures
    # For each it would be 10 s.
    assert time.monotonic() - started < 5


# ---- a lock that was left taken ------------------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [0, 0.01])
def test_lock_that_was_left_taken_holds_up_the_resolver_for_its_patience_and_no_reader(patience):
    outcome = Outcome()
    leave_taken(outcome._condition)
    started = time.monotonic()
    resolved = outcome.resolve(FINISHED, "result", None, patience)
    took = time.monotonic() - started
    seen = outcome.done(), outcome.cancelled(), outcome.error, outcome.wait_done(0), outcome.watch(outcome.done, 0)
    assert resolved is None
    assert took < 5
    assert seen == (False, False, None, False, False)


def test_resolver_with_patience_gets_a_lock_that_is_given_back(run):
    outcome = Outcome()
    taken, give_back = threading.Event(), threading.Event()

    def hold() -> None:
        with outcome._condition:
            taken.set()
            give_back.wait(30)

    run(hold)
    assert taken.wait(10)
    assert outcome.resolve(FINISHED, None, None, 0) is None
    results = run(lambda: outcome.resolve(FINISHED, "result", None, 30))
    give_back.set()
    wait_until(lambda: True in results, message="the resolver")
    assert outcome.result(0) == "result"


def test_with_a_new_lock_it_is_resolved_and_all_are_told(run):
    outcome, called = Outcome(), []
    outcome.add_done_callback(called.append)
    results = run(lambda: outcome.wait_done(60))
    wait_until(lambda: outcome._blocked, message="somebody waits")
    leave_taken(outcome._condition)
    resolved = outcome.resolve(FINISHED, "result", None, 0)
    assert resolved is None
    outcome.replace_guard()
    settle(outcome, result="result")
    wait_until(lambda: results == [True], message="who waited before")
    assert called == [outcome]
    assert outcome.result(0) == "result"
