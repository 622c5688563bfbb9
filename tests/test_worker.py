"""`GearmanWorker` on a real gearmand."""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

from gearman_pool import GearmanClient, GearmanJob, GearmanWorker, JobUpdate, JSONEncoder
from gearman_pool.errors import InvalidWorkerState, JobException, JobFailed
from gearman_pool.events import ConnectionOpened, TaskFinished, TaskStarted
from gearman_pool.worker_job import GearmanWorkerJob
from tests.support.listening import Keeping
from tests.support.processes import handler_before_python
from tests.support.running import running
from tests.support.waiting import wait_until


@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        yield client


@pytest.fixture
def worker(gearmand):
    return GearmanWorker([gearmand.address])


# ---- tasks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4])
def test_tasks_get_jobs_and_their_results_reach_the_client(gearmand, client, concurrency):
    worker = GearmanWorker([gearmand.address], concurrency=concurrency)

    @worker.task("reverse")
    def reverse(job):
        return job.data[::-1]

    with running(worker):
        futures = [client.submit("reverse", b"%d" % number) for number in range(500)]
        assert [future.result(20) for future in futures] == [(b"%d" % number)[::-1] for number in range(500)]
    assert worker.stats().jobs_done == 500


def test_job_has_what_the_client_gave(worker, client):
    seen = []
    worker.register_task("look", seen.append)
    with running(worker):
        future = client.submit("look", b"data\0more", unique="mine")
        future.result(10)
    job = seen[0]
    assert isinstance(job, GearmanJob)
    assert (job.task, job.data, job.unique, job.handle) == ("look", b"data\0more", "mine", future.job.handle)
    assert str(job.connection) == str(worker.connection_list[0])


class Callable:
    def __call__(self, job):
        return b"callable " + job.data

    def method(self, worker, job):
        return b"method " + job.data

    def short_method(self, job):
        return b"short " + job.data

    @staticmethod
    def static(job, more=3):
        return b"static " + job.data


def _partial(prefix, worker, job):
    return prefix + job.data


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (lambda job: b"one", b"one"),
        (lambda worker, job: b"two", b"two"),
        (lambda *arguments: b"%d" % len(arguments), b"2"),
        (lambda job, worker=None: b"default", b"default"),
        (Callable(), b"callable x"),
        (Callable().method, b"method x"),
        (Callable().short_method, b"short x"),
        (Callable.static, b"static x"),
        (functools.partial(_partial, b"partial "), b"partial x"),
    ],
)
def test_all_kinds_of_callables_are_tasks(worker, client, function, result):
    worker.register_task("call", function)
    with running(worker):
        assert client.submit("call", b"x").result(10) == result


async def _coroutine(job):
    return b""


async def _stream(job):
    yield b""


@pytest.mark.parametrize(
    "function", [None, "name", lambda: 1, lambda a, b, c: 1, lambda job, *, needed: 1, _coroutine, _stream]
)
def test_what_cannot_be_called_with_a_job_is_refused(worker, function):
    with pytest.raises(TypeError, match="task"):
        worker.register_task("task", function)


@pytest.mark.parametrize(
    ("value", "result"),
    [(None, b""), ("naïve", "naïve".encode()), (bytearray(b"ab"), b"ab"), (reversed(b"abc"), b"cba")],
)
def test_results_of_many_types_are_encoded(worker, client, value, result):
    worker.register_task("give", lambda job: value)
    with running(worker):
        assert client.submit("give").result(10) == result


def test_task_that_raises_gives_its_class_and_text_and_the_worker_goes_on(worker, client, caplog):
    secret = "local variable"  # must not reach the client

    @worker.task
    def fail(job):
        value = secret
        raise LookupError(f"no such thing ({len(value)})")

    worker.register_task("fine", lambda job: b"fine")
    with running(worker), caplog.at_level(logging.ERROR, "gearman_pool.worker"):
        with pytest.raises(JobException) as caught:
            client.submit("fail").result(10)
        assert caught.value.data == b"LookupError: no such thing (14)"
        assert client.submit("fine").result(10) == b"fine"
    assert "Traceback" in caplog.text
    stats = worker.stats()
    assert (stats.jobs_done, stats.jobs_failed) == (1, 1)


