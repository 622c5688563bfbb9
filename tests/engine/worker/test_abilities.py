"""What servers are told of a worker on a real gearmand: its tasks, when they come and go, and its name."""

from __future__ import annotations

import threading

import pytest

from gearman_pool import GearmanWorker
from gearman_pool.errors import InvalidWorkerState
from tests.support.running import running
from tests.support.waiting import wait_until


def test_tasks_are_registered_and_taken_back_while_it_runs(gearmand, worker, client):
    worker.register_task("first", lambda job: b"1")
    with running(worker):
        worker.register_task("second", lambda job: b"2")
        assert client.submit("second").result(10) == b"2"
        worker.unregister_task("first")
        wait_until(lambda: gearmand.workers("first") == 0)
        assert gearmand.workers("second") == 1
        future = client.submit("first")
        assert client.submit("second").result(10) == b"2"
        assert not future.done()
        worker.register_task("first", lambda job: b"new")
        assert future.result(10) == b"new"
    with pytest.raises(InvalidWorkerState):
        worker.unregister_task("third")


def test_task_that_is_registered_again_is_replaced_and_counted_once(gearmand, worker, client):
    worker.register_task("task", lambda job: b"old")
    with running(worker):
        worker.register_task("task", lambda job: b"new")
        wait_until(lambda: client.submit("task").result(10) == b"new")
        assert gearmand.workers("task") == 1


def test_task_taken_back_while_a_job_of_it_runs_runs_once(gearmand, worker, client):
    """gearmand gives a running job to another worker at CANT_DO, so that is sent when the job is done."""
    started, go_on = threading.Event(), threading.Event()
    runs = []

    @worker.task("slow")
    def slow(job):
        runs.append("here")
        started.set()
        assert go_on.wait(10)
        return b"slow"

    other = GearmanWorker([gearmand.address])
    other.register_task("slow", lambda job: runs.append("there"))
    with running(worker):
        future = client.submit("slow")
        assert started.wait(10)
        with running(other):
            worker.unregister_task("slow")
            # What was sent before this is known to the server when this is.
            worker.register_task("marker", lambda job: b"")
            wait_until(lambda: gearmand.workers("marker") == 1)
            assert gearmand.workers("slow") == 2
            go_on.set()
            assert future.result(10) == b"slow"
            wait_until(lambda: gearmand.workers("slow") == 1)
            assert client.submit("slow").result(10) == b""
    assert runs == ["here", "there"]


@pytest.mark.parametrize("by_hand", [False, True])
def test_task_taken_back_between_a_jobs_end_and_its_result_runs_once(gearmand, worker, client, by_hand):
    """CANT_DO must not overtake a result that is made, but not in line yet."""
    runs = []

    @worker.task("slow")
    def slow(job):
        runs.append("here")
        if by_hand:
            worker.send_job_complete(job, b"slow")
        return b"slow"

    other = GearmanWorker([gearmand.address])
    other.register_task("slow", lambda job: runs.append("there"))
    with running(worker):
        engine, finish = worker._runs.engine, worker._runs.engine.held.finish

        def finish_while_it_is_taken_back(assignment, *arguments):
            entry = finish(assignment, *arguments)
            if assignment.ability.name == "slow" and "slow" in worker.worker_abilities:
                worker.unregister_task("slow")
                taken_back = threading.Event()
                engine.io.post(taken_back.set)
                assert taken_back.wait(10)
            return entry

        engine.held.finish = finish_while_it_is_taken_back
        future = client.submit("slow")
        assert future.result(10) == b"slow"
        with running(other):
            wait_until(lambda: gearmand.workers("slow") == 1)
            assert client.submit("slow").result(10) == b""
        assert worker.stats().refused == 0
    assert runs == ["here", "there"]


def test_client_id_stands_in_the_servers_list(gearmand):
    worker = GearmanWorker([gearmand.address], client_id="first name")
    worker.register_task("task", lambda job: None)
    with running(worker):
        assert "first name : task" in gearmand.text("workers")
        assert worker.set_client_id("second") == "second"
        wait_until(lambda: "second : task" in gearmand.text("workers"))
        assert worker.worker_client_id == "second"


@pytest.mark.parametrize("client_id", ["x" * 127, "\u00fc" * 63 + "x"])
def test_longest_client_id_stands_whole_in_the_servers_list(gearmand, client_id):
    worker = GearmanWorker([gearmand.address], client_id=client_id)
    worker.register_task("task", lambda job: None)
    with running(worker):
        assert f" {client_id} : task" in gearmand.text("workers")
