"""F11: nobody does the job, or nobody waits for it any more."""

from __future__ import annotations

import gc
import time
import weakref

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost, JobCancelled, JobLost, JobTimeout
from gearman_pool.events import ConnectionClosed, JobFinished
from gearman_pool.future import JobFuture

from ..support.figures import figure
from ..support.listening import Keeping
from ..support.outcomes import wait_accepted, wait_up
from ..support.raw import (
    ERROR,
    GET_STATUS,
    JOB_CREATED,
    STATUS_RES,
    SUBMIT_JOB,
    WORK_COMPLETE,
    WORK_FAIL,
    Packet,
    RawConnection,
    pack_response,
)
from ..support.scripted import ScriptedServer
from ..support.waiting import wait_until


@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        wait_up(client)
        yield client
        client.close(0)


def test_result_timeout_leaves_the_job_going(client, raw_worker):
    future = client.submit("raw")
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="the job goes on") as raised:
            future.result(0.1)
        assert 0.1 <= time.monotonic() - started < 8
        assert not isinstance(raised.value, JobTimeout)
    assert not future.done()
    raw_worker.next_job().complete(b"late")
    assert future.result(15) == b"late"


def test_job_without_a_worker_ends_with_its_own_timeout(client, gearmand):
    started = time.monotonic()
    future = client.submit("nobody", timeout=0.3)
    error = future.exception(15)
    assert 0.3 <= time.monotonic() - started < 8
    assert isinstance(error, JobTimeout)
    assert isinstance(error, TimeoutError)
    assert error.maybe_sent
    assert "its timeout of 0.3 s" in str(error)
    assert client.stats().jobs_timed_out == 1
    assert client.stats().in_flight == 0


def test_worker_that_answers_after_the_timeout_disturbs_nobody(client, raw_worker):
    future = client.submit("raw", timeout=0.2)
    job = raw_worker.next_job()
    assert isinstance(future.exception(15), JobTimeout)
    job.send_status(1, 2)
    job.send_data(b"late")
    job.complete(b"late")
    other = client.submit("raw")
    raw_worker.next_job().complete(b"right")
    assert other.result(15) == b"right"
    assert isinstance(future.exception(), JobTimeout)
    wait_until(lambda: client.stats().late_packets == 3)
    assert client.stats().connections_lost == 0


def test_job_that_is_refused_after_its_timeout_has_one_outcome():
    """What the server says of it comes too late to be told."""
    held: list[RawConnection] = []
    keeping = Keeping()

    def script(connection: RawConnection, packet: Packet) -> None:
        if packet.command == SUBMIT_JOB and not held:
            held.append(connection)
        elif packet.command == SUBMIT_JOB:
            connection.sock.sendall(pack_response(JOB_CREATED, b"H:2") + pack_response(WORK_COMPLETE, b"H:2", b"r"))

    with ScriptedServer(script) as server, GearmanClient([server.address], listeners=[keeping]) as client:
        wait_up(client)
        future = client.submit("job", timeout=0.5)
        assert isinstance(future.exception(15), JobTimeout)
        wait_until(lambda: held)
        held[0].sock.sendall(pack_response(ERROR, b"QUEUE_FULL", b"no room"))
        # By the next job's result the refusal has been read.
        assert client.submit("job").result(15) == b"r"
        assert isinstance(future.exception(0), JobTimeout)
        assert future.request.state == "FAILED"
    wait_until(lambda: keeping.of(ConnectionClosed), message="the last event")
    assert [event.outcome for event in keeping.of(JobFinished)] == ["JobTimeout", "complete"]


def test_finished_job_is_not_kept_until_its_timeout(client, raw_worker):
    future = client.submit("raw", timeout=3600)
    job = raw_worker.next_job()
    wait_accepted(future)
    # Two more turns of the loop: it watches the time by now.
    client.ping()
    client.ping()
    job.complete(b"done")
    assert future.result(15) == b"done"
    left = weakref.ref(future)
    del future

    def gone() -> bool:
        gc.collect()
        return left() is None

    wait_until(gone, 5, message="the future of a finished job is let go")


def test_cancel_withdraws_a_queued_job_from_the_server(client, gearmand):
    future = client.submit("nobody")
    wait_accepted(future)
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(JobCancelled):
        future.result()
    # gearmand keeps it, marked, until a worker asks; no worker gets it.
    rows = gearmand.text("show jobs").splitlines()
    assert [row.split("\t")[2] for row in rows] == ["1"]


