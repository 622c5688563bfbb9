"""`EagerClient`: what a unit test sees is what a server and a worker would give."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import sys
import threading
import time

import pytest

from gearman_pool import GearmanClient, GearmanWorker, JobUpdate, JSONEncoder
from gearman_pool.errors import ClientClosed, EncodeError, InvalidWorkerState, JobException, JobFailed, JobTimeout
from gearman_pool.testing import EagerClient, EmbeddedServer
from tests.support.running import running
from tests.support.waiting import wait_until


@pytest.fixture
def client():
    with EagerClient() as client:
        yield client


# ---- parity: the same through a server and a worker ----------------------------------------------------------------


def reverse(job):
    return job.data[::-1]


def two_arguments(worker, job):
    worker.send_job_status(job, 1, 2)
    worker.send_job_data(job, b"part")
    return b"two"


def stream(job):
    for number in range(3):
        job.send_status(number + 1, 3)
        yield b"%d" % number
    job.send_warning(b"careful")
    return b"end"


def nothing(job):
    return None


def text(job):
    return f"{job.task} {job.unique}"


def fail(job):
    raise ValueError(f"not {job.data!r}")


def refuse(worker, job):
    worker.send_job_failure(job)


def unencodable(job):
    return object()


def finish_by_hand(worker, job):
    worker.send_job_complete(job, b"by hand")
    job.send_data(b"too late")
    return b"ignored"


TASKS = [reverse, two_arguments, stream, nothing, text, fail, refuse, unencodable, finish_by_hand]


def outcome(client, task, **options):
    """All that a caller can see of a job."""
    future = client.submit(task, b"data", unique="u-1", **options)
    error = future.exception(10)
    updates = []
    try:
        updates.extend(future.updates(10))
    except JobFailed:
        pass
    request = future.request
    return {
        "result": None if error else future.result(0),
        "error": type(error),
        "text": str(error),
        "data": getattr(error, "data", None),
        "about": None if error is None else (error.task, error.unique, error.maybe_sent, error.retryable),
        "updates": updates,
        "progress": future.progress,
        "state": (request.state, request.complete, request.timed_out, request.connection_failed),
        "attempts": (request.connection_attempts, request.max_connection_attempts),
        "request": (request.result, request.exception),
        "done": (future.done(), future.cancelled(), future.running()),
    }


def outcome_of_the_older_layer(client, task):
    request = client.submit_job(task, b"data", unique="u-2", poll_timeout=10)
    return (
        request.state,
        request.result,
        request.exception,
        list(request.data_updates),
        list(request.warning_updates),
        request.status.get("numerator"),
        request.timed_out,
    )


@pytest.fixture(scope="module")
def real():
    """A client whose jobs go through sockets, a server and a worker."""
    with EmbeddedServer() as server, GearmanClient([server.address]) as client:
        worker = GearmanWorker([server.address])
        for task in TASKS:
            worker.register_task(task.__name__, task)
        with running(worker):
            client.ping()
            yield client


@pytest.fixture(autouse=True)
def quiet(caplog):
    with caplog.at_level(logging.CRITICAL, "gearman_pool"):
        yield


@pytest.mark.parametrize("task", [task.__name__ for task in TASKS])
def test_outcome_is_the_one_of_a_real_server_and_worker(client, real, task):
    for function in TASKS:
        client.register_task(function.__name__, function)
    assert outcome(client, task) == outcome(real, task)
    assert outcome_of_the_older_layer(client, task) == outcome_of_the_older_layer(real, task)


@pytest.mark.parametrize(
    "arguments",
    [
        {"task": ""},
        {"task": "a\0b"},
        {"task": 3},
        {"task": "reverse", "data": object()},
        {"task": "reverse", "unique": "x" * 64},
        {"task": "reverse", "unique": ""},
        {"task": "reverse", "priority": "URGENT"},
        {"task": "reverse", "timeout": -1},
        {"task": "reverse", "max_retries": -1},
    ],
)
def test_what_a_client_refuses_is_refused_alike(client, real, arguments):
    client.register_task("reverse", reverse)
    with pytest.raises(Exception) as expected:
        real.submit(**arguments)
    with pytest.raises(type(expected.value)) as caught:
        client.submit(**arguments)
    assert str(caught.value) == str(expected.value)
    assert client.submitted == []


# ---- tasks ---------------------------------------------------------------------------------------------------------


def test_unknown_task_is_told_with_those_that_there_are(client):
    client.register_task("known", reverse)
    with pytest.raises(LookupError, match=r"'unknown'.*there are: known"):
        client.submit("unknown")
    with pytest.raises(LookupError):
        client.submit_background("unknown")
    assert client.submitted == []


def test_tasks_hooks_and_encoder_of_a_worker_are_used():
    calls = []

    class Worker(GearmanWorker):
        data_encoder = JSONEncoder

        def on_job_complete(self, current_job, job_result):
            calls.append(job_result)
            return super().on_job_complete(current_job, job_result + 1)

        def after_job(self):
            calls.append("after")
            return True

    worker = Worker()
    worker.register_task("sum", lambda job: sum(job.data))
    with EagerClient(worker=worker, data_encoder=JSONEncoder) as client:
        assert client.submit("sum", [1, 2]).result() == 4
    assert calls[0] == 3


def test_running_worker_is_refused():
    worker = GearmanWorker(["127.0.0.1:1"])
    worker.register_task("task", reverse)
    with running(worker, wait_ready=False), EagerClient(worker=worker) as client:
        while worker._runs.engine is None:
            pass
        with pytest.raises(Exception, match="running"):
            client.submit("task")


def test_payloads_and_results_go_through_the_encoder_both_ways():
    with EagerClient(data_encoder=JSONEncoder) as client:
        client.register_task("pair", lambda job: [job.data, job.data])
        assert client.submit("pair", {"a": (1,)}).result() == [{"a": [1]}, {"a": [1]}]
        with pytest.raises(EncodeError):
            client.submit("pair", {1, 2})
        client.register_task("bad", lambda job: {1, 2})
        with pytest.raises(JobException):
            client.submit("bad", 1).result()


def test_prefix_is_left_out_of_the_tasks_name():
    with EagerClient(prefix="staging.") as client:
        client.register_task("name", lambda job: job.task)
        assert client.submit("name").result() == b"name"


def test_task_may_submit_through_the_same_client(client):
    client.register_task("inner", reverse)
    client.register_task("outer", lambda job: client.submit("inner", job.data).result() + b"!")
    assert client.submit("outer", b"abc").result() == b"cba!"
    assert [job.task for job in client.submitted] == ["inner", "outer"]


def test_system_exit_in_a_task_reaches_the_caller(client):
    def leave(job):
        raise SystemExit(3)

    client.register_task("leave", leave)
    with pytest.raises(SystemExit):
        client.submit("leave")


def test_threads_share_a_client_and_each_gets_its_own_results(client):
    client.register_task("inner", reverse)

    @client.task("outer")
    def outer(job):
        job.send_data(job.data)
        return client.submit("inner", job.data).result() + b"!"

    wrong = []

    def work(thread):
        for number in range(100):
            payload = b"%d-%d" % (thread, number)
            try:
                future = client.submit("outer", payload)
                if future.result() != payload[::-1] + b"!" or [u.data for u in future.updates()] != [payload]:
                    wrong.append(payload)
            except Exception as error:
                wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    assert client.worker.stats().jobs_done == len(client.submitted) == 1600
    assert client.worker._runs.engine is None


def test_threads_may_use_one_worker_through_a_client_each():
    worker = GearmanWorker()
    worker.register_task("reverse", reverse)
    inside, go_on = threading.Event(), threading.Event()

    @worker.task("wait")
    def wait(job):
        inside.set()
        assert go_on.wait(10)
        return b"waited"

    with EagerClient(worker=worker) as one, EagerClient(worker=worker) as other:
        results = []
        thread = threading.Thread(target=lambda: results.append(one.submit("wait").result()))
        thread.start()
        assert inside.wait(10)
        assert other.submit("reverse", b"ab").result() == b"ba"
        # Who closes the worker from outside waits for the job.
        closer = threading.Thread(target=worker.close)
        closer.start()
        wait_until(lambda: worker.stopping, message="it is told")
        assert closer.is_alive()
        go_on.set()
        for waiting in (thread, closer):
            waiting.join(10)
            assert not waiting.is_alive()
        assert results == [b"waited"]


def stop_twice(worker, job):
    worker.stop()
    worker.stop(timeout=1)


def stop_and_look(worker, job):
    return worker.stopping, job.stopping, worker.stop(), worker.stopping, job.stopping


def stats(worker, job):
    now = worker.stats()
    return now.held, now.waiting, now.ready, now.jobs_failed, now.results_lost, [server.state for server in now.servers]


def connections(worker, job):
    return worker.establish_worker_connections() == [job.connection], worker.connection_list == [job.connection]


def job_locks(worker, job):
    holder = worker.command_handler_holding_job_lock
    return worker.has_job_lock(), worker.check_job_lock(job.connection), holder == job.connection


def connect(worker, job):
    (connection,) = worker.connection_list
    return connection.connected, worker.establish_connection(connection) == job.connection


def add_server(worker, job):
    return str(worker.add_connection(("127.0.0.1", 1))), len(worker.connection_list), len(worker.stats().servers) <= 2


def change_tasks(worker, job):
    worker.register_task("new", reverse)
    known = "new" in worker.worker_abilities
    return known, worker.unregister_task("new"), "new" in worker.worker_abilities


def end_first(worker, job):
    worker.send_job_complete(job, b"done")
    worker.send_job_data(job, b"late")
    worker.send_job_failure(job)


def work_again(worker, job):
    with pytest.raises(InvalidWorkerState):
        worker.work()


CALLS = {
    "stop": lambda worker, job: worker.stop(),
    "stop in time": lambda worker, job: worker.stop(timeout=1),
    "stop twice": stop_twice,
    "stop and look": stop_and_look,
    "close": lambda worker, job: worker.close(),
    "shutdown": lambda worker, job: worker.shutdown(),
    "stats": stats,
    "connections": connections,
    "job locks": job_locks,
    "connect": connect,
    "add server": add_server,
    "repr": lambda worker, job: repr(worker).split()[-3],
    "change tasks": change_tasks,
    "client id": lambda worker, job: (worker.set_client_id("me"), worker.worker_client_id),
    "fence": lambda worker, job: worker.wait_until_updates_sent([job], 5),
    "status in time": lambda worker, job: worker.send_job_status(job, 1, 2, poll_timeout=5),
    "complete in time": lambda worker, job: worker.send_job_complete(job, b"done", poll_timeout=5),
    "end first": end_first,
    "work again": work_again,
}


@pytest.mark.parametrize("name", CALLS)
def test_task_may_call_its_worker_as_it_may_where_that_works_for_servers(name):
    call = CALLS[name]

    def task(worker, job):
        return repr(call(worker, job))

    with EmbeddedServer() as server, GearmanClient([server.address]) as client:
        worker = GearmanWorker([server.address])
        worker.register_task("call", task)
        with running(worker):
            expected = client.submit("call").result(10)
    worker = GearmanWorker([server.address])
    worker.register_task("call", task)
    with EagerClient([server.address], worker=worker) as eager:
        assert eager.submit("call").result() == expected
        # The next job finds a worker that has not been stopped.
        assert not worker.stopping
        assert worker._runs.stop_limit(worker.shutdown_timeout) == worker.shutdown_timeout
        assert eager.submit("call").result() == expected


def test_worker_is_as_it_was_when_its_job_is_done(client):
    client.register_task("reverse", reverse)
    client.register_task("fail", fail)
    client.submit("reverse")
    client.submit("fail")
    worker = client.worker
    assert "stopped" in repr(worker)
    stats = worker.stats()
    assert (stats.jobs_done, stats.jobs_failed, stats.held, stats.ready) == (1, 1, 0, False)
    # It could go and work for servers now.
    with EmbeddedServer() as server, GearmanClient([server.address]) as real:
        other = GearmanWorker([server.address])
        other.register_task("reverse", reverse)
        with EagerClient(worker=other) as eager:
            assert eager.submit("reverse", b"ab").result() == b"ba"
        with running(other):
            assert real.submit("reverse", b"ab").result(10) == b"ba"


def test_client_may_be_used_in_the_child_of_a_fork(client):
    client.register_task("reverse", reverse)
    assert client.submit("reverse", b"abc").result() == b"cba"
    pid = os.fork()
    if pid == 0:
        try:
            right = client.submit("reverse", b"def").result() == b"fed" and len(client.submitted) == 2
            os._exit(0 if right else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert len(client.submitted) == 1


def test_task_may_fork(client):
    @client.task("fork")
    def fork(worker, job):
        pid = os.fork()
        if pid == 0:
            # The job is the parent's.
            os._exit(8 if worker.has_job_lock() else 7)
        return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    assert client.submit("fork").result() == b"7"


def test_time_limit_of_a_task_is_taken_and_checked_when_it_returns(client):
    def slow(job):
        stop = time.monotonic() + 1.05
        while time.monotonic() < stop:
            assert not job.stopping
        return b"slow"

    client.register_task("slow", slow, timeout=1)
    client.register_task("quick", reverse, 30)
    assert client.submit("quick", b"ab").result() == b"ba"
    with pytest.raises(JobException) as caught:
        client.submit("slow").result()
    assert caught.value.data == b"task 'slow' took longer than its timeout of 1 s"
    assert client.worker.stats().jobs_timed_out == 1
    for wrong in (0.5, -1, "1"):
        with pytest.raises((ValueError, TypeError), match="timeout"):
            client.register_task("wrong", reverse, timeout=wrong)


# ---- futures -------------------------------------------------------------------------------------------------------


def test_futures_are_real_and_done(client):
    client.register_task("reverse", reverse)
    futures = [client.submit("reverse", b"%d0" % number) for number in range(3)]
    done, left = concurrent.futures.wait(futures, 1)
    assert (len(done), len(left)) == (3, 0)
    assert {future.result() for future in concurrent.futures.as_completed(futures)} == {b"00", b"01", b"02"}
    assert list(client.map("reverse", [b"12", b"34"])) == [b"21", b"43"]

    async def use():
        return await client.submit("reverse", b"ab"), await asyncio.wrap_future(client.submit("reverse", b"cd"))

    assert asyncio.run(use()) == (b"ba", b"dc")


def test_callbacks_have_run_when_submit_returns(client):
    seen = []
    client.register_task("stream", stream)
    future = client.submit(
        "stream",
        on_data=seen.append,
        on_status=lambda n, d: seen.append((n, d)),
        on_warning=seen.append,
    )
    future.add_done_callback(lambda future: seen.append(future.result()))
    assert seen == [(1, 3), b"0", (2, 3), b"1", (3, 3), b"2", b"careful", b"end"]
    assert list(future.updates()) == []


def test_updates_of_a_failed_job_come_before_its_error(client):
    @client.task("task")
    def task(job):
        yield b"part"
        raise ValueError

    updates = client.submit("task").updates()
    assert next(updates) == JobUpdate("data", b"part")
    with pytest.raises(JobException):
        next(updates)


def test_job_that_took_longer_than_its_timeout_is_a_job_timeout(client):
    def slow(job):
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass

    client.register_task("slow", slow)
    with pytest.raises(JobTimeout, match="longer than its timeout"):
        client.submit("slow", timeout=0.01).result()
    assert client.submit("slow", timeout=10).result() == b""


def test_background_jobs_run_and_resolve_to_references(client):
    ran = []
    client.register_task("task", ran.append)
    reference = client.submit_background("task", b"x", unique="u").result()
    assert (reference.unique, len(ran)) == ("u", 1)
    client.submit_background("task", at=4_000_000_000).result()
    assert client.submitted[-1].at == 4_000_000_000
    assert not client.status(reference).known
    assert client.submit_job("task", b"", background=True).complete


def test_background_job_that_fails_is_logged_and_its_future_is_not_harmed(client, caplog):
    client.register_task("fail", fail)
    with caplog.at_level(logging.ERROR, "gearman_pool.worker"):
        assert client.submit_background("fail").result().handle
    assert "ValueError" in caplog.text


# ---- the rest of the interface -------------------------------------------------------------------------------------


def test_servers_seem_to_be_up_and_can_change(client):
    assert [server.state for server in client.servers()] == ["UP"]
    assert len(client.ping()) == 1
    client.register_task("reverse", reverse)
    client.add_server("other:4731")
    client.add_server("other:4731")
    assert len(client.servers()) == 2
    client.remove_server("eager.invalid")
    assert str(client.submit("reverse", b"x").job.connection) == "other:4731"
    with pytest.raises(ValueError, match="last"):
        client.remove_server("other:4731")
    assert client.stats().jobs_completed == 1
    assert not client.status(unique="u").known


def test_closed_client_refuses_and_no_thread_was_ever_started():
    before = threading.active_count()
    client = EagerClient()
    client.register_task("reverse", reverse)
    client.submit("reverse", b"x").result()
    client.close()
    with pytest.raises(ClientClosed):
        client.submit("reverse")
    assert threading.active_count() == before


def test_what_was_submitted_can_be_asserted(client):
    client.register_task("mail", lambda job: b"")
    client.submit("mail", "text", priority="HIGH")
    client.submit_background("mail", b"later", unique="u")
    job = client.assert_submitted("mail", data="text", priority="HIGH")
    assert job.future.result() == b""
    assert client.assert_submitted("mail").unique == "u"
    with pytest.raises(AssertionError, match=r"data='other'[\s\S]*mail data='text'"):
        client.assert_submitted("mail", data="other")
    client.clear()
    with pytest.raises(AssertionError, match="none"):
        client.assert_submitted("mail")


def test_list_of_jobs_may_be_replaced():
    client = EagerClient()
    client.register_task("echo", lambda job: job.data)
    client.submit("echo", b"before")
    client.submitted = []
    client.submit("echo", b"after")
    assert [job.data for job in client.submitted] == [b"after"]
