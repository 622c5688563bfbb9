"""A worker's runs: one at a time, lent engines, and locks that are never taken while another is held."""

from __future__ import annotations

import threading
import time

import pytest

from gearman_pool import GearmanClient, GearmanWorker
from gearman_pool.engine.worker.runs import Runs
from gearman_pool.errors import InvalidWorkerState
from gearman_pool.events import Listener
from gearman_pool.testing import EagerClient, EmbeddedServer
from tests.support.locks import Locks
from tests.support.running import running
from tests.support.waiting import wait_until

#: Who has locks that guard something. A connection's is left out: at its end it stays taken.
_GUARDS = ("Runs", "HeldJobs", "EagerHeldJobs", "CallbackThreads", "Mailbox")


class _Lent:
    """What `Runs` needs of an engine that is lent."""

    def __init__(self, done: int = 0) -> None:
        self.draining = self.stopping = False
        self.held = self.jobs = self.io = self.counters = self.pool = self
        self.unfinished: dict[object, None] = {}
        self.done = done
        self.connections_opened = self.connections_failed = self.connections_lost = self.wakeups = 0

    def snapshot(self):
        return {"done": self.done, "failed": 0, "timed_out": 0, "results_lost": 0, "refused": 0}

    def qsize(self):
        return 0

    def infos(self):
        return ()

    def begin_stop(self, timeout):
        self.stopping = self.draining = True


@pytest.fixture
def runs():
    return Runs((), None, True)


@pytest.fixture
def ready():
    return threading.Event()


def test_locks_were_seen_to_be_taken_while_another_is_held_by_what_sees_to_that(monkeypatch):
    class First:
        def __init__(self):
            self.lock = threading.Lock()

    class Second(First):
        pass

    locks = Locks(monkeypatch, "First", "Second")
    first, second = First().lock, Second().lock
    with first:
        pass
    with second:
        pass
    assert (locks.nested, locks.taken) == (set(), {"First", "Second"})
    with first, second:
        pass
    assert locks.nested == {("First", "Second")}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_running_worker_takes_no_lock_while_it_holds_another(monkeypatch, concurrency):
    with EmbeddedServer() as server, EmbeddedServer() as other, GearmanClient([server.address]) as client:
        locks = Locks(monkeypatch, *_GUARDS)
        worker = GearmanWorker([server.address], concurrency=concurrency, listeners=[Listener()])

        @worker.task("task")
        def task(job):
            worker.stats()
            job.send_status(1, 2)
            worker.check_job_lock(job.connection)
            return job.data

        def fail(job):
            raise ValueError("as it should")

        worker.register_task("fail", fail, timeout=60)
        with running(worker):
            futures = [client.submit(name, b"data") for name in ["task", "fail"] * 20]
            wait_until(lambda: all(future.done() for future in futures))
            worker.add_connection(other.address)
            worker.unregister_task("fail")
            worker.set_client_id("name")
        assert worker.stats().jobs_done == 20
    assert locks.nested == set()
    assert locks.taken >= {"Runs", "HeldJobs", "CallbackThreads"}


