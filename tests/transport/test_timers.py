"""Timers: when they run, and what becomes of those that are cancelled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gearman_pool.transport.timers import NEVER, Timers


class _Clock:
    """A clock that stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timers() -> Timers:
    return Timers(_Clock())


@pytest.fixture
def ran() -> list[str]:
    return []


def noting(ran: list[str], name: str) -> Callable[[], None]:
    return lambda: ran.append(name)


def test_timers_run_when_they_are_due_the_oldest_first(timers, ran):
    timers.call_later(3, noting(ran, "third"))
    timers.call_at(1001.0, noting(ran, "first"))
    timers.call_later(2, noting(ran, "second"))
    timers.run_due(1000.9)
    assert ran == []
    timers.run_due(1002.0)
    assert ran == ["first", "second"]
    timers.run_due(2000.0)
    assert ran == ["first", "second", "third"]


def test_timers_of_the_same_moment_run_in_the_order_in_which_they_were_set(timers, ran):
    names = [str(number) for number in range(20)]
    for name in names:
        timers.call_at(1001.0, noting(ran, name))
    timers.run_due(1001.0)
    assert ran == names


def test_cancelled_timer_does_not_run_and_wakes_nobody(timers, ran):
    first = timers.call_later(1, noting(ran, "first"))
    timers.call_later(2, noting(ran, "second"))
    assert timers.next_moment() == 1001.0
    assert first.alive
    first.cancel()
    first.cancel()
    assert not first.alive
    assert timers.next_moment() == 1002.0
    timers.run_due(1003.0)
    assert ran == ["second"]
    assert timers.next_moment() == NEVER


def test_timer_that_has_run_is_not_alive_and_may_be_cancelled(timers, ran):
    timer = timers.call_later(0, noting(ran, "it"))
    timers.run_due(1000.0)
    assert not timer.alive
    timer.cancel()
    assert ran == ["it"]


def test_timer_may_cancel_those_behind_it_and_set_others(timers, ran):
    others = []

    def cancel() -> None:
        # More than are kept in the heap when they are cancelled.
        for other in others:
            other.cancel()
        timers.call_at(1000.0, noting(ran, "at once"))

    timers.call_at(999.0, cancel)
    others += [timers.call_at(999.5, noting(ran, "cancelled")) for _ in range(5000)]
    timers.call_at(1000.0, noting(ran, "due"))
    timers.run_due(1000.0)
    assert ran == ["due", "at once"]
    assert len(timers) == 0


def test_cancelled_timers_are_dropped_long_before_they_are_due(timers):
    for _ in range(50_000):
        timers.call_later(3600, lambda: None).cancel()
    assert len(timers) < 5_000
