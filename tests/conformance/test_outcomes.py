"""How jobs end: WORK_FAIL and WORK_EXCEPTION in all their forms, time limits, cancelling, lost workers and jobs."""

from __future__ import annotations

from collections import deque

import pytest

from gearman_pool import GearmanClient, JobReference
from gearman_pool.errors import JobException, JobFailed, JobLost, JobTimeout, ServerError
from gearman_pool.protocol.client import ClientSession

from ..support.raw import ECHO_REQ, ECHO_RES, OPTION_REQ, OPTION_RES, SUBMIT_JOB, WORK_DATA, WORK_EXCEPTION, WORK_FAIL
from ..support.waiting import wait_until


def accepted(*futures):
    wait_until(lambda: all(future.job.handle for future in futures), message="acceptance")


def test_client_without_the_exceptions_option_ends_a_job_whose_worker_raised(server, raw_worker, monkeypatch):
    # A client that never asks for the option, as most are. gearmand makes WORK_FAIL of WORK_EXCEPTION for it and ends
    # the handle with a NUL, which python-gearman took for another handle: KeyError, or waiting for ever.
    monkeypatch.setattr(ClientSession, "greeting", lambda self: [])
    with GearmanClient([server.address]) as client, server.connect() as other:
        future = client.submit("raw", unique="both")
        job = raw_worker.next_job()
        accepted(future)
        handle = other.submit("raw", b"", b"both")
        assert handle.decode() == future.job.handle
        job.exception(b"why")
        # What this server really sends to such a client; the body is the handle, with or without its NUL.
        body = other.expect(WORK_FAIL).body
        assert body == (handle + b"\0" if server.ends_handles_of_exceptions_with_nul else handle)
        with pytest.raises(JobFailed) as caught:
            future.result(10)
        assert type(caught.value) is JobFailed
        assert (future.request.state, future.request.exception) == ("FAILED", None)
        assert client.stats().late_packets == 0


def test_plain_failure_of_a_worker_ends_the_job(client, raw_worker):
    future = client.submit("raw")
    raw_worker.next_job().fail()
    with pytest.raises(JobFailed, match="said that it failed"):
        future.result(10)


def test_exception_is_the_last_packet_of_a_job(server, client, raw_worker):
    # python-gearman's workers send WORK_FAIL behind WORK_EXCEPTION. The server has freed the job by then, so the second
    # packet is the worker's error and never reaches a client: one that waits for it waits for ever.
    future = client.submit("raw", unique="both")
    job = raw_worker.next_job()
    accepted(future)
    with server.connect() as other:
        assert other.request(OPTION_REQ, b"exceptions").command == OPTION_RES
        other.submit("raw", b"", b"both")
        job.exception(b"why \0 not")
        job.fail()
        with pytest.raises(JobException) as caught:
            future.result(10)
        assert caught.value.data == b"why \0 not"
        assert other.expect(WORK_EXCEPTION).arguments(2)[1] == b"why \0 not"
        wait_until(lambda: raw_worker.errors, message="the worker's error")
        assert raw_worker.errors[0][0] == "JOB_NOT_FOUND"
        # Nothing came behind it: the next packet is the answer to the next request.
        other.submit("raw", b"", b"next")
    assert client.stats().late_packets == 0


def test_failure_after_which_the_worker_sends_an_exception_stays_a_failure(client, raw_worker):
    future = client.submit("raw")
    job = raw_worker.next_job()
    job.fail()
    job.exception(b"too late")
    with pytest.raises(JobFailed) as caught:
        future.result(10)
    assert type(caught.value) is JobFailed
    wait_until(lambda: raw_worker.errors, message="the worker's error")
    assert client.submit("raw", timeout=0.1).exception(10)  # the client goes on


def test_python_gearmans_calls_give_back_failed_requests(client, php_worker):
    failed = client.submit_job("fail", b"", poll_timeout=10)
    raised = client.submit_job("exception", b"why", poll_timeout=10)
    assert (failed.state, failed.exception, failed.complete, failed.timed_out) == ("FAILED", None, True, False)
    assert (raised.state, raised.exception, raised.result) == ("FAILED", b"why", None)


