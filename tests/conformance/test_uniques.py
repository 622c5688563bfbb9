"""Uniques: how long they may be, which jobs they join, and that what a server would misread never leaves the client."""

from __future__ import annotations

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import JobTimeout
from gearman_pool.job import GearmanJob, GearmanJobRequest

from ..support.raw import (
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_STATUS,
)
from ..support.scripted import SilentServer
from ..support.waiting import wait_until


def connected(client):
    """Wait until the client has its server: the time of a job runs while it waits for one."""
    wait_until(lambda: None not in client.ping(1.0).values(), message="the server is up")


def accepted(*futures):
    wait_until(lambda: all(future.job.handle for future in futures), message="acceptance")


def test_unique_of_63_bytes_coalesces_and_reaches_the_worker_whole(client, raw_worker):
    unique = "u" * 62 + "x"
    first, second = client.submit("raw", unique=unique), client.submit("raw", unique=unique)
    other = client.submit("raw", unique="u" * 62 + "y")
    accepted(first, second, other)
    assert first.job.handle == second.job.handle != other.job.handle
    assert client.status(unique=unique).waiting_clients == 2
    for job in raw_worker.next_jobs(2):
        assert len(job.unique) == 63
        job.complete(job.unique[-1:])
    assert [future.result(10) for future in (first, second, other)] == [b"x", b"x", b"y"]


def test_63_bytes_are_counted_in_utf8(client, raw_worker):
    unique = "ü" * 31 + "x"
    future = client.submit("raw", unique=unique)
    job = raw_worker.next_job()
    assert job.unique == unique.encode()
    job.complete(b"")
    assert future.result(10) == b""
    with pytest.raises(ValueError, match="64 bytes; it may have 63"):
        client.submit("raw", unique="ü" * 32)


def test_longer_uniques_are_cut_or_refused_by_the_server(server):
    # Why the client refuses them.
    with server.connect() as connection:
        first = connection.request(SUBMIT_JOB_BG, b"f", b"u" * 64, b"1")
        second = connection.request(SUBMIT_JOB_BG, b"f", b"u" * 64, b"2")
        third = connection.request(SUBMIT_JOB_BG, b"f", b"u" * 65, b"3")
    assert third.command == ERROR
    assert third.arguments(2)[0] == b"ARGUMENT_TOO_LARGE"
    if server.cuts_uniques_of_64_bytes:
        # Accepted, cut to 63 bytes, and then not found again: two jobs of one unique.
        assert (first.command, second.command) == (JOB_CREATED, JOB_CREATED)
        assert first.body != second.body
        assert server.text("show unique jobs").split() == ["u" * 63] * 2
    else:
        assert [packet.body for packet in (first, second)] == [third.body] * 2
        assert server.text("show unique jobs") == ""


@pytest.mark.parametrize(
    "arguments",
    [
        {"unique": "u" * 64},
        {"unique": b"u" * 65},
        {"unique": "a\0b"},
        {"unique": b"\0"},
        {"unique": ""},
        {"task": "a\0b"},
        {"task": ""},
        {"task": "t" * 513},
        {"data": 7},
        {"priority": "NORMAL"},
    ],
    ids=lambda arguments: str(arguments)[:30],
)
def test_what_the_server_would_misread_is_refused_and_nothing_is_written(arguments):
    request = {"task": "t", "data": b"", **arguments}
    with SilentServer() as server, GearmanClient([server.address]) as client:
        assert client.ping(10)[server.address] is not None
        for submit in (client.submit, client.submit_background, client.submit_job):
            # python-gearman takes an empty unique for none.
            if submit != client.submit_job or arguments != {"unique": ""}:
                with pytest.raises((ValueError, TypeError)):
                    submit(**request)
        job = GearmanJob(None, None, request["task"], request.get("unique", "u"), request["data"])
        hand_made = GearmanJobRequest(job, request.get("priority"))
        with pytest.raises((ValueError, TypeError)):
            client.submit_multiple_requests([hand_made], poll_timeout=10)
        assert hand_made.state == "UNKNOWN"
        wait_until(lambda: client.stats().in_flight == 0, message="nothing is in flight")
        # An answer now means that all that was written before has been read.
        assert client.ping(10)[server.address] is not None
        assert server.received == []


@pytest.mark.parametrize("handle", ["h" * 64, "", "a\0b"])
def test_handle_that_the_server_would_not_answer_is_refused(server, client, handle):
    client.ping()
    request = GearmanJobRequest(GearmanJob(client.connection_list[0], handle, None, None, None))
    with pytest.raises(ValueError, match="the handle"):
        client.get_job_status(request)
    assert client.ping()[server.address] is not None
    assert client.stats().connections_opened == 1


