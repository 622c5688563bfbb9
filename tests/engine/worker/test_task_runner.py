"""A run as its threads see it, on a real gearmand: the hooks, the threads and the signals."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from gearman_pool import GearmanWorker
from gearman_pool.errors import JobException, JobFailed
from gearman_pool.events import ConnectionOpened, TaskFinished, TaskStarted
from gearman_pool.worker import GearmanWorkerJob
from tests.support.listening import Keeping
from tests.support.processes import handler_before_python
from tests.support.running import running
from tests.support.waiting import wait_until


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


def test_worker_without_tasks_says_so_and_can_be_stopped(worker, caplog):
    with caplog.at_level(logging.WARNING, "gearman_pool.worker"), running(worker, wait_ready=False):
        wait_until(lambda: "no tasks" in caplog.text)
