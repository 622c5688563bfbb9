"""How a worker stands with its servers: each move, and what brings it about."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter

import pytest

from gearman_pool import GearmanClient, GearmanWorker
from gearman_pool.engine.worker.slots import MOOD_MOVES, JobSource, Mood
from gearman_pool.errors import InvalidWorkerState
from tests.support.running import running
from tests.support.waiting import wait_until

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


# ---- on a real gearmand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [3, 7, 12])
def test_max_jobs_stops_after_exactly_so_many(gearmand, client, most):
    """Fewer than it could hold at once, as many, and more."""
    for _ in range(20):
        client.submit_background("task").result(10)
    worker = GearmanWorker([gearmand.address], concurrency=4, prefetch=3, max_jobs=most)
    runs = []
    worker.register_task("task", runs.append)
    worker.work()
    assert len(runs) == most
    assert gearmand.jobs("task") == 20 - most


@pytest.mark.parametrize("max_jobs", [900, None])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_all_servers_are_served_fairly(gearmands, concurrency, max_jobs):
    servers = [gearmands(), gearmands(), gearmands()]
    for server in servers:
        with GearmanClient([server.address]) as client:
            for future in [client.submit_background("task", server.address) for _ in range(300)]:
                future.result(10)
    worker = GearmanWorker([server.address for server in servers], concurrency=concurrency, max_jobs=max_jobs)
    order = []

    @worker.task
    def task(job):
        # The first job waits for the connections: a server that has been served alone is out of jobs before the others.
        wait_until(lambda: all(server.state == "UP" for server in worker.stats().servers), message="all are connected")
        order.append(job.data.decode())
        if len(order) == 900:
            worker.stop()

    worker.work()
    # While all have jobs, each is served about as often as any other.
    counts = Counter()
    for address in order:
        counts[address] += 1
        if counts[address] == 300:
            break
    assert min(counts[server.address] for server in servers) >= 180, counts


def test_server_that_is_down_at_the_start_is_served_when_it_comes(gearmands):
    first, second = gearmands(), gearmands()
    second.stop()
    worker = GearmanWorker([first.address, second.address], reconnect_backoff=(0.05, 0.2), client_id="keeps its name")
    worker.register_task("who", lambda job: str(job.connection))
    with running(worker), GearmanClient([first.address]) as client:
        assert client.submit("who").result(10) == first.address.encode()
        second.start()
        wait_until(lambda: second.workers("who") == 1)
        assert "keeps its name" in second.text("workers")
        with GearmanClient([second.address]) as other:
            assert other.submit("who").result(10) == second.address.encode()


@pytest.mark.slow
def test_job_after_a_time_of_idling_starts_at_once(worker, client):
    """Workers of python-gearman take up to a whole poll interval (issue 37 there)."""
    worker.register_task("task", lambda job: b"")
    with running(worker):
        client.submit("task").result(10)
        delays = []
        pause = threading.Event()
        for _ in range(5):
            # Longer than the worker's poll interval, and not in step with it.
            pause.wait(1.13)
            started = time.monotonic()
            client.submit("task").result(10)
            delays.append(time.monotonic() - started)
    # Whoever waits for the next poll takes half a second on average.
    assert sorted(delays)[2] < 0.3, delays


def test_idle_worker_uses_no_processor_time(gearmand):
    worker = GearmanWorker([gearmand.address], concurrency=4)
    worker.register_task("task", lambda job: b"")
    with running(worker):
        wakeups, used = worker.stats().wakeups, time.process_time()
        threading.Event().wait(3)
        wakeups, used = worker.stats().wakeups - wakeups, time.process_time() - used
    # One poll each second, and a health check each five: each a few turns.
    assert wakeups <= 30
    assert used < 0.3


def test_job_of_the_future_runs_when_it_is_due_though_gearmand_wakes_nobody(worker, client):
    ran = threading.Event()
    worker.register_task("later", lambda job: ran.set())
    with running(worker):
        started = time.time()
        client.submit_background("later", at=started + 2).result(10)
        assert ran.wait(10)
    assert time.time() - started >= 1.5


def test_noops_without_jobs_do_not_make_the_worker_spin(gearmand, client, raw_workers):
    """gearmand 1.1 hides jobs of low priority behind one of the future, and wakes the worker for them for ever."""
    with gearmand.connect() as connection:
        connection.send(36, b"task", b"future", b"%d" % (time.time() + 3600), b"")
        connection.receive()
    client.submit_background("task", priority="LOW").result(10)
    worker = GearmanWorker([gearmand.address])
    worker.register_task("task", lambda job: b"")
    with running(worker):
        wait_until(lambda: worker.stats().wakeups > 10)
        wakeups = worker.stats().wakeups
        threading.Event().wait(2)
        assert worker.stats().wakeups - wakeups < 200
