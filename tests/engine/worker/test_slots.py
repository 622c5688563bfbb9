"""How a worker stands with its servers: each move, and what brings it about."""

from __future__ import annotations

import itertools

import pytest

from gearman_pool.engine.worker.slots import MOOD_MOVES, JobSource, Mood
from gearman_pool.errors import InvalidWorkerState

#: Long enough after PRE_SLEEP for a NOOP not to be its answer, in seconds.
LATER = 1.0


def in_mood(mood: Mood) -> JobSource:
    source = JobSource()
    if mood is not Mood.AWAKE:
        source.rest()
    if mood in (Mood.ASLEEP, Mood.DOUBTED):
        source.sleep(0.0)
    if mood is Mood.DOUBTED:
        source.fruitless = 100
        source.says_it_has_jobs(0.0)
    assert source.mood is mood
    return source


@pytest.mark.parametrize("mood", Mood)
def test_every_mood_can_be_left_and_reached(mood):
    assert MOOD_MOVES[mood]
    assert any(mood in ends for ends in MOOD_MOVES.values())


@pytest.mark.parametrize(("start", "end"), [(start, end) for start, ends in MOOD_MOVES.items() for end in ends])
def test_moves_of_the_table_are_made(start, end):
    source = in_mood(start)
    source.move(end)
    assert source.mood is end
    assert repr(source) == f"<JobSource {end.value}>"


@pytest.mark.parametrize(
    ("start", "end"),
    [(start, end) for start, end in itertools.product(Mood, Mood) if end not in MOOD_MOVES[start]],
)
def test_other_moves_raise_and_change_nothing(start, end):
    source = in_mood(start)
    with pytest.raises(InvalidWorkerState, match=f"no move from {start.value} to {end.value}"):
        source.move(end)
    assert source.mood is start


@pytest.mark.parametrize("mood", Mood)
def test_server_that_gives_a_job_is_awake_and_says_whether_that_is_new(mood):
    source = in_mood(mood)
    assert source.wake() is (mood is not Mood.AWAKE)
    assert source.mood is Mood.AWAKE


@pytest.mark.parametrize("mood", Mood)
def test_server_that_has_no_job_rests_and_says_whether_it_was_awake(mood):
    source = in_mood(mood)
    assert source.rest() is (mood is Mood.AWAKE)
    assert source.mood is Mood.RESTING


def test_server_that_wakes_the_worker_at_once_without_a_job_is_doubted_the_fourth_time():
    source = JobSource()
    believed = []
    for second in range(4):
        source.rest()
        source.sleep(second)
        believed.append(source.says_it_has_jobs(second + 0.01))
        if believed[-1]:
            source.wake()
    assert believed == [True, True, True, False]
    assert source.mood is Mood.DOUBTED


def test_server_that_takes_its_time_to_wake_the_worker_is_believed_again():
    source = in_mood(Mood.DOUBTED)
    source.rest()
    source.sleep(10.0)
    assert source.says_it_has_jobs(10.0 + LATER)
    assert source.fruitless == 0


def test_server_that_is_awake_is_not_doubted_whatever_it_says():
    source = in_mood(Mood.DOUBTED)
    source.wake()
    assert not source.says_it_has_jobs(0.01)
    assert source.mood is Mood.AWAKE


def test_no_order_of_events_is_an_illegal_move():
    def asked_and_has_none(source: JobSource) -> None:
        source.rest()

    def all_answered_and_has_none(source: JobSource) -> None:
        source.rest()
        source.sleep(0.0)

    events = [
        JobSource.wake,
        asked_and_has_none,
        all_answered_and_has_none,
        lambda source: source.says_it_has_jobs(0.01),
        lambda source: source.says_it_has_jobs(LATER),
    ]
    seen = set()
    for order in itertools.product(events, repeat=6):
        source = JobSource()
        source.fruitless = 2
        for event in order:
            event(source)
        seen.add(source.mood)
    assert seen == set(Mood)