def test_nul_in_a_name_would_shift_what_follows(server, raw_worker):
    # Why the client refuses it.
    with server.connect() as connection:
        connection.submit("raw", b"data", b"uni\0que", SUBMIT_JOB_BG)
    job = raw_worker.next_job()
    assert (job.unique, job.data) == (b"uni", b"que\0data")
    job.complete(b"")


def test_same_unique_twice_on_one_connection_gives_each_future_each_update_once(server, client, raw_worker):
    first, second = (client.submit("raw", unique="same") for _ in range(2))
    with server.connect() as raw:
        # What the server really sends: each packet once for each submit.
        for _ in range(2):
            raw.send(SUBMIT_JOB, b"raw", b"same", b"")
            raw.expect(JOB_CREATED)
        job = raw_worker.next_job()
        accepted(first, second)
        assert first.job.handle == second.job.handle
        job.send_data(b"d1")
        job.send_data(b"d2")
        job.complete(b"r")
        assert [raw.receive().command for _ in range(6)] == [28, 28, 28, 28, 13, 13]
    assert (first.result(10), second.result(10)) == (b"r", b"r")
    assert [list(future.request.data_updates) for future in (first, second)] == [[b"d1", b"d2"]] * 2
    assert client.stats().late_packets == 0


def test_hundred_callers_of_one_unique_all_get_the_result_of_one_run(client, raw_worker):
    futures = [client.submit("raw", unique="same") for _ in range(100)]
    accepted(*futures)
    raw_worker.next_job().complete(b"once")
    assert [future.result(10) for future in futures] == [b"once"] * 100
    assert len(raw_worker.taken) == 1


def test_one_of_two_on_a_unique_may_give_up_and_the_other_still_gets_its_result(client, raw_worker):
    connected(client)
    impatient = client.submit("raw", unique="same", timeout=1.0)
    patient = client.submit("raw", unique="same")
    job = raw_worker.next_job()
    accepted(patient)
    assert impatient.exception(10) is not None
    job.send_data(b"d")
    job.complete(b"r")
    assert patient.result(10) == b"r"
    assert list(patient.request.data_updates) == [b"d"]


def test_job_that_joins_one_that_was_given_up_before_sees_each_update_once(client, raw_worker):
    connected(client)
    impatient = client.submit("raw", unique="same", timeout=1.0)
    accepted(impatient)
    assert isinstance(impatient.exception(10), JobTimeout)
    patient = client.submit("raw", unique="same")
    accepted(patient)
    assert patient.job.handle == impatient.job.handle
    job = raw_worker.next_job()
    job.send_data(b"d1")
    job.send_data(b"d2")
    job.complete(b"r")
    assert patient.result(10) == b"r"
    assert list(patient.request.data_updates) == [b"d1", b"d2"]
    # The server sends the copies of the one that was given up, too.
    wait_until(lambda: client.stats().late_packets == 3, message="the other copies")


@pytest.mark.parametrize("where", ["this client", "another client"])
def test_cancelling_one_of_two_jobs_on_a_unique_leaves_the_other_its_result(server, client, raw_workers, where):
    with GearmanClient([server.address]) as another:
        first = client.submit("later", unique="same")
        second = (client if where == "this client" else another).submit("later", unique="same")
        accepted(first, second)
        assert first.job.handle == second.job.handle
        assert first.cancel()
        assert first.cancelled()
        raw_workers(server, "later", lambda job: job.complete(b"r"))
        assert second.result(10) == b"r"
        assert client.stats().jobs_cancelled == 1


def test_cancelling_one_of_two_jobs_that_a_dash_has_joined_leaves_the_other_its_result(server, client, raw_workers):
    # The server cannot be asked how many wait for that unique.
    first, second = (client.submit("later", b"equal data", unique="-") for _ in range(2))
    accepted(first, second)
    assert first.job.handle == second.job.handle
    assert first.cancel()
    assert first.cancelled()
    raw_workers(server, "later", lambda job: job.complete(b"r"))
    assert second.result(10) == b"r"


def test_cancelling_the_only_job_of_a_unique_drops_it(client):
    future = client.submit("later", unique="mine")
    accepted(future)
    assert future.cancel()
    assert client.stats().jobs_cancelled == 1
    assert client.stats().jobs_failed == 0
    assert not client.status(unique="mine").running
    wait_until(lambda: client.stats().in_flight == 0, message="nothing in flight")


def test_jobs_coalesce_by_task_and_unique(client, raw_workers, server):
    futures = [client.submit(task, unique="same") for task in ("one", "two", "one")]
    accepted(*futures)
    assert futures[0].job.handle == futures[2].job.handle != futures[1].job.handle
    worker = raw_workers(server, ["one", "two"], lambda job: job.complete(job.function.encode()))
    assert [future.result(10) for future in futures] == [b"one", b"two", b"one"]
    assert len(worker.taken) == 2


