"""What python-gearman's interface does where things go wrong, and where programs build on it."""

from __future__ import annotations

import threading

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ClientSaturated, EncodeError, InvalidClientState
from gearman_pool.future import JobFuture
from gearman_pool.job import GearmanJob, GearmanJobRequest



@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        yield client
        client.close(0)


def request_for(task, data=b"", **options):
    return GearmanJobRequest(GearmanJob(None, None, task, f"unique of {task}", data), **options)


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"task": "a", "data": 7}, EncodeError),
        ({"task": "a\0b", "data": b""}, ValueError),
        ({"task": "a", "data": b"", "unique": "u" * 64}, ValueError),
        ({"task": "a", "data": b"", "priority": "URGENT"}, ValueError),
        ({"task": "a", "dat": b""}, TypeError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_batch_with_a_bad_job_sends_none_of_them(gearmand, client, bad, error):
    good = {"task": "good", "data": b""}
    with pytest.raises(error):
        client.submit_multiple_jobs([good, bad, good], background=True, poll_timeout=10)
    # The server answers in order: nothing that was sent before this job is missing from its tables.
    client.submit_job("last", b"", background=True, poll_timeout=10)
    assert gearmand.status() == {"last": (1, 0, 0)}


def test_requests_of_a_batch_with_a_bad_one_can_be_submitted_again(gearmand, client):
    requests = [request_for("good", background=True), request_for("bad", 7, background=True)]
    for _ in range(2):
        with pytest.raises(EncodeError):
            client.submit_multiple_requests(requests, poll_timeout=10)
        assert [(r.state, r.connection_attempts) for r in requests] == [("UNKNOWN", 0)] * 2
    requests[1].job.data = b"7"
    # The same request twice is sent once.
    client.submit_multiple_requests([*requests, requests[0]], poll_timeout=10)
    assert [r.complete for r in requests] == [True] * 2
    assert gearmand.status() == {"good": (1, 0, 0), "bad": (1, 0, 0)}


def test_requests_that_there_was_no_room_for_can_be_submitted_again(gearmand):
    first, *requests = [request_for(f"task-{number}") for number in range(4)]
    with GearmanClient([gearmand.address], max_in_flight=2, submit_timeout=0.5) as client:
        client.submit_multiple_requests([first], wait_until_complete=False, poll_timeout=10)
        with pytest.raises(ClientSaturated):
            client.submit_multiple_requests(requests, wait_until_complete=False, poll_timeout=10)
        client.wait_until_jobs_accepted(requests[:1], poll_timeout=10)
        assert [r.state for r in requests] == ["CREATED", "UNKNOWN", "UNKNOWN"]
        with pytest.raises(InvalidClientState, match="CREATED"):
            client.send_job_request(requests[0])
        with pytest.raises(ClientSaturated):
            client.send_job_request(requests[1])
        client.close(0)
    with GearmanClient([gearmand.address]) as client:
        client.submit_multiple_requests(requests[1:], wait_until_complete=False, poll_timeout=10)
        assert [r.state for r in requests[1:]] == ["CREATED"] * 2
        client.close(0)


def test_lost_request_can_be_submitted_again_as_soon_as_the_wait_for_it_ends(gearmand, client, monkeypatch):
    request = request_for("task")
    client.submit_multiple_requests([request], wait_until_complete=False, poll_timeout=10)
    resolve, submitted_again = JobFuture._resolve, threading.Event()

    def resolve_and_pause(future, *arguments):
        resolved = resolve(future, *arguments)
        # The I/O thread is held up where it has just woken the caller.
        submitted_again.wait(10)
        return resolved

    monkeypatch.setattr(JobFuture, "_resolve", resolve_and_pause)
    gearmand.restart()
    client.wait_until_jobs_completed([request], poll_timeout=10)
    assert request.connection_failed
    client.submit_multiple_requests([request], wait_until_complete=False, poll_timeout=0)
    submitted_again.set()
    client.wait_until_jobs_accepted([request], poll_timeout=10)
    assert (request.state, request.timed_out) == ("CREATED", False)


def test_retries_that_are_no_number_of_times_are_refused(client):
    for bad in (-1, 1.5, "2"):
        with pytest.raises(ValueError, match="max_retries"):
            client.submit_job("task", b"", max_retries=bad)