def test_cancelled_job_reaches_no_worker(client, gearmand, raw_workers):
    cancelled, kept = client.submit("raw", b"cancelled"), client.submit("raw", b"kept")
    wait_accepted(cancelled, kept)
    assert cancelled.cancel()
    seen = []

    def script(job) -> None:
        seen.append(job.data)
        job.complete(job.data)

    raw_workers(gearmand, "raw", script)
    assert kept.result(15) == b"kept"
    assert seen == [b"kept"]


def test_cancel_of_a_running_job_says_that_it_cannot(client, raw_worker):
    future = client.submit("raw")
    job = raw_worker.next_job()
    assert not future.cancel()
    job.complete(b"done")
    assert future.result(15) == b"done"


def _server_that_is_asked_to_cancel(answer):
    """Accepts a job, says that it is queued, and answers the command to cancel it with ``answer(connection)``."""

    def script(connection, packet) -> None:
        if packet.command == SUBMIT_JOB:
            connection.sock.sendall(pack_response(JOB_CREATED, b"H:1"))
        elif packet.command == GET_STATUS:
            connection.sock.sendall(pack_response(STATUS_RES, b"H:1", b"1", b"0", b"0", b"0"))
            assert connection.line() == b"cancel job H:1"
            answer(connection)

    return ScriptedServer(script)


def _cancelled_at(server) -> tuple[bool, JobFuture]:
    with GearmanClient([server.address]) as client:
        wait_up(client)
        future = client.submit("job")
        wait_accepted(future)
        return future.cancel(), future


def test_connection_that_is_lost_during_a_cancel_ends_the_job():
    with _server_that_is_asked_to_cancel(lambda connection: connection.close()) as server:
        cancelled, future = _cancelled_at(server)
    assert not cancelled
    assert isinstance(future.exception(0), ConnectionLost)


def test_job_that_completes_during_a_cancel_has_its_result():
    def answer(connection) -> None:
        connection.sock.sendall(pack_response(WORK_COMPLETE, b"H:1", b"result") + b"ERR UNKNOWN_JOB\r\n")

    with _server_that_is_asked_to_cancel(answer) as server:
        cancelled, future = _cancelled_at(server)
    assert not cancelled
    assert future.result(0) == b"result"


@pytest.mark.parametrize("told", [True, False], ids=["told by WORK_FAIL", "told by OK alone"])
def test_cancel_that_the_server_confirms_ends_the_job_as_cancelled(told):
    def answer(connection) -> None:
        connection.sock.sendall((pack_response(WORK_FAIL, b"H:1") if told else b"") + b"OK\r\n")

    with _server_that_is_asked_to_cancel(answer) as server:
        cancelled, future = _cancelled_at(server)
    assert cancelled
    assert future.cancelled()


def test_job_is_asked_after_when_it_has_been_silent_for_lost_job_check_and_not_before():
    accepted, asked = [], []

    def script(connection, packet) -> None:
        if packet.command == SUBMIT_JOB:
            # Before the answer leaves: the job has been silent for less time than this says.
            accepted.append(time.monotonic())
            connection.sock.sendall(pack_response(JOB_CREATED, b"H:1"))
        elif packet.command == GET_STATUS:
            asked.append(time.monotonic())
            connection.sock.sendall(pack_response(STATUS_RES, b"H:1", b"0", b"0", b"0", b"0"))

    with ScriptedServer(script) as server, GearmanClient([server.address], lost_job_check=1.0) as client:
        future = client.submit("job")
        assert isinstance(future.exception(15), JobLost)
        assert len(asked) == 1
        assert asked[0] - accepted[0] >= 1.0


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_abandoned_jobs_leave_nothing_behind(client):
    """100,000 jobs whose futures nobody keeps: some end by their timeout, some are cancelled, some just end."""
    rounds, size = 20, 5000

    def one_round() -> None:
        for number in range(size):
            if number % 10 == 0:
                client.submit_background("nobody", b"abandoned")
            elif number % 500 == 1:
                client.submit("nobody", b"cancelled").cancel()
            else:
                client.submit("nobody", b"abandoned", timeout=0.05)
        wait_until(lambda: client.stats().in_flight == 0, timeout=30, message="all have ended")

    one_round()
    one_round()
    gc.collect()
    before = len(gc.get_objects())
    started = time.monotonic()
    for _ in range(rounds - 2):
        one_round()
    elapsed = time.monotonic() - started
    gc.collect()
    grown = len(gc.get_objects()) - before
    figure(
        f"{rounds * size:,d} abandoned jobs, the last {(rounds - 2) * size:,d} in {elapsed:.1f} s: {grown} more objects"
    )
    assert grown < 1000
    session = client._engine.pool.connections[0].session
    assert not session.order
    assert not session.handles
