"""Promise F15: a worker's process gets SIGTERM or SIGINT."""

from __future__ import annotations

import signal

import pytest

from gearman_pool import GearmanClient, GearmanWorker
from tests.faults.warm_restarts import WorkerProcess, restart_under_load
from tests.support.processes import run_program


@pytest.fixture
def client(gearmand):
    client = GearmanClient([gearmand.address])
    yield client
    client.close(0)


@pytest.fixture
def worker_process(gearmand, tmp_path):
    started = []

    def start(**options):
        worker = WorkerProcess([gearmand.address], tmp_path / "log", **options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.close()


def begin(client, tmp_path, task="slow"):
    """Submit a job that runs until a file is there, and return (future, file) when its task has begun."""
    file = tmp_path / "go on"
    future = client.submit(task, str(file))
    assert next(iter(future.updates(20))).data == b"started"
    return future, file


@pytest.mark.slow
def test_warm_restarts_under_load_lose_and_repeat_nothing(gearmand, tmp_path):
    outcome = restart_under_load(9, gearmand, tmp_path, [{}, {"concurrency": 4}, {"concurrency": 2, "prefetch": 4}])
    assert outcome.submitted > 0
    found = (outcome.wrong_results, outcome.missing, outcome.repeated, outcome.bad_exits)
    assert found == (0, 0, 0, []), outcome


_SIGNAL_IN_ANOTHER_THREAD = """
import signal, sys, threading
from gearman_pool import GearmanWorker

worker = GearmanWorker([sys.argv[1]], concurrency=int(sys.argv[2]))

@worker.task("stop")
def stop(job):
    # Later, when the main thread has nothing to do but to wait.
    hit = threading.Timer(0.3, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGTERM))
    hit.daemon = True
    hit.start()
    return b"soon"

assert worker.run()
"""


@pytest.mark.parametrize("concurrency", [1, 2])
def test_signal_that_does_not_interrupt_the_main_threads_wait_is_seen_all_the_same(gearmand, client, concurrency):
    """As one that comes in the instant before the wait begins, once in several hundred times on a busy machine."""
    future = client.submit("stop")
    ended = run_program(["-c", _SIGNAL_IN_ANOTHER_THREAD, gearmand.address, str(concurrency)], 25)
    assert (ended.code, ended.errors) == (0, "")
    assert future.result(0) == b"soon"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_signal_lets_the_running_job_finish_and_the_process_exit_with_0(
    client, worker_process, tmp_path, number, concurrency, gearmand
):
    worker = worker_process(concurrency=concurrency)
    future, file = begin(client, tmp_path)
    worker.signal(number)
    late = client.submit_background("note", b"late").result(10)
    file.touch()
    assert future.result(20) == b"slow"
    assert worker.wait() == 0
    # At the most one more job was on its way to the worker when the signal came.
    assert gearmand.jobs("note") == (1 if client.status(late).known else 0)


def test_idle_worker_exits_at_once(worker_process):
    worker = worker_process()
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0


def test_second_signal_ends_the_process_at_once_and_the_job_goes_to_another_worker(
    gearmand, client, worker_process, tmp_path
):
    worker = worker_process()
    future, _ = begin(client, tmp_path)
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.wait(10) in (-signal.SIGINT, -signal.SIGTERM)
    other = GearmanWorker([gearmand.address], max_jobs=1)
    other.register_task("slow", lambda job: b"another")
    other.work()
    assert future.result(10) == b"another"


@pytest.mark.parametrize(("concurrency", "status"), [(1, 128 + signal.SIGTERM), (2, 9)])
def test_end_of_the_shutdown_timeout_ends_the_process_and_the_job_goes_to_another_worker(
    gearmand, client, worker_process, tmp_path, concurrency, status
):
    worker = worker_process(concurrency=concurrency, shutdown_timeout=0.3)
    future, _ = begin(client, tmp_path)
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == status
    other = GearmanWorker([gearmand.address], max_jobs=1)
    other.register_task("slow", lambda job: b"another")
    other.work()
    assert future.result(10) == b"another"


def test_end_of_the_shutdown_timeout_ends_the_process_though_its_task_is_in_c_code(client, worker_process, tmp_path):
    """Python runs signal handlers on the main thread only, and not before it is back from C."""
    worker = worker_process(shutdown_timeout=0.3)
    future, _ = begin(client, tmp_path, "c")
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 128 + signal.SIGTERM
    future.cancel()


def test_second_signal_ends_the_process_though_its_task_is_in_c_code(client, worker_process, tmp_path):
    worker = worker_process(shutdown_timeout=600)
    future, _ = begin(client, tmp_path, "c")
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    # The latter two if the signals were faster than the call.
    numbers = (signal.SIGINT, signal.SIGTERM)
    assert worker.wait(20) in [128 + number for number in numbers] + [-number for number in numbers]
    future.cancel()


def test_task_that_handles_signals_by_asyncio_does_not_disarm_those_of_the_worker(client, worker_process, tmp_path):
    """The descriptor that signals are told through is the process's, and asyncio takes it for a while."""
    worker = worker_process(shutdown_timeout=0.3)
    future = client.submit("slow", str(tmp_path / "never"), unique="asyncio")
    assert next(iter(future.updates(20))).data == b"started"
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 128 + signal.SIGTERM
    future.cancel()


@pytest.mark.parametrize("concurrency", [1, 2])
def test_signal_for_a_child_that_a_task_has_forked_ends_that_child_and_is_not_the_workers(
    client, worker_process, concurrency
):
    worker = worker_process(concurrency=concurrency)
    result = client.submit("fork", b"SIGTERM").result(20)
    assert result == b"of the parent, child %d" % -signal.SIGTERM
    assert client.submit("note", b"on").result(20) == b"on"
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.parametrize("concurrency", [1, 2])
def test_child_forked_by_a_task_does_not_end_the_job(client, worker_process, concurrency):
    """A forked child's exit "completes" the job with some other libraries."""
    worker = worker_process(concurrency=concurrency)
    assert client.submit("fork", b"exit").result(20) == b"of the parent, child 0"
    # One that returns into the worker ends with an error, and sends nothing.
    result = client.submit("fork", b"return").result(20)
    assert result.startswith(b"of the parent, child ")
    assert client.submit("note", b"on").result(20) == b"on"
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