def test_job_timeout_ends_the_job_here_and_late_packets_are_only_counted(client, raw_worker):
    # Connected first: the time of a job runs while it waits for its server.
    wait_until(lambda: None not in client.ping(1.0).values(), message="the server is up")
    future = client.submit("raw", timeout=0.5)
    job = raw_worker.next_job()
    with pytest.raises(JobTimeout, match=r"0\.5 s"):
        future.result(10)
    assert isinstance(future.exception(), TimeoutError)
    following = client.submit("raw")
    accepted(following)
    job.send_data(b"late")
    job.send_status(1, 2)
    job.send_warning(b"late")
    job.complete(b"late")
    raw_worker.next_job().complete(b"right")
    assert following.result(10) == b"right"
    assert client.stats().late_packets == 4
    wait_until(lambda: client.stats().in_flight == 0, message="nothing is in flight")
    assert not future.request.data_updates


def test_cancelled_while_queued_fails_the_job_at_its_client(server, client, admin):
    future = client.submit("nobody")
    accepted(future)
    assert admin.cancel_job(future.job.handle) == "OK"
    with pytest.raises(JobFailed):
        future.result(10)
    assert [row["ignored"] for row in admin.get_jobs()] == ([1] if server.keeps_unwanted_jobs else [])


def test_cancelled_while_running_fails_the_job_and_what_the_worker_still_sends_is_late(client, admin, raw_worker):
    future = client.submit("raw")
    job = raw_worker.next_job()
    accepted(future)
    admin.cancel_job(future.job.handle)
    with pytest.raises(JobFailed):
        future.result(10)
    job.complete(b"late")
    following = client.submit("raw")
    raw_worker.next_job().complete(b"right")
    assert following.result(10) == b"right"
    assert client.stats().late_packets <= 1


def test_job_that_is_cancelled_twice_fails_once_and_the_client_goes_on(server, client, admin, raw_worker):
    future = client.submit("nobody", unique="both")
    accepted(future)
    handle = future.job.handle
    with server.connect() as other:
        other.submit("nobody", b"", b"both")
        assert admin.cancel_job(handle) == "OK"
        assert isinstance(future.exception(10), JobFailed)
        if server.tells_again_of_jobs_cancelled_twice:
            assert admin.cancel_job(handle) == "OK"
            told = 2
        else:
            with pytest.raises(ServerError, match="UNKNOWN_JOB"):
                admin.cancel_job(handle)
            told = 1
        for _ in range(told):
            assert other.expect(WORK_FAIL).body == handle.encode()
        assert other.request(ECHO_REQ, b"").command == ECHO_RES
    following = client.submit("raw")
    raw_worker.next_job().complete(b"right")
    assert following.result(10) == b"right"
    # What came for the job that had ended harmed nobody.
    stats = client.stats()
    assert (stats.jobs_failed, stats.connections_lost, stats.late_packets) == (1, 0, told - 1)


@pytest.mark.parametrize("attempts", [1, 3])
def test_job_that_loses_its_worker_too_often_fails(servers, raw_workers, attempts):
    # gearmand's --job-retries, and what a job that kills its workers needs.
    server = servers(attempts=attempts)
    with GearmanClient([server.address]) as client:
        future = client.submit("raw")
        for number in range(attempts):
            worker = raw_workers(server, "raw")
            handle = worker.next_job().handle
            assert not future.done(), f"after {number} workers"
            worker.disconnect()
        with pytest.raises(JobFailed) as caught:
            future.result(10)
        assert type(caught.value) is JobFailed
        assert future.job.handle == handle
        assert not client.status(future).known
        wait_until(lambda: server.jobs("raw") == 0, message="the server has forgotten it")
        worker = raw_workers(server, "raw", lambda job: job.complete(b"right"))
        assert client.submit("raw").result(10) == b"right"
        assert len(worker.taken) == 1


def test_worker_that_is_lost_in_the_middle_leaves_its_data_and_the_next_one_finishes_the_job(
    server, client, raw_workers
):
    first = raw_workers(server, "raw")
    future = client.submit("raw")
    job = first.next_job()
    job.send_data(b"first half ")
    job.send_status(1, 2)
    wait_until(lambda: future.progress == 0.5, message="the status")
    first.disconnect()
    wait_until(lambda: client.status(future).running is False, message="queued again")
    # The status went with the worker; the client is told nothing.
    status = client.status(future)
    assert (status.known, status.numerator, status.denominator) == (True, 0, 0)
    second = raw_workers(server, "raw")
    job = second.next_job()
    job.send_data(b"all of it")
    job.complete(b"done")
    assert future.result(10) == b"done"
    assert future.request.data_updates == deque([b"first half ", b"all of it"])


