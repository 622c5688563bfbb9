"""What becomes of jobs when their clients and servers come and go, and when they are due."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
from gearman_pool.errors import ConnectionLost

from ..support.raw import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    Closed,
)
from ..support.running import running
from ..support.waiting import wait_until


def accepted(*futures):
    wait_until(lambda: all(future.job.handle for future in futures), message="acceptance")


def test_queued_foreground_job_whose_client_left_is_never_run(server, admin, raw_workers):
    with GearmanClient([server.address]) as client:
        accepted(client.submit("raw", b"abandoned", unique="abandoned"))
        client.close(0)
    if server.keeps_unwanted_jobs:
        # It still counts, and is dropped when a worker asks for work.
        wait_until(lambda: [row["ignored"] for row in admin.get_jobs()] == [1], message="the server has noticed")
        assert server.jobs("raw") == 1
    worker = raw_workers(server, "raw")
    wait_until(lambda: server.jobs("raw") == 0, message="the job is dropped")
    assert admin.get_jobs() == ()
    assert worker.taken == []


def test_running_foreground_job_whose_client_left_is_finished_in_peace(server, raw_worker):
    with GearmanClient([server.address]) as client:
        client.submit("raw")
        job = raw_worker.next_job()
        client.close(0)
    job.send_data(b"to nobody")
    job.complete(b"to nobody")
    wait_until(lambda: server.jobs("raw") == 0, message="the job is done")
    assert raw_worker.errors == []


def test_running_foreground_job_whose_client_left_is_not_run_again_when_its_worker_dies(server, raw_workers):
    first = raw_workers(server, "raw")
    with GearmanClient([server.address]) as client:
        client.submit("raw")
        first.next_job()
        client.close(0)
    wait_until(lambda: server.connections() == 1, message="the client has gone")
    first.disconnect()
    second = raw_workers(server, "raw")
    wait_until(lambda: server.jobs("raw") == 0, message="the job is dropped")
    assert second.taken == []


def test_background_job_outlives_its_client(server, raw_workers):
    with GearmanClient([server.address]) as client:
        reference = client.submit_background("raw", b"data").result(10)
    worker = raw_workers(server, "raw")
    job = worker.next_job()
    assert (job.handle, job.data, job.unique.decode()) == (reference.handle, b"data", reference.unique)
    job.complete(b"")


def test_background_job_is_run_again_when_its_worker_dies(server, client, raw_workers):
    first = raw_workers(server, "raw")
    reference = client.submit_background("raw", b"data").result(10)
    first.next_job()
    assert client.status(reference).running
    first.disconnect()
    second = raw_workers(server, "raw")
    job = second.next_job()
    assert (job.handle, job.data) == (reference.handle, b"data")
    job.complete(b"")
    wait_until(lambda: not client.status(reference).known, message="the job is done")


def test_background_status_can_be_followed_until_the_job_is_unknown(client, raw_worker):
    reference = client.submit_background("raw").result(10)
    job = raw_worker.next_job()
    job.send_status(3, 4)
    wait_until(lambda: client.status(reference).fraction == 0.75, message="the status")
    assert client.status(reference).running
    job.complete(b"")
    wait_until(lambda: not client.status(reference).known, message="the end")
    status = client.status(reference)
    assert (status.running, status.numerator, status.denominator, status.fraction) == (False, 0, 0, None)


def test_server_that_restarts_between_two_submits_is_used_again(server, client, c_workers):
    # python-gearman's retry did not poll the new connection, and the second call hung.
    for number in range(3):
        worker = c_workers(server)
        # One that goes to the server just as it dies is sent again.
        request = client.submit_job("reverse", b"%d0" % number, max_retries=3, poll_timeout=20)
        assert request.result == b"0%d" % number
        worker.close()
        server.restart()
    assert client.submit_job("nobody", b"", background=True, max_retries=3, poll_timeout=20).state == "CREATED"


def test_twenty_restarts_cost_a_client_a_worker_and_an_admin_client_nothing(server):
    options = {"reconnect_backoff": (0.02, 0.2)}
    worker = GearmanWorker([server.address], **options)
    worker.register_task("reverse", lambda job: job.data[::-1])
    # A job that is on its way to a server that has just gone is sent again.
    client = GearmanClient([server.address], max_retries=3, **options)
    admin = GearmanAdminClient([server.address], **options)
    with running(worker), client, admin:
        for number in range(20):
            server.restart()
            payload = b"restart %d" % number
            assert client.submit("reverse", payload, timeout=30).result(30) == payload[::-1]
            wait_until(lambda: [row["workers"] for row in admin.get_status()] == [1], message="the worker is back")
        stats = client.stats()
    assert (stats.jobs_completed, stats.jobs_lost, stats.loop_errors) == (20, 0, 0)


def test_orderly_end_of_the_server_is_noticed_at_once(server, client):
    waiting = client.submit("nobody")
    accepted(waiting)
    started = time.monotonic()
    server.stop()
    assert isinstance(waiting.exception(20), ConnectionLost)
    print(f"measured: {(time.monotonic() - started) * 1000:.0f} ms from the end of the server to the error")
    server.start()
    assert client.submit_background("nobody").result(20)


def test_persistent_queue_keeps_every_job_of_ours(gearmands, raw_workers, tmp_path):
    # gearmand alone has one. It keeps jobs by task and unique, so that of several jobs without a unique only the last
    # survives a restart; this client always gives one.
    server = gearmands(arguments=("-q", "libsqlite3", "--libsqlite3-db", str(tmp_path / "queue.db")))
    with GearmanClient([server.address]) as client:
        references = [client.submit_background("raw", b"%d" % number).result(10) for number in range(20)]
        server.restart()
        wait_until(lambda: client.stats().connections_lost, message="the client has noticed")
        statuses = [client.status(reference, timeout=20) for reference in references]
        assert all(status.known for status in statuses)
        worker = raw_workers(server, "raw", lambda job: job.complete(b""))
        wait_until(lambda: len(worker.taken) == 20, message="all jobs")
        assert {job.data for job in worker.taken} == {b"%d" % number for number in range(20)}
        assert {job.unique.decode() for job in worker.taken} == {reference.unique for reference in references}


# ---- an orderly end of gearmand ------------------------------------------------------------------------------------


def test_gearmand_that_ends_in_grace_finishes_what_it_has_and_new_jobs_go_elsewhere(gearmands):
    # SIGUSR1. gearmand alone takes signals.
    ending, other = gearmands(), gearmands()
    go_on = threading.Event()
    workers = [GearmanWorker([server.address], reconnect_backoff=(0.05, 0.1)) for server in (ending, other)]
    for worker in workers:
        worker.register_task("slow", lambda job: b"slow" if go_on.wait(30) else b"")
    with (
        running(workers[0]),
        running(workers[1]),
        GearmanClient([ending.address, other.address], policy="failover", reconnect_backoff=(0.05, 0.1)) as client,
    ):
        wait_until(lambda: None not in client.ping().values(), message="the client is connected to both")
        before = client.submit("slow")
        accepted(before)
        os.kill(ending.pid, signal.SIGUSR1)

        def refuses() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(ending.endpoint) != 0

        wait_until(refuses, message="it takes no more connections")
        # On those that it has, it still takes jobs.
        late = client.submit("slow")
        accepted(late)
        assert str(late.job.connection) == ending.address
        assert ending.running
        go_on.set()
        assert before.result(15) == late.result(15) == b"slow"
        wait_until(lambda: not ending.running, message="its last job is done, and it ends")
        wait_until(lambda: client.stats().connections_lost == 1, message="the client has noticed")
        after = client.submit("slow")
        assert after.result(15) == b"slow"
        assert str(after.job.connection) == other.address
        assert client.stats().jobs_lost == 0


# ---- delayed jobs --------------------------------------------------------------------------------------------------


def test_delayed_job_is_not_run_before_it_is_due(server, client, raw_worker):
    due = time.time() + 1.2
    reference = client.submit_background("raw", b"delayed", at=due).result(10)
    assert client.status(reference).known
    assert not client.status(reference).running
    # The server wakes the worker for nothing at once; it goes back to sleep.
    if server.wakes_for_due_jobs:
        job = raw_worker.next_job(timeout=20)
    else:
        # gearmand before 2.0 lets the job wait until its worker asks for any other reason.
        wait_until(lambda: time.time() > due + 1, message="it is due")
        assert raw_worker.taken == []
        assert client.status(reference).known
        client.submit_background("raw", b"alarm clock").result(10)
        jobs = raw_worker.next_jobs(2)
        (job,) = [job for job in jobs if job.data == b"delayed"]
    assert time.time() >= due
    assert job.handle == reference.handle
    job.complete(b"")


@pytest.mark.parametrize(
    "at", [0, 1.5, datetime(2001, 9, 9, tzinfo=timezone(timedelta(hours=2)))], ids=["epoch", "fraction", "datetime"]
)
def test_job_that_was_due_long_ago_runs_at_once(client, raw_worker, at):
    reference = client.submit_background("raw", b"past", at=at).result(10)
    job = raw_worker.next_job()
    assert (job.handle, job.data) == (reference.handle, b"past")
    job.complete(b"")


def test_delayed_job_stays_delayed_when_it_is_submitted_again_without_delay(client, raw_worker):
    first = client.submit_background("raw", b"1", unique="same", at=time.time() + 3600).result(10)
    again = client.submit_background("raw", b"2", unique="same").result(10)
    assert again.handle == first.handle
    client.submit_background("raw", b"other").result(10)
    job = raw_worker.next_job()
    assert job.data == b"other"
    job.complete(b"")
    assert client.status(first).known
    assert len(raw_worker.taken) == 1


# ---- what breaks a connection, and what does not -------------------------------------------------------------------


def submit_packet(body):
    return b"\0REQ" + (18).to_bytes(4, "big") + len(body).to_bytes(4, "big") + body


#: What only servers send, what is no longer in use, and what no server has; with how many arguments they have.
REFUSED = {
    5: ("unused", 0),
    6: ("NOOP", 0),
    8: ("JOB_CREATED", 1),
    10: ("NO_JOB", 0),
    11: ("JOB_ASSIGN", 3),
    17: ("ECHO_RES", 1),
    19: ("ERROR", 2),
    20: ("STATUS_RES", 5),
    24: ("ALL_YOURS", 0),
    27: ("OPTION_RES", 1),
    31: ("JOB_ASSIGN_UNIQ", 4),
    35: ("SUBMIT_JOB_SCHED", 8),
    40: ("JOB_ASSIGN_ALL", 5),
    42: ("STATUS_RES_UNIQUE", 6),
}


@pytest.mark.parametrize("number", REFUSED, ids=lambda number: REFUSED[number][0])
def test_command_that_no_peer_may_send_is_refused_and_the_connection_goes_on(server, number):
    with server.connect() as connection:
        error = connection.request(number, *[b"1"] * REFUSED[number][1])
        assert (error.command, error.arguments(2)[0]) == (ERROR, b"INVALID_COMMAND")
        assert connection.request(ECHO_REQ, b"still here").command == ECHO_RES


def test_packet_with_too_few_arguments_costs_the_connection_and_no_other(server, client):
    # Why the client counts the arguments before it sends. gearmand waits for the missing ones and takes the next packet
    # for them, without a word; the embedded server closes the connection at once, as gearmand does then.
    client.ping()
    with server.connect() as connection:
        connection.sock.sendall(submit_packet(b"nobody"))
        if server.swallows_packets_behind_missing_arguments:
            # Another connection has been answered since: this one is not going to be.
            assert server.text("status") == ""
            connection.sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                connection.sock.recv(1)
            connection.sock.settimeout(10)
            connection.send(ECHO_REQ, b"swallowed")
        with pytest.raises(Closed):
            connection.receive()
    assert client.submit_background("nobody").result(10)
    assert server.status() == {"nobody": (1, 0, 0)}
    assert client.stats().connections_opened == 1


def test_packet_that_is_longer_than_its_size_says_costs_the_connection_and_no_other(server, client):
    client.ping()
    with server.connect() as connection:
        connection.sock.sendall(b"\0REQ" + (18).to_bytes(4, "big") + (3).to_bytes(4, "big") + b"nobody\0unique\0data")
        with pytest.raises(Closed):
            connection.receive()
    assert client.submit_background("nobody").result(10)
    assert server.status() == {"nobody": (1, 0, 0)}
    assert client.stats().connections_opened == 1


def test_function_without_a_name_is_taken_and_can_be_given(server, client):
    # The client and the worker refuse it: nobody could ask for it by the text commands.
    with server.connect() as connection:
        connection.submit("", b"data", b"unique", SUBMIT_JOB_BG)
        assert server.text("status") == "\t1\t0\t0"
        connection.send(CAN_DO, b"")
        job = connection.request(GRAB_JOB_UNIQ)
        assert (job.command, job.arguments(4)[1:]) == (JOB_ASSIGN_UNIQ, [b"", b"unique", b"data"])
        connection.send(WORK_COMPLETE, job.arguments(4)[0], b"")
        assert connection.request(ECHO_REQ, b"").command == ECHO_RES
    with pytest.raises(ValueError, match="empty"):
        client.submit("")
    with pytest.raises(ValueError, match="empty"):
        GearmanWorker([server.address]).register_task("", lambda job: b"")


@pytest.mark.parametrize("sent", [b"\0XYZ" + bytes(8), b"\0REQ" + (99).to_bytes(4, "big") + bytes(4)])
def test_garbage_ends_the_connection_and_no_other(server, client, sent):
    client.ping()
    with server.connect() as connection:
        connection.sock.sendall(sent)
        with pytest.raises(Closed):
            connection.receive()
    assert client.submit_background("nobody").result(10)
    assert client.stats().connections_opened == 1


def test_empty_payload_and_empty_result_are_kept(client, raw_worker):
    future = client.submit("raw")
    job = raw_worker.next_job()
    assert job.data == b""
    job.send_data(b"")
    job.send_warning(b"")
    job.complete(b"")
    assert future.result(10) == b""
    assert list(future.request.data_updates) == list(future.request.warning_updates) == [b""]


def test_every_byte_goes_both_ways_unchanged(client, echo_worker):
    payload = bytes(range(256)) * 8 + b"\0REQ\0RES.\nstatus\r\n\0"
    assert client.submit("echo", payload).result(10) == payload
    assert client.submit_job("reverse", payload, poll_timeout=10).result == payload[::-1]


def test_task_of_512_bytes_and_of_any_characters_works(client, raw_workers, server):
    tasks = ["t" * 512, "with space", "tab\there", "größe", "名", "line\nbreak", "%s"]
    worker = raw_workers(server, tasks, lambda job: job.complete(job.function.encode()))
    for task in tasks:
        assert client.submit(task).result(10).decode() == task
    assert len(worker.taken) == len(tasks)


def test_text_and_binary_share_a_connection(server):
    # The client cancels jobs and the admin client pings this way.
    with server.connect() as connection:
        assert connection.request(ECHO_REQ, b"1").command == ECHO_RES
        assert connection.text("status") == ""
        assert connection.request(SUBMIT_JOB_BG, b"f", b"u", b"").command == JOB_CREATED
        assert connection.text("status") == "f\t1\t0\t0"
        connection.sock.sendall(b"version\r\n\0REQ" + (16).to_bytes(4, "big") + bytes(4) + b"status\n")
        assert connection.line().startswith(b"OK ")
        assert connection.receive().command == ECHO_RES
        assert connection.line() == b"f\t1\t0\t0"
        assert connection.line() == b"."


def test_half_closed_connection_counts_as_gone(server):
    # Why the client never shuts down only its sending half.
    with server.connect() as connection, GearmanAdminClient([server.address]) as admin:
        connection.submit("nobody", b"", b"u", SUBMIT_JOB)
        connection.sock.shutdown(1)
        given_up = [1] if server.keeps_unwanted_jobs else []
        wait_until(lambda: [row["ignored"] for row in admin.get_jobs()] == given_up, message="the job is given up")
