"""Promise F16: a task misbehaves, or its server is lost while it runs; and servers that fail under a worker."""

from __future__ import annotations

import logging
import threading

import pytest

from gearman_pool import GearmanClient, GearmanWorker
from gearman_pool.engine.worker.slots import is_asked
from gearman_pool.errors import ConnectionLost, JobException
from tests.faults.idle import idle
from tests.support.running import running
from tests.support.waiting import wait_until


class Slow:
    """A task that runs until it is let go."""

    def __init__(self) -> None:
        self.started, self.go_on = threading.Event(), threading.Event()
        self.stopping = False

    def __call__(self, job):
        self.started.set()
        assert self.go_on.wait(20)
        self.stopping = job.stopping
        for _ in range(100):
            job.send_status(1, 1)
        return b"late"


@pytest.mark.parametrize("concurrency", [1, 2])
def test_result_for_a_lost_server_is_logged_and_counted_and_not_raised(gearmand, concurrency, caplog):
    slow = Slow()
    worker = GearmanWorker([gearmand.address], concurrency=concurrency, reconnect_backoff=(0.05, 0.2))
    worker.register_task("slow", slow)
    worker.register_task("fine", lambda job: b"fine")
    with caplog.at_level(logging.WARNING, "gearman_pool.worker"), running(worker):
        with GearmanClient([gearmand.address], reconnect_backoff=(0.05, 0.2)) as client:
            future = client.submit("slow")
            assert slow.started.wait(10)
            gearmand.kill()
            with pytest.raises(ConnectionLost):
                future.result(10)
            wait_until(lambda: not worker.ready.is_set())
            slow.go_on.set()
            wait_until(lambda: worker.stats().held == 0)
            gearmand.start()
            assert client.submit("fine").result(10) == b"fine"
        wait_until(lambda: "WORK_COMPLETE of task 'slow'" in caplog.text)
    assert slow.stopping
    # Its hundred updates are no results, and fill no log.
    assert (worker.stats().jobs_done, worker.stats().results_lost) == (1, 1)
    assert caplog.text.count("could not be sent") == 1


class Drawn:
    """Parts without end. What is drawn after ``go_on`` is counted, and so is the end."""

    def __init__(self):
        self.begun, self.go_on, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.drawn = 0
        # Kept here, so that nobody but the worker closes it.
        self.parts = self._parts()

    def _parts(self):
        try:
            self.begun.set()
            assert self.go_on.wait(20)
            # The end is for a worker that goes on for ever: no test should.
            for self.drawn in range(1000):
                yield b"part"
        finally:
            self.closed.set()


@pytest.mark.parametrize("concurrency", [1, 2])
def test_generator_whose_server_is_lost_is_closed_and_nothing_more_is_drawn(gearmand, concurrency):
    drawn = Drawn()
    worker = GearmanWorker([gearmand.address], concurrency=concurrency)
    worker.register_task("task", lambda job: drawn.parts)
    with running(worker), GearmanClient([gearmand.address]) as client:
        client.submit_background("task").result(10)
        assert drawn.begun.wait(10)
        gearmand.kill()
        wait_until(lambda: not worker.ready.is_set())
        drawn.go_on.set()
        assert drawn.closed.wait(10)
        wait_until(lambda: worker.stats().held == 0)
    assert drawn.drawn == 0
    assert (worker.stats().jobs_done, worker.stats().results_lost) == (0, 1)


def test_generator_whose_time_is_up_is_closed_and_nothing_more_is_drawn(gearmand, caplog):
    drawn = Drawn()
    worker = GearmanWorker([gearmand.address])
    worker.register_task("task", lambda job: drawn.parts, timeout=1.0)
    worker.register_task("fine", lambda job: b"fine")
    caplog.set_level(logging.CRITICAL, "gearman_pool.worker")
    with running(worker), GearmanClient([gearmand.address]) as client:
        with pytest.raises(JobException):
            client.submit("task").result(10)
        drawn.go_on.set()
        assert drawn.closed.wait(10)
        assert client.submit("fine").result(10) == b"fine"
    assert drawn.drawn == 0


def test_frozen_server_does_not_keep_a_worker_of_one_slot_from_the_others(gearmands):
    frozen, live = gearmands(), gearmands()
    worker = GearmanWorker([frozen.address, live.address], health_check_interval=30, health_check_timeout=30)
    worker.register_task("task", lambda job: b"done")
    with running(worker), GearmanClient([live.address]) as client:
        wait_until(lambda: frozen.workers("task") == 1 and live.workers("task") == 1)
        with frozen.paused():
            (asked,) = [c for c in worker._runs.engine.pool.connections if c.server.name == frozen.address]
            # Until a question waits there for its answer: the worker asks each second. It may have done so just before.
            wait_until(lambda: _done(client) and is_asked(asked), message="the frozen server is asked")
            for _ in range(5):
                assert _done(client)
        with GearmanClient([frozen.address]) as other:
            assert other.submit("task").result(10) == b"done"


