"""Callers that wait: each is woken by what it waits for, and none by another's misfortune."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from functools import partial

import pytest

from gearman_pool.errors import ServerUnavailable
from gearman_pool.threads.waiting import Promise, release_all, wait_for

from ..support.steps import Steps, wakes_at_step
from ..support.waiting import wait_until


class Interruption(BaseException):
    """What is raised into a waiting caller from outside."""


def interrupt():
    raise Interruption


def taken_lock():
    lock = threading.Lock()
    lock.acquire()
    return lock


def started(call):
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", [list, deque])
def test_all_locks_are_released_and_taken_off(kind):
    locks = [taken_lock() for _ in range(5)]
    waiters = kind(locks)
    release_all(waiters)
    assert not waiters
    assert not any(lock.locked() for lock in locks)


def test_what_is_ready_is_not_waited_for():
    waiters = []
    assert wait_for(lambda: True, waiters, None)
    assert not waiters


def test_what_becomes_ready_while_a_lock_is_added_is_not_waited_for():
    waiters = []
    # False for the first look; True for the one with the lock on the list.
    assert wait_for(lambda: bool(waiters), waiters, None)


def test_caller_looks_again_whenever_the_locks_are_released():
    waiters, looks, ended = [], [], []
    ready = threading.Event()

    def look() -> bool:
        looks.append(True)
        return ready.is_set()

    caller = started(lambda: ended.append(wait_for(look, waiters, None)))
    for count in (2, 4, 6):
        # Each round is a look, a lock on the list, and a second look.
        wait_until(lambda count=count: waiters and len(looks) >= count, message="the caller waits")
        release_all(waiters)
    wait_until(lambda: waiters and len(looks) >= 8, message="the caller waits again")
    ready.set()
    release_all(waiters)
    caller.join(5)
    assert ended == [True]


@pytest.mark.parametrize("left", [-1.0, 0.0, 0.01])
def test_caller_whose_time_is_over_leaves_no_lock_behind(monkeypatch, left):
    monkeypatch.setattr("gearman_pool.threads.waiting.monotonic", lambda: 1000.0)
    waiters = []
    assert not wait_for(lambda: False, waiters, 1000.0 + left)
    assert not waiters


def test_what_comes_in_the_last_moment_counts():
    looks = iter([False, False, True])
    assert wait_for(lambda: next(looks), [], 0.0)


def test_lock_that_is_released_in_the_last_moment_is_no_error():
    waiters = []

    def look() -> bool:
        release_all(waiters)
        return False

    assert not wait_for(look, waiters, 0.0)


@pytest.mark.parametrize("value", ["answer", None, False])
def test_value_is_there_for_every_wait(value):
    promise = Promise()
    assert not promise.done
    promise.set(value)
    assert promise.done
    assert [promise.wait(timeout) for timeout in (None, 0, 60)] == [value] * 3


def test_failure_is_raised_by_every_wait():
    promise = Promise()
    error = ServerUnavailable("gone")
    promise.fail(error)
    assert promise.done
    for timeout in (None, 0, 60):
        with pytest.raises(ServerUnavailable) as caught:
            promise.wait(timeout)
        assert caught.value is error


def test_first_answer_is_the_one_that_counts():
    answered, failed = Promise(), Promise()
    answered.set("first")
    answered.fail(ServerUnavailable("second"))
    assert answered.wait(0) == "first"
    failed.fail(ServerUnavailable("first"))
    failed.set("second")
    with pytest.raises(ServerUnavailable, match="first"):
        failed.wait(0)


@pytest.mark.parametrize(("timeout", "text"), [(0, "0 s"), (0.01, "0.01 s")])
def test_wait_for_an_answer_that_takes_longer_says_how_long_and_leaves_nothing_behind(timeout, text):
    promise = Promise()
    with pytest.raises(TimeoutError, match=f"no answer within {text}$"):
        promise.wait(timeout)
    assert not promise._waiters
    promise.set("late")
    assert promise.wait(0) == "late"


@pytest.mark.parametrize("timeout", [None, 60.0])
def test_all_who_wait_get_the_answer(timeout):
    promise, answers = Promise(), []
    callers = [started(lambda: answers.append(promise.wait(timeout))) for _ in range(20)]
    wait_until(lambda: len(promise._waiters) == 20, message="all wait")
    promise.set("answer")
    for caller in callers:
        caller.join(5)
    assert answers == ["answer"] * 20
    assert not promise._waiters


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("outcome", ["value", "error"])
def test_caller_who_waits_for_an_answer_is_woken_at_whatever_step_of_its_way_it_comes(timeout, outcome):
    for step in itertools.count(1):
        promise = Promise()

        def wait(promise: Promise = promise) -> None:
            if outcome == "value":
                assert promise.wait(timeout) == "answer"
            else:
                with pytest.raises(ServerUnavailable):
                    promise.wait(timeout)

        end = partial(promise.set, "answer") if outcome == "value" else partial(promise.fail, ServerUnavailable())
        if wakes_at_step(step, wait, end):
            break


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_caller_that_is_interrupted_at_whatever_step_of_its_wait_holds_up_nobody(timeout):
    for step in itertools.count(1):
        promise, answers = Promise(), []
        other = started(lambda promise=promise, answers=answers: answers.append(promise.wait(60)))
        wait_until(lambda promise=promise: promise._waiters, message="the other waits")
        steps = Steps(step, interrupt)
        with pytest.raises((Interruption, TimeoutError)) as caught:
            steps.run(partial(promise.wait, timeout))
        assert (caught.type is Interruption) == steps.reached.is_set()
        promise.set("answer")
        other.join(5)
        assert answers == ["answer"], f"who is interrupted at step {step} holds up another"
        assert promise.wait(0) == "answer"
        if not steps.reached.is_set():
            break
    assert step > 5
