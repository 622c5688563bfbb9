"""`GearmanWorker` on a real gearmand."""

from __future__ import annotations

import functools
import logging
import threading
import time

import pytest

from gearman_pool import GearmanClient, GearmanJob, GearmanWorker, JobUpdate, JSONEncoder
from gearman_pool.errors import InvalidWorkerState, JobException, JobFailed
from gearman_pool.worker import GearmanWorkerJob
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


# ---- running and stopping ------------------------------------------------------------------------------------------


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
