"""Replies carry no number: each must reach the request it answers, whatever stands around it, or none at all."""

from __future__ import annotations

import contextlib

import pytest

from gearman_pool import GearmanClient
from gearman_pool.engine.asking import Question
from gearman_pool.errors import ConnectionLost, GearmanError, QueueFull
from gearman_pool.protocol.commands import Command
from gearman_pool.protocol.packets import pack
from gearman_pool.testing import FaultProxy

from ..support.raw import (
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GET_STATUS,
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    STATUS_RES,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_LOW,
    WORK_COMPLETE,
    Closed,
)
from ..support.raw import pack as pack_raw
from ..support.scripted import SilentServer
from ..support.waiting import wait_until


def test_server_answers_the_requests_of_a_connection_in_their_order(server):
    # What the client builds on. The middle submit is refused: the queue of "full" takes one job.
    with server.connect() as connection:
        connection.submit("full", b"", b"1", SUBMIT_JOB_BG)
        assert connection.text("maxqueue full 1") == "OK"
        requests = [
            pack_raw(SUBMIT_JOB_BG, b"f", b"a", b""),
            pack_raw(SUBMIT_JOB_BG, b"full", b"2", b""),
            pack_raw(SUBMIT_JOB, b"f", b"b", b""),
            pack_raw(GET_STATUS, b"H:nowhere:1"),
            pack_raw(ECHO_REQ, b"echo"),
            pack_raw(OPTION_REQ, b"no such option"),
            pack_raw(OPTION_REQ, b"Exceptions"),
            pack_raw(SUBMIT_JOB_LOW, b"f", b"c", b""),
        ]
        connection.sock.sendall(b"".join(requests))
        packets = [connection.receive() for _ in requests]
    expected = [JOB_CREATED, ERROR, JOB_CREATED, STATUS_RES, ECHO_RES, ERROR, OPTION_RES, JOB_CREATED]
    assert [packet.command for packet in packets] == expected
    assert packets[1].arguments(2)[0] == b"QUEUE_ERROR"
    assert packets[3].arguments(5) == [b"H:nowhere:1", b"0", b"0", b"0", b"0"]
    assert packets[4].body == b"echo"
    assert packets[5].arguments(2)[0] == b"UNKNOWN_OPTION"


def test_refused_jobs_between_others_fail_alone(server, client, admin, echo_worker):
    client.submit_background("full", b"first").result(10)
    assert admin.send_maxqueue("full", 1) == "OK"
    # Pipelined on one connection, refused ones between accepted ones, and questions between all of them.
    futures = []
    for number in range(300):
        payload = b"%d" % number
        futures.append((payload, client.submit("full" if number % 3 == 1 else "echo", payload)))
        if number % 50 == 0:
            client._engine.ask(None, pack(Command.ECHO_REQ, b"x"), Command.ECHO_RES, Question(print), 5)
    for number, (payload, future) in enumerate(futures):
        if number % 3 == 1:
            error = future.exception(20)
            assert isinstance(error, QueueFull)
            assert (error.server, error.task, error.unique) == (server.address, "full", future.job.unique)
            assert (error.retryable, error.maybe_sent, future.request.state) == (True, False, "FAILED")
        else:
            assert future.result(20) == payload
    assert client.stats().connections_opened == 1


def test_refused_job_raises_from_submit_job_and_the_next_one_gets_its_own_result(client, admin, c_worker):
    # python-gearman waits for ever here, and gives the next JOB_CREATED to the refused job.
    client.submit_job("full", b"", background=True)
    admin.send_maxqueue("full", 1)
    with pytest.raises(QueueFull):
        client.submit_job("full", b"refused", poll_timeout=10)
    assert client.submit_job("reverse", b"abc", poll_timeout=10).result == b"cba"


def test_job_of_a_known_unique_is_accepted_by_a_full_queue(client, admin):
    first = client.submit_background("full", unique="known").result(10)
    admin.send_maxqueue("full", 1)
    assert client.submit_background("full", unique="known").result(10).handle == first.handle
    with pytest.raises(QueueFull):
        client.submit_background("full", unique="other").result(10)


@pytest.mark.parametrize("priority", [None, "HIGH", "LOW"])
@pytest.mark.parametrize("background", [False, True])
def test_every_kind_of_job_is_accepted_and_run(client, raw_worker, background, priority):
    if background:
        client.submit_background("raw", b"data", priority=priority).result(10)
    else:
        future = client.submit("raw", b"data", priority=priority)
    job = raw_worker.next_job()
    assert job.data == b"data"
    job.complete(b"result")
    if not background:
        assert future.result(10) == b"result"