def _done(client: GearmanClient) -> bool:
    return client.submit("task").result(10) == b"done"


def test_worker_serves_a_server_that_is_restarted_again_and_again(gearmand):
    worker = GearmanWorker([gearmand.address], reconnect_backoff=(0.01, 0.05), client_id="faithful")
    worker.register_task("task", lambda job: job.data)
    with running(worker), GearmanClient([gearmand.address], reconnect_backoff=(0.01, 0.05)) as client:
        for number in range(20):
            data = b"%d" % number
            wait_until(lambda: gearmand.workers("task") == 1)
            assert client.submit("task", data).result(10) == data
            assert "faithful" in gearmand.text("workers")
            gearmand.restart()
            wait_until(lambda number=number: client.stats().connections_lost > number)
    assert worker.stats().connections_lost == 20


def test_jobs_that_wait_at_the_worker_for_a_lost_server_are_not_run(gearmands):
    """The server gives them to another worker; running them here too would be twice."""
    server = gearmands()
    slow = Slow()
    ran = []
    worker = GearmanWorker([server.address], prefetch=5, reconnect_backoff=(0.05, 0.2))
    worker.register_task("slow", slow)
    worker.register_task("task", ran.append)

    def fill(client: GearmanClient) -> None:
        """Have the worker hold as many jobs as it can, the first of which runs."""
        client.submit_background("slow").result(10)
        assert slow.started.wait(10)
        for _ in range(5):
            client.submit_background("task").result(10)
        wait_until(lambda: worker.stats().waiting == 5)

    with GearmanClient([server.address], reconnect_backoff=(0.05, 0.2)) as client, running(worker):
        fill(client)
        server.kill()
        wait_until(lambda: not worker.ready.is_set())
        slow.go_on.set()
        wait_until(lambda: worker.stats().held == 0)
        assert ran == []
        # None of the places that they took is lost.
        slow.started.clear()
        slow.go_on.clear()
        server.start()
        fill(client)
        slow.go_on.set()
        wait_until(lambda: len(ran) == 5)


def test_client_that_gives_a_job_up_does_not_disturb_the_worker(gearmand):
    slow = Slow()
    worker = GearmanWorker([gearmand.address])
    worker.register_task("slow", slow)
    worker.register_task("fine", lambda job: b"fine")
    with running(worker):
        with GearmanClient([gearmand.address]) as client:
            client.submit("slow")
            assert slow.started.wait(10)
            client.close(0)
        slow.go_on.set()
        with GearmanClient([gearmand.address]) as client:
            assert client.submit("fine").result(10) == b"fine"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_large_streams_do_not_pile_up_in_the_workers_memory(gearmand, concurrency):
    """A task that sends faster than the server reads waits."""
    worker = GearmanWorker([gearmand.address], concurrency=concurrency, max_outbound_bytes=1024 * 1024)
    most = 0

    @worker.task("stream")
    def stream(job):
        nonlocal most
        chunk = b"x" * 100_000
        for _ in range(300):
            yield chunk
            engine = worker._runs.engine
            most = max(most, *(connection.outbound_bytes() for connection in engine.pool.connections))

    with running(worker), GearmanClient([gearmand.address]) as client:
        received = sum(len(update.data) for update in client.submit("stream").updates(30))
    assert received == 300 * 100_000
    assert most <= 1024 * 1024 + 200_000


@pytest.mark.parametrize("concurrency", [1, 4])
def test_interrupted_work_leaves_the_job_to_another_worker(gearmand, concurrency):
    """KeyboardInterrupt in a task, as Ctrl-C raises it under `work`."""
    worker = GearmanWorker([gearmand.address], concurrency=concurrency)

    def interrupt(job):
        raise KeyboardInterrupt

    worker.register_task("task", interrupt)
    with GearmanClient([gearmand.address]) as client:
        future = client.submit("task")
        with pytest.raises(KeyboardInterrupt):
            worker.work()
        other = GearmanWorker([gearmand.address], max_jobs=1)
        other.register_task("task", lambda job: b"another")
        other.work()
        assert future.result(10) == b"another"


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 4])
def test_worker_that_idles_uses_no_processor_time_and_takes_the_next_job_at_once(gearmand, tmp_path, concurrency):
    idled = idle(gearmand, tmp_path, 3.0, concurrency=concurrency)
    assert idled.used < 0.1, idled
    assert idled.job < 1.0, idled