def test_job_that_joins_another_has_no_say(server, client, raw_workers):
    # Its data and its priority are ignored, and a background job that a foreground one joins stays one.
    first = client.submit_background("later", b"first", unique="same", priority="LOW").result(10)
    joined = client.submit("later", b"second", unique="same", priority="HIGH")
    accepted(joined)
    assert joined.job.handle == first.handle
    normal = client.submit_background("later", b"normal").result(10)
    worker = raw_workers(server, "later")
    for handle, data in [(normal.handle, b"normal"), (first.handle, b"first")]:
        job = worker.next_job()
        assert (job.handle, job.data) == (handle, data)
        job.complete(b"r")
    assert joined.result(10) == b"r"


def test_made_up_uniques_never_meet(server, client, raw_worker):
    futures = [client.submit("raw", b"equal data") for _ in range(50)]
    jobs = raw_worker.next_jobs(50)
    assert len({job.unique for job in jobs}) == 50
    assert all(len(job.unique) <= 63 for job in jobs)
    for job in jobs:
        job.complete(job.unique)
    assert [future.result(10).decode() for future in futures] == [future.job.unique for future in futures]


def test_dash_and_hash_as_uniques_follow_the_server(server, client, raw_worker):
    # "-" joins jobs of equal data; "#" is a unique like any other on the wire (only libgearman makes a hash of it).
    dashes = [client.submit("raw", data, unique="-") for data in (b"a", b"b", b"a")]
    hashes = [client.submit("raw", data, unique="#") for data in (b"a", b"b")]
    accepted(*dashes, *hashes)
    assert dashes[0].job.handle == dashes[2].job.handle != dashes[1].job.handle
    assert hashes[0].job.handle == hashes[1].job.handle
    for job in raw_worker.next_jobs(3):
        job.complete(job.unique + job.data)
    assert [future.result(10) for future in dashes] == [b"-a", b"-b", b"-a"]
    assert [future.result(10) for future in hashes] == [b"#a", b"#a"]


def test_status_of_a_background_job_with_a_dash_is_known(client):
    # gearmand finds no job by this unique, so it is asked for by its handle.
    reference = client.submit_background("nobody", b"data", unique="-").result(10)
    assert client.status(reference).known
    request = client.submit_job("nobody", b"data", unique="-", background=True)
    assert client.get_job_status(request).status["known"]
    for unique in ("-", b"-"):
        with pytest.raises(ValueError, match="finds no job by the unique '-'"):
            client.status(unique=unique)


def test_background_job_that_joined_a_foreground_one_goes_with_it(server, client, raw_workers):
    # The reverse of the next one: the foreground job was first.
    with GearmanClient([server.address]) as other:
        accepted(other.submit("raw", b"foreground", unique="shared"))
        reference = client.submit_background("raw", b"background", unique="shared").result(10)
        other.close(0)
    wait_until(lambda: server.connections() == 1, message="the other client has gone")
    worker = raw_workers(server, "raw")
    if server.drops_background_jobs_with_foreground_clients:
        wait_until(lambda: not client.status(reference).known, message="the job is dropped")
        assert worker.taken == []
    else:
        job = worker.next_job()
        assert (job.handle, job.data) == (reference.handle, b"foreground")
        job.complete(b"")


def test_background_submit_that_joins_a_foreground_job_gets_nothing_but_its_acceptance(server, raw_worker):
    with server.connect() as foreground, server.connect() as background, server.connect() as both:
        handles = {foreground.submit("raw", b"", b"same")}
        job = raw_worker.next_job()
        handles |= {connection.submit("raw", b"", b"same", SUBMIT_JOB_BG) for connection in (background, both)}
        handles.add(both.submit("raw", b"", b"same"))
        assert handles == {job.handle.encode()}
        job.send_data(b"d")
        job.send_status(1, 2)
        job.complete(b"r")
        # Once for each foreground submit of the connection, and not for the background one beside it.
        for connection in (foreground, both):
            assert [connection.receive().command for _ in range(3)] == [WORK_DATA, WORK_STATUS, WORK_COMPLETE]
        for connection in (foreground, background, both):
            assert connection.request(ECHO_REQ, b"").command == ECHO_RES


def test_foreground_client_that_leaves_takes_a_background_job_of_its_unique_along(server, client, raw_workers):
    # Why a unique that is shared between foreground and background jobs is dangerous on a server with that fault.
    reference = client.submit_background("raw", b"background", unique="shared").result(10)
    with GearmanClient([server.address]) as other:
        accepted(other.submit("raw", b"foreground", unique="shared"))
        other.close(0)
    wait_until(lambda: server.connections() == 1, message="the other client has gone")
    worker = raw_workers(server, "raw")
    if server.drops_background_jobs_with_foreground_clients:
        wait_until(lambda: not client.status(reference).known, message="the job is dropped")
        assert worker.taken == []
    else:
        worker.next_job().complete(b"")