def test_jobs_are_accepted_in_the_order_in_which_they_were_submitted(client, raw_workers, server):
    futures = [client.submit_background("later", b"%d" % number) for number in range(2000)]
    handles = [future.result(20).handle for future in futures]
    numbers = [int(handle.rpartition(":")[2]) for handle in handles]
    assert numbers == sorted(numbers)
    worker = raw_workers(server, "later", lambda job: job.complete(b""))
    wait_until(lambda: len(worker.taken) == 2000, message="all jobs", timeout=20)
    assert [(job.handle, job.data) for job in worker.taken] == [(h, b"%d" % n) for n, h in enumerate(handles)]


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_acceptances_of_jobs_in_line_come_in_their_order_whatever_threads_gearmand_has(gearmands, raw_workers, threads):
    server = gearmands(arguments=["--threads", str(threads)])
    raw_workers(server, "echo", lambda job: job.complete(job.data))
    early = 0
    with server.connect() as connection:
        handles: dict[bytes, int] = {}
        sent = done = 0
        while done < 600:
            if sent < 600 and done > sent - 40:
                # More of them while the last results are still to come, so that acceptances and results mix.
                jobs = [pack_raw(SUBMIT_JOB, b"echo", b"", b"%d" % number) for number in range(sent, sent + 60)]
                connection.sock.sendall(b"".join(jobs))
                sent += 60
            packet = connection.receive()
            if packet.command == JOB_CREATED:
                handles[packet.body] = len(handles)
                continue
            assert packet.command == WORK_COMPLETE
            handle, result = packet.arguments(2)
            # Never before its own acceptance; and the acceptances are in the order of the jobs.
            assert result == b"%d" % handles[handle]
            done += 1
            early += len(handles) < sent
    print(f"measured: {early} of 600 results came before the acceptance of a job that was sent already, -t {threads}")


def test_result_that_comes_while_a_later_job_waits_for_its_acceptance_is_its_own(server, raw_workers):
    worker = raw_workers(server, "raw")
    with FaultProxy(server.address) as wire, GearmanClient([wire.address]) as client:
        client.ping()
        first = client.submit("raw", b"first")
        job = worker.next_job()
        wait_until(lambda: first.job.handle, message="acceptance")
        # What the client sends from now on is on its way for a while; the result overtakes its acceptance.
        wire.delay(0.5, "to_server")
        second = client.submit("raw", b"second")
        job.complete(b"result of the first")
        assert first.result(10) == b"result of the first"
        assert second.job.handle is None
        assert not second.done()
        worker.next_job().complete(b"result of the second")
        assert second.result(10) == b"result of the second"
        assert client.stats().connections_opened == 1


# ---- replies that never come ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "unanswered",
    [
        (pack(Command.GET_STATUS, b"h" * 70), Command.STATUS_RES),
        (pack(Command.GET_STATUS_UNIQUE, b"u" * 70), Command.STATUS_RES_UNIQUE),
    ],
    ids=["long handle", "long unique"],
)
def test_request_that_the_server_never_answers_costs_the_connection_and_mixes_nothing_up(
    server, raw_worker, unanswered
):
    # The public methods refuse such arguments; this goes in below them.
    packet, reply = unanswered
    if not server.leaves_requests_about_long_names_unanswered:
        with server.connect() as probe:
            probe.sock.sendall(bytes(packet))
            answer = probe.receive()
            assert (answer.command, answer.body.split(b"\0")[1:3]) == (reply, [b"0", b"0"])
        return
    # gearmand is silent, and on some days closes the connection instead.
    with server.connect() as probe, contextlib.suppress(Closed):
        probe.sock.sendall(bytes(packet))
        assert probe.request(ECHO_REQ, b"behind").command == ECHO_RES
    with GearmanClient([server.address], health_check_interval=0.3) as client:
        client.ping()
        running = client.submit("raw")
        raw_worker.next_job()
        query = Question(print)
        client._engine.ask(None, packet, reply, query, 5)
        # The next answer shows that one is missing: nothing on that connection can be trusted any more.
        assert isinstance(running.exception(15), ConnectionLost)
        with pytest.raises(GearmanError):
            query.promise.wait(10)
        following = client.submit("raw")
        raw_worker.next_job()  # the server had put the first one back
        job = raw_worker.taken[-1]
        assert job.unique.decode() == following.job.unique
        job.complete(b"right")
        assert following.result(10) == b"right"
        assert client.stats().connections_opened == 2


@pytest.fixture
def silent_server():
    with SilentServer() as server:
        yield server


def test_job_that_is_never_answered_ends_and_its_connection_is_not_used_again(silent_server):
    with GearmanClient([silent_server.address], health_check_interval=0.3, max_retries=0) as client:
        client.ping()
        with pytest.raises(ConnectionLost) as caught:
            client.submit_background("x").result(15)
        assert caught.value.maybe_sent
        assert "in doubt" in str(caught.value)
        silent_server.speaking = True
        assert client.submit_background("y").result(15).handle == "H:here:2"
        assert len(silent_server.connections) == 2


def test_job_that_is_never_answered_is_sent_again_where_that_is_allowed(silent_server):
    with GearmanClient([silent_server.address], health_check_interval=0.3, max_retries=1) as client:
        client.ping()
        future = client.submit_background("x", b"data")
        wait_until(lambda: silent_server.received, message="the first attempt")
        silent_server.speaking = True
        assert future.result(15).handle == "H:here:2"
        assert future.request.connection_attempts == 2
    # A background job keeps its unique, so that on a real server it would join its own first copy.
    assert [p.arguments(3) for p in silent_server.received] == [[b"x", future.job.unique.encode(), b"data"]] * 2