@pytest.mark.parametrize("value", [3, 1.5, ["list"], object()])
def test_result_that_cannot_be_encoded_is_the_tasks_exception(worker, client, value, caplog):
    worker.register_task("give", lambda job: value)
    worker.register_task("fine", lambda job: b"fine")
    with running(worker), caplog.at_level(logging.CRITICAL, "gearman_pool.worker"):
        with pytest.raises(JobException) as caught:
            client.submit("give").result(10)
        assert b"EncodeError" in caught.value.data
        assert b"JSONEncoder" in caught.value.data
        assert client.submit("fine").result(10) == b"fine"


def test_generator_streams_data_and_returns_the_result(worker, client):
    @worker.task("count")
    def count(job):
        for number in range(int(job.data)):
            job.send_status(number + 1, int(job.data))
            yield b"%d" % number
        job.send_warning(b"done")
        return b"result"

    with running(worker):
        future = client.submit("count", b"2")
        assert list(future.updates(10)) == [
            JobUpdate("status", None, 1, 2),
            JobUpdate("data", b"0"),
            JobUpdate("status", None, 2, 2),
            JobUpdate("data", b"1"),
            JobUpdate("warning", b"done"),
        ]
        assert future.result(10) == b"result"


def test_encoder_works_in_both_directions(gearmand):
    worker = GearmanWorker([gearmand.address], data_encoder=JSONEncoder)
    worker.register_task("sum", lambda job: {"sum": sum(job.data)})
    with running(worker), GearmanClient([gearmand.address], data_encoder=JSONEncoder) as client:
        assert client.submit("sum", [1, 2, 3]).result(10) == {"sum": 6}


def test_payload_that_cannot_be_decoded_is_the_tasks_exception(gearmand, client, caplog):
    worker = GearmanWorker([gearmand.address], data_encoder=JSONEncoder)
    worker.register_task("sum", lambda job: 1)
    with running(worker), caplog.at_level(logging.CRITICAL, "gearman_pool.worker"):
        with pytest.raises(JobException) as caught:
            client.submit("sum", b"{").result(10)
        assert b"JSONDecodeError" in caught.value.data
        assert client.submit("sum", b"1").result(10) == b"1"


def test_prefix_is_on_the_wire_and_not_in_the_jobs_task(gearmand, client):
    worker = GearmanWorker([gearmand.address], prefix="staging.")
    worker.register_task("who", lambda job: job.task)
    with running(worker):
        assert client.submit("staging.who").result(10) == b"who"
        assert list(worker.worker_abilities) == ["who"]


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
        engine, finish = worker._engine, worker._engine.finish

        def finish_while_it_is_taken_back(assignment, *arguments):
            entry = finish(assignment, *arguments)
            if assignment.ability.name == "slow" and "slow" in worker.worker_abilities:
                worker.unregister_task("slow")
                taken_back = threading.Event()
                engine.io.post(taken_back.set)
                assert taken_back.wait(10)
            return entry

        engine.finish = finish_while_it_is_taken_back
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


@pytest.mark.parametrize("client_id", ["", "a\nb", "a\0b", "x" * 128, "tab\t", "\x7f"])
def test_client_id_that_spoils_the_servers_list_is_refused(client_id):
    with pytest.raises(ValueError, match="client id"):
        GearmanWorker(["localhost"], client_id=client_id)
    with pytest.raises(ValueError, match="client id"):
        GearmanWorker(["localhost"]).set_client_id(client_id)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("concurrency", 0, ValueError),
        ("concurrency", 1.5, TypeError),
        ("prefetch", -1, ValueError),
        ("poll_interval", 0, ValueError),
        ("poll_interval", "1", TypeError),
        ("shutdown_timeout", float("nan"), ValueError),
        ("max_jobs", 0, ValueError),
        ("max_jobs", True, TypeError),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(name, value, error):
    with pytest.raises(error, match=name):
        GearmanWorker(["localhost"], **{name: value})


@pytest.mark.parametrize("timeout", [0.5, 0, float("inf")])
def test_timeout_that_servers_do_not_take_is_refused(worker, timeout):
    with pytest.raises(ValueError, match="timeout"):
        worker.register_task("task", lambda job: None, timeout=timeout)


def test_making_a_worker_does_no_io():
    before = threading.active_count()
    worker = GearmanWorker(["127.0.0.1:1"])
    assert threading.active_count() == before
    assert "stopped" in repr(worker)


# ---- what a task sends ---------------------------------------------------------------------------------------------


