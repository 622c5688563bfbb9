"""How a worker's run ends on a real gearmand: nothing is cut short, and nothing is waited for for ever."""

from __future__ import annotations

import logging
import threading

import pytest

from gearman_pool import GearmanWorker
from tests.support.running import running
from tests.support.waiting import wait_until


@pytest.mark.parametrize("concurrency", [1, 2])
def test_max_jobs_cuts_no_job_short(gearmand, client, concurrency):
    """The last job is not told to come to an end, and may take longer than the shutdown timeout."""
    worker = GearmanWorker([gearmand.address], concurrency=concurrency, max_jobs=concurrency, shutdown_timeout=0.1)
    begun, stopping = threading.Barrier(concurrency), []

    @worker.task("slow")
    def slow(job):
        begun.wait(10)
        threading.Event().wait(0.3)
        stopping.extend([job.stopping, worker.stopping])
        return b"whole"

    futures = [client.submit("slow") for _ in range(concurrency)]
    worker.work()
    assert [future.result(10) for future in futures] == [b"whole"] * concurrency
    assert stopping == [False] * 2 * concurrency


def test_a_hook_that_says_stop_cuts_no_other_job_short(gearmand, client):
    hooked = threading.Event()

    class OneJob(GearmanWorker):
        def after_job(self):
            hooked.set()
            return False

    worker = OneJob([gearmand.address], concurrency=2, shutdown_timeout=0.1)
    begun, stopping = threading.Event(), []

    @worker.task("slow")
    def slow(job):
        begun.set()
        assert hooked.wait(10)
        threading.Event().wait(0.3)
        stopping.append(job.stopping)
        return b"whole"

    @worker.task("quick")
    def quick(job):
        assert begun.wait(10)

    futures = [client.submit("slow"), client.submit("quick")]
    worker.work()
    assert futures[0].result(10) == b"whole"
    assert stopping == [False]


def test_stop_still_ends_a_worker_that_has_had_its_last_job(gearmand, client):
    worker = GearmanWorker([gearmand.address], max_jobs=1)
    begun = threading.Event()

    @worker.task("slow")
    def slow(job):
        begun.set()
        wait_until(lambda: job.stopping)
        return b"told"

    with running(worker):
        future = client.submit("slow")
        assert begun.wait(10)
        worker.stop()
        assert future.result(10) == b"told"


@pytest.mark.parametrize("again", ["stop", "close"])
def test_a_second_stop_may_shorten_the_time_and_not_lengthen_it(gearmand, client, again, caplog):
    worker = GearmanWorker([gearmand.address], concurrency=2)
    begun, go_on = threading.Event(), threading.Event()

    @worker.task("slow")
    def slow(job):
        begun.set()
        assert go_on.wait(30)

    with caplog.at_level(logging.CRITICAL, "gearman_pool.worker"):
        with running(worker):
            client.submit_background("slow").result(10)
            assert begun.wait(10)
            worker.stop(600)
            getattr(worker, again)(0.2)
            worker.stop(600)
            wait_until(lambda: worker._runs.engine is None)
        go_on.set()


@pytest.mark.parametrize("concurrency", [1, 4])
def test_stop_finishes_the_jobs_that_are_held(gearmand, client, concurrency):
    worker = GearmanWorker([gearmand.address], concurrency=concurrency)
    started, go_on = threading.Semaphore(0), threading.Event()
    stopping = []

    @worker.task("slow")
    def slow(job):
        started.release()
        assert go_on.wait(10)
        stopping.append(job.stopping)
        return job.data

    with running(worker):
        futures = [client.submit("slow", b"%d" % number) for number in range(concurrency)]
        for _ in futures:
            assert started.acquire(timeout=10)
        worker.stop()
        wait_until(lambda: worker.stopping)
        late = client.submit_background("slow", b"late").result(10)
        go_on.set()
        assert [future.result(10) for future in futures] == [b"%d" % number for number in range(concurrency)]
    assert stopping == [True] * concurrency
    assert client.status(late).known
    assert not client.status(late).running


def test_stop_can_be_called_in_a_task_and_close_does_not_wait_for_itself(worker, client):
    @worker.task("stop")
    def stop(worker, job):
        worker.close()
        return b"stopped"

    with running(worker):
        assert client.submit("stop").result(10) == b"stopped"
        wait_until(lambda: not worker.ready.is_set())


def test_shutdown_timeout_leaves_the_job_to_another_worker(gearmand, client, caplog):
    worker = GearmanWorker([gearmand.address], concurrency=2, shutdown_timeout=0.2)
    started, go_on = threading.Event(), threading.Event()

    @worker.task("slow")
    def slow(job):
        started.set()
        assert go_on.wait(20)
        return b"too late"

    with caplog.at_level(logging.CRITICAL, "gearman_pool.worker"):
        with running(worker):
            future = client.submit("slow")
            assert started.wait(10)
            worker.stop()
            wait_until(lambda: not worker.ready.is_set())
        other = GearmanWorker([gearmand.address], max_jobs=1)
        other.register_task("slow", lambda job: b"another")
        other.work()
        assert future.result(10) == b"another"
        go_on.set()
        wait_until(lambda: not any("task-1" in t.name for t in threading.enumerate() if "worker" in t.name))
