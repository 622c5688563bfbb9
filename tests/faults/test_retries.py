"""A job whose connection is lost is sent again, to the same real server: what becomes of its first copy there."""

from __future__ import annotations

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost, JobLost
from gearman_pool.testing import FaultProxy

from ..support.outcomes import wait_accepted, wait_up
from ..support.waiting import wait_until

#: No health check comes to help, and the new connection is there soon.
OPTIONS = {"health_check_interval": 60.0, "reconnect_backoff": (0.02, 0.1), "submit_timeout": 20.0}


@pytest.fixture
def wire(gearmand):
    with FaultProxy(gearmand.address) as proxy:
        yield proxy


@pytest.mark.parametrize("unique", [None, "given"])
def test_background_job_that_is_sent_again_joins_its_own_first_copy_and_runs_once(gearmand, wire, raw_workers, unique):
    with GearmanClient([wire.address], max_retries=1, **OPTIONS) as client:
        wait_up(client)
        # The server has the job, and the client never hears of that.
        wire.delay(60, "to_client")
        future = client.submit_background("job", b"data", unique=unique)
        wait_until(lambda: gearmand.jobs("job") == 1, message="the first copy is queued")
        assert not future.done()
        wire.cut()
        wire.pass_through()
        reference = future.result(15)
        assert future.request.connection_attempts == 2
        assert gearmand.jobs("job") == 1
        assert unique in (None, reference.unique)
        worker = raw_workers(gearmand, "job", lambda job: job.complete(b""))
        wait_until(lambda: gearmand.jobs("job") == 0, message="the job is done")
        (job,) = worker.taken
        assert (job.handle, job.unique.decode(), job.data) == (reference.handle, reference.unique, b"data")
        assert client.stats().jobs_retried == 1


def test_background_job_without_attempts_left_says_that_it_may_have_been_sent_and_it_has(gearmand, wire, raw_workers):
    with GearmanClient([wire.address], **OPTIONS) as client:
        wait_up(client)
        wire.delay(60, "to_client")
        future = client.submit_background("job", b"data")
        wait_until(lambda: gearmand.jobs("job") == 1, message="it is queued")
        wire.cut()
        wire.pass_through()
        error = future.exception(15)
        assert isinstance(error, ConnectionLost)
        assert error.maybe_sent
        assert error.unique == future.job.unique
        worker = raw_workers(gearmand, "job", lambda job: job.complete(b""))
        wait_until(lambda: gearmand.jobs("job") == 0, message="the job is done")
        assert [job.unique.decode() for job in worker.taken] == [error.unique]


def _abandoned_and_sent_again(gearmand, wire, client, unique):
    """Have a foreground job accepted, cut, given up by the server, and then sent again and accepted."""
    wait_up(client)
    future = client.submit("job", b"data", unique=unique)
    wait_accepted(future)
    wire.refuse()
    wire.cut()
    # gearmand keeps the job until a worker asks, marked as one that nobody wants: the third column.
    gearmand.wait_for(lambda rows: rows.split("\t")[2:3] == ["1"], "show jobs", message="the job is marked")
    wire.accept()
    wait_until(lambda: future.request.connection_attempts == 2, 15, message="it is sent again")
    wait_accepted(future)
    # The answer says that the server has read the second submit: no worker may come before.
    assert client.status(future).known
    return future


def test_given_unique_that_is_sent_again_to_a_job_marked_as_unwanted_is_found_lost(gearmand, wire, raw_workers):
    with GearmanClient([wire.address], max_retries=1, lost_job_check=0.3, **OPTIONS) as client:
        future = _abandoned_and_sent_again(gearmand, wire, client, "given")
        # It was accepted, and joined its own first copy, which goes without a word when a worker asks.
        worker = raw_workers(gearmand, "job")
        error = future.exception(15)
        assert isinstance(error, JobLost)
        assert "no longer has the job" in str(error)
        assert error.unique == "given"
        assert error.maybe_sent
        assert worker.taken == []
        assert gearmand.jobs("job") == 0


def test_made_up_unique_is_another_one_for_the_second_attempt_and_the_job_runs(gearmand, wire, raw_workers):
    with GearmanClient([wire.address], max_retries=1, lost_job_check=0.3, **OPTIONS) as client:
        future = _abandoned_and_sent_again(gearmand, wire, client, None)
        worker = raw_workers(gearmand, "job", lambda job: job.complete(b"result"))
        assert future.result(15) == b"result"
        assert [job.unique.decode() for job in worker.taken] == [future.job.unique]