def test_python_gearmans_send_methods_reach_the_client(worker, client):
    @worker.task("send")
    def send(worker, job):
        worker.send_job_status(job, 1, 3)
        worker.send_job_data(job, b"data")
        worker.send_job_warning(job, "warning", poll_timeout=5.0)
        worker.wait_until_updates_sent([job], poll_timeout=5.0)
        worker.send_job_complete(job, b"complete")
        return b"ignored"

    with running(worker):
        future = client.submit("send")
        kinds = [update.kind for update in future.updates(10)]
        assert kinds == ["status", "data", "warning"]
        assert future.result(10) == b"complete"
        # A second final packet would have been answered with an error.
        assert worker.stats().refused == 0


def test_failure_and_exception_can_be_sent_by_hand(worker, client):
    worker.register_task("failure", lambda worker, job: worker.send_job_failure(job))
    worker.register_task("exception", lambda worker, job: worker.send_job_exception(job, "why"))
    with running(worker):
        with pytest.raises(JobFailed) as caught:
            client.submit("failure").result(10)
        assert not isinstance(caught.value, JobException)
        with pytest.raises(JobException) as caught:
            client.submit("exception").result(10)
        assert caught.value.data == b"why"
    assert worker.stats().jobs_failed == 2


def test_updates_from_other_threads_and_after_the_end_are_safe(worker, client):
    kept = []

    @worker.task("task")
    def task(job):
        kept.append(job)
        threads = [threading.Thread(target=job.send_data, args=(b"%d" % number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return b"end"

    with running(worker):
        future = client.submit("task")
        assert sorted(update.data for update in future.updates(10)) == [b"%d" % number for number in range(8)]
        assert future.result(10) == b"end"
        kept[0].send_status(1, 1)
        kept[0].send_data(b"late")
        worker.send_job_failure(kept[0])
        assert client.submit("task").result(10) == b"end"
        assert worker.stats().refused == 0
    kept[0].send_data(b"later still")
    assert worker.stats().jobs_failed == 0


@pytest.mark.parametrize("numbers", [(-1, 1), (1, 2**32), ("1", 1), (float("nan"), 1), (True, 1)])
def test_status_that_the_server_cannot_keep_is_refused(worker, numbers):
    job = GearmanWorkerJob(None, "H:1", "task", "unique", b"")
    job._worker = worker
    with pytest.raises((ValueError, TypeError)):
        job.send_status(*numbers)


def test_status_is_rounded_to_whole_numbers(worker, client):
    worker.register_task("half", lambda job: job.send_status(33.4, 100.0))
    with running(worker):
        future = client.submit("half")
        assert [(update.numerator, update.denominator) for update in future.updates(10)] == [(33, 100)]


def test_job_of_nobody_says_so():
    with pytest.raises(TypeError, match="not given to a worker"):
        GearmanWorkerJob(None, None, "task", None, b"").send_data(b"")
    with pytest.raises(InvalidWorkerState):
        GearmanWorker(["localhost"]).send_job_data(GearmanJob(None, None, "task", None, b""), b"")


# ---- hooks ---------------------------------------------------------------------------------------------------------


def test_after_poll_is_called_after_jobs_and_when_none_comes(gearmand, client):
    calls = []

    class Worker(GearmanWorker):
        def after_poll(self, any_activity):
            calls.append((any_activity, threading.current_thread().name))
            return len(calls) < 3

    worker = Worker([gearmand.address])
    worker.register_task("task", lambda job: b"")
    with running(worker, poll_timeout=0.3):
        client.submit("task").result(10)
        wait_until(lambda: not worker.ready.is_set())
    assert [call[0] for call in calls].count(True) == 1
    assert {call[1] for call in calls} == {"test-worker"}


def test_worker_stops_after_the_job_if_after_job_says_so_and_takes_no_other(gearmand, client):
    class OneJob(GearmanWorker):
        def after_job(self):
            return False

    worker = OneJob([gearmand.address])
    runs = []
    worker.register_task("task", runs.append)
    for _ in range(5):
        client.submit_background("task").result(10)
    worker.work()
    assert len(runs) == 1
    assert gearmand.jobs("task") == 4
    worker.work()
    assert len(runs) == 2


def test_hooks_wrap_the_task(gearmand, client, caplog):
    calls = []

    class Worker(GearmanWorker):
        def on_job_execute(self, current_job):
            calls.append("execute")
            return super().on_job_execute(current_job)

        def on_job_exception(self, current_job, exc_info):
            calls.append(f"exception {exc_info[0].__name__}")
            self.send_job_exception(current_job, "mine")
            return super().on_job_exception(current_job, exc_info)

        def on_job_complete(self, current_job, job_result):
            calls.append(f"complete {job_result!r}")
            return super().on_job_complete(current_job, job_result + b"!")

    worker = Worker([gearmand.address])

    @worker.task("task")
    def task(job):
        if job.data == b"fail":
            raise KeyError("x")
        return job.data

    with running(worker), caplog.at_level(logging.CRITICAL, "gearman_pool.worker"):
        assert client.submit("task", b"ok").result(10) == b"ok!"
        with pytest.raises(JobException) as caught:
            client.submit("task", b"fail").result(10)
        assert caught.value.data == b"mine"
        assert worker.stats().refused == 0
    assert calls == ["execute", "complete b'ok'", "execute", "exception KeyError"]


def test_hook_that_fails_or_forgets_the_job_fails_it_and_not_the_worker(gearmand, client, caplog):
    class Worker(GearmanWorker):
        def on_job_complete(self, current_job, job_result):
            if job_result == b"raise":
                raise RuntimeError("in the hook")
            if job_result == b"forget":
                return True
            return super().on_job_complete(current_job, job_result)

    worker = Worker([gearmand.address])
    worker.register_task("task", lambda job: job.data)
    with running(worker), caplog.at_level(logging.CRITICAL, "gearman_pool.worker"):
        with pytest.raises(JobException) as caught:
            client.submit("task", b"raise").result(10)
        assert caught.value.data == b"RuntimeError: in the hook"
        with pytest.raises(JobFailed):
            client.submit("task", b"forget").result(10)
        assert client.submit("task", b"fine").result(10) == b"fine"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_after_poll_that_raises_ends_work_with_that(gearmand, client, concurrency):
    class Worker(GearmanWorker):
        def after_poll(self, any_activity):
            raise ZeroDivisionError("in the hook")

    worker = Worker([gearmand.address], concurrency=concurrency)
    worker.register_task("task", lambda job: b"done")
    client.submit_background("task").result(10)
    with pytest.raises(ZeroDivisionError):
        worker.work()
    assert gearmand.jobs("task") == 0


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_exit_raised_in_a_task_ends_the_worker_and_the_job_goes_to_another(gearmand, client, concurrency, error):
    worker = GearmanWorker([gearmand.address], concurrency=concurrency)

    def leave(job):
        raise error(3)

    worker.register_task("leave", leave)
    client.submit_background("leave").result(10)
    with pytest.raises(error):
        worker.work()
    assert gearmand.jobs("leave") == 1
    other = GearmanWorker([gearmand.address], max_jobs=1)
    other.register_task("leave", lambda job: None)
    other.work()
    assert gearmand.jobs("leave") == 0


def test_job_class_and_create_job_make_the_tasks_object(gearmand, client):
    class Job(GearmanWorkerJob):
        @property
        def text(self):
            return self.data.decode()

    class Worker(GearmanWorker):
        job_class = Job

        def create_job(self, command_handler, job_handle, task, unique, data):
            return super().create_job(command_handler, job_handle, task.upper(), unique, data)

    worker = Worker([gearmand.address])
    worker.register_task("task", lambda job: f"{job.task} {job.text}")
    with running(worker):
        assert client.submit("task", b"x").result(10) == b"TASK x"


def test_listeners_hear_of_tasks_and_connections(gearmand, client, caplog):
    keeping = Keeping()
    worker = GearmanWorker([gearmand.address], listeners=[keeping])
    worker.register_task("fine", lambda job: b"")
    worker.register_task("fail", lambda job: 1 / 0)
    with running(worker), caplog.at_level(logging.CRITICAL, "gearman_pool.worker"):
        client.submit("fine", unique="u1").result(10)
        with pytest.raises(JobException):
            client.submit("fail").result(10)
        wait_until(lambda: len(keeping.of(TaskFinished)) == 2)
    assert isinstance(keeping.events[0], ConnectionOpened)
    assert [event.task for event in keeping.of(TaskStarted)] == ["fine", "fail"]
    assert [event.outcome for event in keeping.of(TaskFinished)] == ["done", "failed"]
    assert keeping.of(TaskStarted)[0].unique == "u1"


# ---- running and stopping ------------------------------------------------------------------------------------------


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
            wait_until(lambda: not worker._running)
        go_on.set()


def test_the_time_of_one_stop_is_not_that_of_the_next_run(worker):
    worker.register_task("task", lambda job: b"")
    worker.stop(0.01)
    worker.work()
    assert worker._stop_limit() == worker.shutdown_timeout


def test_stop_before_work_ends_the_next_work_at_once_and_only_that(worker, client):
    worker.register_task("task", lambda job: b"")
    worker.stop()
    worker.work()
    with running(worker):
        assert client.submit("task").result(10) == b""


@pytest.mark.parametrize("concurrency", [1, 4])
def test_stop_that_overtakes_the_start_ends_work(concurrency):
    worker = GearmanWorker(["127.0.0.1:1"], concurrency=concurrency)
    make = worker._new_engine

    def stopped_engine():
        engine = make()
        start = engine.start

        def start_too_late():
            engine.begin_stop(1)
            start()
            wait_until(lambda: engine.io.ended, message="the I/O thread has ended before work() waits for it")

        engine.start = start_too_late
        return engine

    worker._new_engine = stopped_engine
    ended = threading.Thread(target=worker.work, daemon=True)
    ended.start()
    ended.join(10)
    assert not ended.is_alive()


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


def test_run_gives_signals_back_and_tells_others_who_wait_for_them(worker, client):
    """asyncio and others have the process's wakeup descriptor: they hear of signals meanwhile, and have it again."""
    worker.register_task("stop", lambda job: os.kill(os.getpid(), signal.SIGTERM))
    client.submit_background("stop").result(10)
    ours, theirs = socket.socketpair()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with ours, theirs:
        theirs.setblocking(False)
        ours.settimeout(10)
        previous = signal.set_wakeup_fd(theirs.fileno())
        try:
            assert worker.run()
        finally:
            now = signal.set_wakeup_fd(previous)
        assert now == theirs.fileno()
        assert ours.recv(10) == bytes([signal.SIGTERM])
    assert before == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))


def test_run_on_another_thread_leaves_signals_alone(worker, client):
    seen = []

    @worker.task("look")
    def look(job):
        seen.append(signal.getsignal(signal.SIGTERM))
        job._worker.stop()

    before = signal.getsignal(signal.SIGTERM)
    client.submit_background("look").result(10)
    thread = threading.Thread(target=worker.run)
    thread.start()
    thread.join(20)
    assert seen == [before]


def test_run_bears_handlers_that_were_there_before_python(gearmand, client, tmp_path):
    program = (
        "import signal, sys; from gearman_pool import GearmanWorker; assert signal.getsignal(15) is None;"
        "worker = GearmanWorker(sys.argv[1:]); worker.register_task('stop', lambda worker, job: worker.stop());"
        "assert worker.run(); assert signal.getsignal(15) is signal.SIG_DFL"
    )
    client.submit_background("stop").result(10)
    environment = {**os.environ, **handler_before_python(tmp_path)}
    subprocess.run([sys.executable, "-c", program, gearmand.address], check=True, timeout=60, env=environment)


def test_one_worker_runs_once_at_a_time(worker):
    worker.register_task("task", lambda job: b"")
    with running(worker), pytest.raises(InvalidWorkerState, match="running"):
        worker.work()


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


def test_timeout_ends_the_job_for_its_client_and_tells_the_task(gearmand, client, caplog):
    worker = GearmanWorker([gearmand.address])
    told = threading.Event()

    def slow(job):
        wait_until(lambda: job.stopping, 10)
        told.set()
        return b"too late"

    worker.register_task("slow", slow, timeout=1.0)
    worker.register_task("fine", lambda job: b"fine", timeout=30)
    with running(worker), caplog.at_level(logging.CRITICAL, "gearman_pool.worker"):
        started = time.monotonic()
        with pytest.raises(JobException) as caught:
            client.submit("slow").result(10)
        assert 0.9 < time.monotonic() - started < 5
        assert b"timeout of 1 s" in caught.value.data
        assert told.wait(10)
        assert client.submit("fine").result(10) == b"fine"
        stats = worker.stats()
    assert (stats.jobs_timed_out, stats.jobs_done, stats.refused) == (1, 1, 0)


def test_stats_count_and_survive_the_run(worker, client):
    assert worker.stats().jobs_done == 0
    worker.register_task("task", lambda job: b"")
    with running(worker):
        client.submit("task").result(10)
        assert worker.stats().ready
        assert worker.stats().servers[0].state == "UP"
    stats = worker.stats()
    assert (stats.jobs_done, stats.held, stats.connections_opened, stats.ready) == (1, 0, 1, False)


def test_worker_without_tasks_says_so_and_can_be_stopped(worker, caplog):
    with caplog.at_level(logging.WARNING, "gearman_pool.worker"), running(worker, wait_ready=False):
        wait_until(lambda: "no tasks" in caplog.text)


# ---- servers -------------------------------------------------------------------------------------------------------


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