def test_an_eager_client_takes_no_lock_while_it_holds_another(monkeypatch):
    locks = Locks(monkeypatch, *_GUARDS)
    with EagerClient(listeners=[Listener()]) as client:

        @client.task("inner")
        def inner(worker, job):
            worker.stats()
            worker.stop(1)
            return job.data

        @client.task("outer")
        def outer(job):
            return client.submit("inner", job.data).result()

        threads = [threading.Thread(target=lambda: client.submit("outer", b"data").result()) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        client.worker.stats()
    assert locks.nested == set()
    assert locks.taken >= {"Runs", "EagerHeldJobs"}


# ---- lent engines --------------------------------------------------------------------------------------------------


def test_worker_runs_with_the_first_engine_that_it_was_lent_until_the_last_block_ends(runs, ready):
    first, second = _Lent(1), _Lent(2)
    assert runs.under_way() is None
    with runs.borrow(lambda: first, ready) as engine:
        ended = runs.under_way()
        with runs.borrow(lambda: second, ready) as other:
            assert engine is other is runs.engine is first
            assert runs.works_here
        assert runs.works_here
        assert ready.is_set()
        assert not ended.is_set()
    assert ended.is_set()
    assert runs.engine is None
    assert not ready.is_set()
    assert not runs.works_here
    assert (runs.last_stats.jobs_done, runs.last_stats.ready) == (1, False)


def test_worker_that_works_for_servers_borrows_nothing_and_one_that_has_borrowed_does_not_begin(runs, ready):
    runs.begin(_Lent)
    with pytest.raises(InvalidWorkerState, match="is running"), runs.borrow(_Lent, ready):
        pass
    runs.end(runs.last_stats)
    with runs.borrow(_Lent, ready), pytest.raises(InvalidWorkerState, match="is running"):
        runs.begin(_Lent)
    runs.begin(_Lent)


def test_stop_that_was_asked_for_before_is_forgotten_by_a_lent_engine_and_one_in_it_by_the_next(runs, ready):
    runs.stop(1.0)
    with runs.borrow(_Lent, ready) as engine:
        assert not runs.stopping
        runs.stop(2.0)
        assert runs.stopping
        assert engine.stopping
        assert runs.stop_limit(30.0) == 2.0
    assert not runs.stop_asked
    assert runs.stop_limit(30.0) == 30.0


def test_who_borrows_while_the_last_one_gives_back_goes_on_and_leaves_the_newer_counts(runs, ready):
    lent = _Lent()
    counted = lent.snapshot
    blocks = []

    def snapshot():
        # The last one counts, and has not ended the run yet.
        counts = counted()
        if not blocks:
            blocks.append(runs.borrow(lambda: lent, ready))
            assert blocks[0].__enter__() is lent
        return counts

    lent.snapshot = snapshot
    with runs.borrow(lambda: lent, ready):
        pass
    assert runs.engine is lent
    assert ready.is_set()
    lent.done = 7
    blocks[0].__exit__(None, None, None)
    assert runs.engine is None
    assert runs.last_stats.jobs_done == 7


def test_engine_that_cannot_be_made_leaves_the_worker_as_it_was(runs):
    def fail():
        raise OSError("no more descriptors")

    with pytest.raises(OSError, match="descriptors"):
        runs.begin(fail)
    assert runs.under_way() is None
    assert not runs.works_here


# ---- on a real gearmand ----------------------------------------------------------------------------------------------


def test_the_time_of_one_stop_is_not_that_of_the_next_run(worker):
    worker.register_task("task", lambda job: b"")
    worker.stop(0.01)
    worker.work()
    assert worker._runs.stop_limit(worker.shutdown_timeout) == worker.shutdown_timeout


def test_stop_before_work_ends_the_next_work_at_once_and_only_that(worker, client):
    worker.register_task("task", lambda job: b"")
    worker.stop()
    worker.work()
    with running(worker):
        assert client.submit("task").result(10) == b""


@pytest.mark.parametrize("concurrency", [1, 4])
def test_stop_that_overtakes_the_start_ends_work(concurrency):
    worker = GearmanWorker(["127.0.0.1:1"], concurrency=concurrency)
    begin = worker._runs.begin

    def begin_late(new_engine):
        engine = begin(new_engine)
        start = engine.start

        def start_too_late():
            engine.begin_stop(1)
            start()
            wait_until(lambda: engine.io.ended, message="the I/O thread has ended before work() waits for it")

        engine.start = start_too_late
        return engine

    worker._runs.begin = begin_late
    ended = threading.Thread(target=worker.work, daemon=True)
    ended.start()
    ended.join(10)
    assert not ended.is_alive()


def test_one_worker_runs_once_at_a_time(worker):
    worker.register_task("task", lambda job: b"")
    with running(worker), pytest.raises(InvalidWorkerState, match="running"):
        worker.work()


def test_close_waits_for_the_run_that_it_stopped_and_for_no_other(gearmand):
    ended, again = threading.Event(), threading.Event()

    class Restarted(GearmanWorker):
        """Runs once more before `close` goes on."""

        def stop(self, timeout=None):
            super().stop(timeout)
            assert ended.wait(20)
            assert again.wait(20)

    worker = Restarted([gearmand.address], shutdown_timeout=60)
    worker.register_task("echo", lambda job: job.data)

    def runs():
        worker.work()
        ended.set()
        worker.work()

    thread = threading.Thread(target=runs)
    thread.start()
    wait_until(worker.ready.is_set, message="the first run")
    watcher = threading.Thread(target=lambda: (ended.wait(20), wait_until(worker.ready.is_set), again.set()))
    watcher.start()
    began = time.monotonic()
    worker.close()
    assert time.monotonic() - began < 30
    assert thread.is_alive()
    GearmanWorker.stop(worker)
    watcher.join()
    thread.join(20)
    assert not thread.is_alive()