def test_status_that_is_no_number_is_taken_as_the_server_takes_it(server, client, raw_worker):
    future = client.submit("raw")
    job = raw_worker.next_job()
    accepted(future)
    for numerator, denominator in [(b"0.5", b"2"), (b"lots", b""), (b"7", b"8")]:
        raw_worker._send(job.connection, 12, job.handle.encode(), numerator, denominator)
    wait_until(lambda: future.progress == 7 / 8, message="the last status")
    updates = future.updates(10)
    assert [(u.numerator, u.denominator) for u in (next(updates), next(updates))] == [(0, 2), (0, 0)]
    job.complete(b"")
    assert future.result(10) == b""


def test_job_that_joined_one_whose_client_had_left_is_found_lost(server, raw_workers):
    with GearmanClient([server.address]) as first:
        accepted(first.submit("raw", unique="zombie"))
        first.close(0)
    # A server with that fault keeps the name until a worker asks: a second job of it is accepted, and goes without a
    # word.
    with GearmanClient([server.address], lost_job_check=0.4) as client:
        future = client.submit("raw", unique="zombie")
        accepted(future)
        worker = raw_workers(server, "raw")
        if server.drops_jobs_that_join_unwanted_ones:
            with pytest.raises(JobLost, match="no longer has the job") as caught:
                future.result(15)
            assert caught.value.maybe_sent
            assert worker.taken == []
        else:
            worker.next_job().complete(b"r")
            assert future.result(15) == b"r"


def test_silent_job_that_the_server_still_has_is_not_given_up(server, raw_worker):
    with GearmanClient([server.address], lost_job_check=0.1) as client:
        running, queued = client.submit("raw"), client.submit("nobody")
        job = raw_worker.next_job()
        accepted(running, queued)
        asked = client._engine._lost_jobs.sweep
        wait_until(lambda: client._engine._lost_jobs.sweep > asked + 8, message="several checks")
        assert not running.done()
        assert not queued.done()
        job.complete(b"r")
        assert running.result(10) == b"r"
        client.close(0)


def test_reference_to_a_lost_job_is_not_mistaken_for_another_job_with_its_handle(server, client):
    old = client.submit_background("nobody", b"old").result(10)
    server.restart()
    wait_until(lambda: client.stats().connections_lost, message="the client has noticed")
    new = client.submit_background("nobody", b"new").result(10)
    assert client.status(new).known
    # Servers count handles from 1 after each start, so that an old handle soon names another job.
    assert old.handle == new.handle
    assert not client.status(old).known
    assert not client.status(JobReference.parse(str(old))).known


def test_status_of_a_finished_job_is_not_that_of_another_job_with_its_handle(server, client, raw_workers):
    worker = raw_workers(server, "raw")
    old = client.submit("raw")
    worker.next_job().complete(b"")
    assert old.result(10) == b""
    request = client.submit_job("nobody", b"", background=True, poll_timeout=10)
    server.restart()
    wait_until(lambda: client.stats().connections_lost, message="the client has noticed")
    handles = {client.submit_background("nobody", b"%d" % number).result(10).handle for number in range(2)}
    assert {old.job.handle, request.job.handle} == handles
    assert not client.status(old).known
    assert not client.status(old.request).known
    assert client.get_job_status(request).status["known"] is False


def test_error_reply_carries_what_the_server_said(client, admin):
    with pytest.raises(ServerError) as caught:
        admin.cancel_job("H:nowhere:1")
    assert (caught.value.code, caught.value.maybe_sent) == ("UNKNOWN_JOB", False)
    assert client.ping()


def test_data_before_the_client_joined_is_not_sent_again(server, client, raw_worker):
    with server.connect() as first:
        first.send(SUBMIT_JOB, b"raw", b"u", b"")
        job = raw_worker.next_job()
        job.send_data(b"early")
        job.send_status(1, 2)
        first.receive()
        assert first.expect(WORK_DATA).arguments(2)[1] == b"early"
        late = client.submit("raw", unique="u")
        accepted(late)
        job.send_data(b"for both")
        job.complete(b"r")
        assert late.result(10) == b"r"
    assert late.request.data_updates == deque([b"for both"])
    assert late.request.status == {}
