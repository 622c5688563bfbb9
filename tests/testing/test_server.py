"""`EmbeddedServer` on real sockets. What it owes clients and workers is in tests/conformance, which runs on it too."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
from gearman_pool.errors import ConnectionLost, JobFailed, QueueFull, ServerUnavailable
from gearman_pool.testing import EmbeddedServer, ServedJob
from tests.support.raw import (
    CAN_DO_TIMEOUT,
    ECHO_REQ,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    Closed,
    RawConnection,
)
from tests.support.running import running
from tests.support.waiting import wait_until


@pytest.fixture
def server():
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def client(server):
    client = GearmanClient([server.address], reconnect_backoff=(0.02, 0.1))
    yield client
    client.close(0)


def raw(server: EmbeddedServer) -> RawConnection:
    return RawConnection((server.host, server.port))


def test_it_listens_on_a_free_loopback_port_and_keeps_it(server, client):
    assert server.host == "127.0.0.1"
    port = server.port
    assert server.address == f"127.0.0.1:{port}"
    assert server.url == f"gearman://127.0.0.1:{port}/"
    client.submit_background("task").result(10)
    server.stop()
    assert not server.running
    server.start()
    assert server.port == port
    assert server.jobs == ()
    with GearmanClient(server.url) as other:
        assert other.submit_background("task").result(10)


def test_it_can_be_stopped_twice_and_started_twice():
    server = EmbeddedServer()
    assert server.start() is server.start()
    server.stop()
    server.stop()
    assert "stopped" in repr(server)


def test_server_that_is_only_collected_when_the_interpreter_ends_does_not_hold_it_up():
    program = (
        "from gearman_pool.testing import EmbeddedServer\n"
        "def serve():\n"
        "    with EmbeddedServer():\n"
        "        yield\n"
        "kept = serve()\n"
        "next(kept)\n"
    )
    # Waiting for its thread, which stands still by then, took 30 s.
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


def test_before_it_runs_it_says_what_to_do():
    server = EmbeddedServer()
    with pytest.raises(RuntimeError, match="start"):
        _ = server.address
    with pytest.raises(RuntimeError, match="start"):
        _ = server.jobs


def test_port_that_is_taken_is_an_os_error(server):
    with pytest.raises(OSError, match=r"[Aa]ddress"):
        EmbeddedServer(port=server.port).start()


@pytest.mark.parametrize("name", ["max_packet_size", "max_connections", "max_jobs", "job_retries"])
def test_limits_must_be_whole_numbers_above_0(name):
    with pytest.raises(ValueError, match=name):
        EmbeddedServer(**{name: 0})


def test_it_says_that_it_is_for_development_and_warns_where_others_can_reach_it(caplog):
    with caplog.at_level(logging.INFO, "gearman_pool.testing.server"):
        with EmbeddedServer():
            assert "development and tests" in caplog.text
            assert caplog.records[-1].levelno == logging.INFO
        with EmbeddedServer("0.0.0.0"):
            assert caplog.records[-1].levelno == logging.WARNING


def test_jobs_stats_and_idleness_can_be_looked_at(server, client):
    worker = GearmanWorker([server.address])
    started, go_on = threading.Event(), threading.Event()

    @worker.task("slow")
    def slow(job):
        started.set()
        assert go_on.wait(10)

    with running(worker):
        assert server.wait_idle(0)
        future = client.submit("slow", b"payload", unique="u", priority="HIGH")
        client.submit_background("later", at=time.time() + 100).result(10)
        assert started.wait(10)
        handle = future.job.handle
        assert server.jobs[0] == ServedJob(handle, "slow", "u", b"payload", "RUNNING", "HIGH", False, 1, 0)
        assert "payload" not in repr(server.jobs[0])
        stats = server.stats()
        assert (stats.running, stats.delayed, stats.queued, stats.workers, stats.connections) == (1, 1, 0, 1, 2)
        assert not server.wait_idle(0.05)
        go_on.set()
        future.result(10)
        wait_until(lambda: [job.state for job in server.jobs] == ["DELAYED"])


def test_jobs_that_have_ended_can_be_looked_at(server, client):
    worker = GearmanWorker([server.address])
    worker.register_task("double", lambda job: job.data * 2)

    @worker.task("divide")
    def divide(job):
        return b"%d" % (1 // int(job.data))

    @worker.task("refuse")
    def refuse(worker, job):
        worker.send_job_failure(job)

    with running(worker):
        client.submit("double", b"ab", priority="HIGH", unique="u").result(10)
        for task, data in [("divide", b"0"), ("refuse", b"")]:
            client.submit_background(task, data).result(10)
            assert server.wait_idle(10)
    cancelled = client.submit("nobody")
    wait_until(lambda: cancelled.job.handle)
    with GearmanAdminClient([server.address]) as admin:
        admin.cancel_job(cancelled.job.handle)
    with GearmanClient([server.address]) as other:
        left = other.submit("nobody")
        wait_until(lambda: left.job.handle)
        other.close(0)
    wait_until(lambda: len(server.finished) == 5, message="the last client has left")
    assert server.jobs == ()
    assert [(job.task, job.state) for job in server.finished] == [
        ("double", "COMPLETE"),
        ("divide", "FAILED"),
        ("refuse", "FAILED"),
        ("nobody", "CANCELLED"),
        ("nobody", "ABANDONED"),
    ]
    double, divided, refused = server.finished[:3]
    assert double == ServedJob(double.handle, "double", "u", b"ab", "COMPLETE", "HIGH", False, 1, 0, b"abab", None)
    assert (divided.result, divided.exception.split(b":")[0]) == (None, b"ZeroDivisionError")
    assert (refused.result, refused.exception) == (None, None)
    assert "abab" not in repr(double)
    assert server.job(double.handle) == double
    assert server.job("H:nowhere:1") is None
    waiting = client.submit_background("nobody").result(10)
    assert server.job(waiting.handle).state == "QUEUED"
    server.stop()
    server.start()
    assert server.finished == ()


def test_what_was_submitted_can_be_asserted_before_while_and_after_it_runs(server, client):
    client.submit_background("mail", b"first").result(10)
    client.submit_background("mail", b"second", unique="u", priority="HIGH").result(10)
    assert server.assert_submitted("mail").data == b"second"
    assert server.assert_submitted("mail", data=b"first").priority == "NORMAL"
    assert server.assert_submitted("mail", data="second", priority="HIGH", background=True).unique == "u"
    go_on = threading.Event()
    worker = GearmanWorker([server.address])
    worker.register_task("mail", lambda job: go_on.wait(10) and b"sent")
    with running(worker):
        assert server.assert_submitted("mail", state="RUNNING").data == b"second"
        go_on.set()
        assert server.wait_idle(10)
    assert server.assert_submitted("mail").data == b"second"
    assert server.assert_submitted("mail", data=b"first", state="COMPLETE", result=b"sent")
    with pytest.raises(AssertionError, match=r"'mail', data=b'other'[\s\S]*mail data=b'first' [\s\S]*data=b'second' "):
        server.assert_submitted("mail", timeout=0, data=b"other")
    with pytest.raises(AssertionError, match="there were"):
        server.assert_submitted("mial", timeout=0.05)
    with pytest.raises(TypeError, match=r"dato.*task"):
        server.assert_submitted("mail", dato=b"first")


def test_assertion_waits_for_a_job_that_is_on_its_way(server, client):
    found = []
    thread = threading.Thread(target=lambda: found.append(server.assert_submitted("late", timeout=30, data=b"x")))
    thread.start()
    wait_until(lambda: server._loop.waiters, message="it waits")
    client.submit_background("late", b"y").result(10)
    assert thread.is_alive()
    client.submit_background("late", b"x")
    thread.join(10)
    assert [job.data for job in found] == [b"x"]
    assert not server._loop.waiters


def test_assertions_that_fail_leave_nothing_behind_and_end_with_the_server(server):
    class Odd:
        def __eq__(self, other):
            raise ZeroDivisionError("odd")

        __hash__ = None

    with pytest.raises(AssertionError, match="none"):
        server.assert_submitted("task", timeout=0.02)
    assert not server._loop.waiters
    errors = []

    def look():
        try:
            server.assert_submitted("task", timeout=30)
        except AssertionError as error:
            errors.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    wait_until(lambda: server._loop.waiters)
    with raw(server) as connection:
        connection.submit("odd", b"", b"", 18)
        with pytest.raises(ZeroDivisionError, match="odd"):
            server.assert_submitted("odd", data=Odd())
    server.stop()
    thread.join(10)
    assert "stopped" in errors[0]


def test_wait_idle_ends_when_the_last_job_is_done(server, client):
    worker = GearmanWorker([server.address])
    worker.register_task("task", lambda job: b"")
    for _ in range(50):
        client.submit_background("task").result(10)
    with running(worker):
        assert server.wait_idle(10)
    assert server.jobs == ()


def test_wait_idle_can_wait_for_jobs_that_are_on_their_way(server, client):
    assert server.wait_idle(0)
    assert not server.wait_idle(0.02, after=1)
    results = []
    thread = threading.Thread(target=lambda: results.append(server.wait_idle(30, after=3)))
    thread.start()
    worker = GearmanWorker([server.address])
    worker.register_task("task", lambda job: b"")
    with running(worker):
        for count in range(1, 4):
            assert thread.is_alive()
            client.submit_background("task")
            assert server.wait_idle(10, after=count)
        thread.join(10)
    assert results == [True]


def test_cleared_server_has_no_jobs_and_goes_on(server, client):
    worker = GearmanWorker([server.address])
    started, go_on = threading.Event(), threading.Event()

    @worker.task("slow", timeout=30)
    def slow(job):
        started.set()
        assert go_on.wait(10)
        return b"late"

    worker.register_task("quick", lambda job: job.data)
    with running(worker):
        assert client.submit("quick", b"1").result(10) == b"1"
        runs = client.submit("slow")
        waits, later = client.submit("nobody"), client.submit_background("nobody", at=time.time() + 1000)
        assert started.wait(10)
        assert later.result(10)
        wait_until(lambda: waits.job.handle)
        server.clear()
        assert (server.jobs, server.finished, server.stats().running) == ((), (), 0)
        for future in (runs, waits):
            assert isinstance(future.exception(10), JobFailed)
        go_on.set()
        # Its late result is refused, and it goes on.
        assert client.submit("quick", b"2").result(10) == b"2"
        assert worker.stats().refused == 1
        assert server.wait_idle(10, after=1)
        assert [job.data for job in server.finished] == [b"2"]


def test_delayed_jobs_follow_the_clock_that_it_is_given():
    now = 1_000_000.0
    with EmbeddedServer(clock=lambda: now) as server, GearmanClient([server.address]) as client:
        worker = GearmanWorker([server.address], poll_interval=60)
        ran = threading.Event()
        worker.register_task("task", lambda job: ran.set())
        with running(worker):
            client.submit_background("task", at=now + 3600).result(10)
            assert [job.state for job in server.jobs] == ["DELAYED"]
            now += 3601
            # Any packet makes it look at the clock.
            client.ping()
            assert ran.wait(10)


def test_paused_server_takes_connections_and_answers_nothing_until_it_goes_on(server, client):
    assert client.ping()
    server.pause()
    server.pause()
    connection = raw(server)
    connection.send(16, b"hello")
    connection.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.sock.recv(1)
    future = client.submit_background("task")
    assert not future.done()
    server.resume()
    assert future.result(10)
    connection.sock.settimeout(10)
    assert connection.receive().body == b"hello"
    connection.close()


def test_killed_connections_end_and_background_jobs_stay(server, client):
    client.submit_background("background").result(10)
    future = client.submit("foreground")
    wait_until(lambda: future.job.handle)
    assert server.kill_connections() == 1
    with pytest.raises(ConnectionLost):
        future.result(10)
    assert [job.task for job in server.jobs] == ["background"]
    assert client.submit_background("again").result(10)


def test_dropped_reply_is_found_by_the_client(server):
    with GearmanClient(
        [server.address], health_check_interval=0.1, health_check_timeout=10, reconnect_backoff=(0.02, 0.1)
    ) as client:
        client.ping()
        server.drop_next("JOB_CREATED")
        # The next answer does not fit, so the connection is given up and the job's fate is told.
        with pytest.raises(ConnectionLost) as caught:
            client.submit_background("task").result(10)
        assert caught.value.maybe_sent
        assert client.submit_background("task").result(10)


@pytest.mark.parametrize("name", ["NOTHING", "TEXT", "", 8, "SUBMIT_JOB", "ECHO_REQ", "GRAB_JOB", "ALL_YOURS"])
def test_only_packets_that_the_server_sends_can_be_dropped(server, name):
    with pytest.raises(ValueError, match="JOB_CREATED"):
        server.drop_next(name)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, None, "2"])
def test_only_a_whole_number_of_packets_can_be_dropped(server, count):
    with pytest.raises(ValueError, match="whole number"):
        server.drop_next("JOB_CREATED", count)


def test_number_of_jobs_is_bounded():
    with EmbeddedServer(max_jobs=2) as server, GearmanClient([server.address]) as client:
        for _ in range(2):
            client.submit_background("task").result(10)
        with pytest.raises(QueueFull):
            client.submit_background("task").result(10)


def test_number_of_connections_is_bounded():
    with EmbeddedServer(max_connections=2) as server:
        connections = [raw(server) for _ in range(2)]
        for connection in connections:
            assert connection.request(16, b"x").body == b"x"
        third = raw(server)
        with pytest.raises((Closed, OSError)):
            third.request(16, b"x")
        third.close()
        connections.pop().close()
        wait_until(lambda: server.stats().connections == 1)
        with raw(server) as fourth:
            assert fourth.request(16, b"x").body == b"x"
        connections.pop().close()


def test_packet_beyond_the_limit_ends_its_connection():
    with EmbeddedServer(max_packet_size=1000) as server, raw(server) as connection:
        connection.send(16, b"x" * 1001)
        with pytest.raises((Closed, OSError)):
            connection.receive()


def test_reader_that_never_reads_is_given_up_and_others_are_served():
    with EmbeddedServer(max_packet_size=100_000) as server, raw(server) as bad, raw(server) as good:
        bad.sock.settimeout(0.5)
        packet = b"\0REQ" + (16).to_bytes(4, "big") + (90_000).to_bytes(4, "big") + b"x" * 90_000
        with pytest.raises(OSError):  # noqa: PT012 - which of the many writes fails is not known
            while True:
                bad.sock.sendall(packet)
        wait_until(lambda: server.stats().connections == 1)
        assert good.request(16, b"x").body == b"x"


def test_connection_that_is_to_be_closed_is_closed_though_its_peer_reads_nothing(server, monkeypatch):
    monkeypatch.setattr("gearman_pool.testing.server_loop._FAREWELL", 0.2)
    with raw(server) as bad, raw(server) as good:
        bad.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # More than the sockets hold, so that something is left to be sent when the connection is to end.
        bad.send(ECHO_REQ, bytes(10_000_000))
        wait_until(lambda: any(peer.out for peer in server._loop.jobs.peers.copy().values()), message="more than fits")
        bad.sock.sendall(b"one two three four five six\n")
        wait_until(lambda: server.stats().connections == 1, message="it is closed")
        assert good.request(ECHO_REQ, b"x").body == b"x"


def test_last_words_to_a_peer_that_broke_the_protocol_reach_it(server):
    with raw(server) as connection:
        connection.send(ECHO_REQ, bytes(10_000_000))
        connection.sock.sendall(b"one two three four five six\n" + b"more " * 10_000)
        assert len(connection.receive().body) == 10_000_000
        with pytest.raises(Closed):
            connection.receive()


def test_large_payloads_go_there_and_back(server, client):
    worker = GearmanWorker([server.address])
    worker.register_task("echo", lambda job: job.data)
    payload = os.urandom(1024) * (20 * 1024)
    with running(worker):
        assert client.submit("echo", payload).result(50) == payload


@pytest.fixture
def tls_contexts():
    """A server's context and one that trusts it."""
    trustme = pytest.importorskip("trustme")
    import ssl

    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    return server_context, client_context


def test_it_speaks_tls(tls_contexts):
    server_context, client_context = tls_contexts
    with EmbeddedServer(ssl_context=server_context) as server:
        assert server.url.startswith("gearmans://")
        worker = GearmanWorker([server.address], ssl_context=client_context)
        worker.register_task("echo", lambda job: job.data)
        # Somebody who says nothing, and somebody who says something else, hold up nobody.
        silent = socket.create_connection((server.host, server.port))
        plain = socket.create_connection((server.host, server.port))
        plain.sendall(b"\0REQ" + bytes(8))
        with running(worker), GearmanClient([server.address], ssl_context=client_context) as client:
            payload = os.urandom(300_000)
            assert client.submit("echo", payload).result(20) == payload
            futures = [client.submit("echo", b"%d" % number) for number in range(200)]
            assert [future.result(20) for future in futures] == [b"%d" % number for number in range(200)]
        silent.close()
        plain.close()
        with GearmanClient([server.address], submit_timeout=0.5) as wrong, pytest.raises(ServerUnavailable):
            wrong.submit("echo").result(10)


def test_job_that_is_due_in_months_does_not_end_the_server(server, client):
    # Longer than the system can wait at a time: 2**31 milliseconds are 24.8 days.
    client.submit_background("later", at=time.time() + 100 * 86_400).result(10)
    assert client.submit_background("now").result(10)
    with raw(server) as worker:
        worker.send(CAN_DO_TIMEOUT, b"now", b"9" * 18)
        worker.send(GRAB_JOB_UNIQ)
        worker.expect(JOB_ASSIGN_UNIQ)
        assert worker.request(ECHO_REQ, b"x").body == b"x"


def test_tls_peer_that_resets_before_it_is_accepted_disturbs_nobody(tls_contexts, caplog):
    server_context, client_context = tls_contexts
    with EmbeddedServer(ssl_context=server_context) as server:
        server.pause()
        with socket.create_connection((server.host, server.port)) as rude:
            rude.sendall(b"not TLS")
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.resume()
        with GearmanClient([server.address], ssl_context=client_context) as client:
            assert client.submit_background("task").result(10)
    assert "unexpected" not in caplog.text


@pytest.fixture
def unforeseen(server, monkeypatch):
    """Let the server fail at each ECHO_REQ of "fail", in a way that nobody thought of."""
    jobs = server._loop.jobs
    receive = jobs.receive

    def fail(peer, data, now):
        if b"fail" in data:
            raise ZeroDivisionError("nobody thought of it")
        receive(peer, data, now)

    monkeypatch.setattr(jobs, "receive", fail)


@pytest.mark.usefixtures("unforeseen")
def test_error_nobody_thought_of_ends_one_connection_and_is_logged_and_the_server_goes_on(server, client, caplog):
    client.submit_background("kept").result(10)
    for _ in range(3):
        with raw(server) as bad, pytest.raises((Closed, OSError)):
            bad.request(ECHO_REQ, b"fail")
    assert client.ping()[server.address] is not None
    assert client.stats().connections_opened == 1
    assert [job.task for job in server.jobs] == ["kept"]
    assert caplog.text.count("ZeroDivisionError: nobody thought of it") == 3


def test_without_descriptors_connections_wait_until_there_are_some_and_others_are_served(server, caplog):
    with raw(server) as early, socket.socket() as late, contextlib.ExitStack() as fillers:
        assert early.request(ECHO_REQ, b"x").body == b"x"
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        fillers.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno() + 20, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                fillers.callback(os.close, os.dup(late.fileno()))
        late.settimeout(10)
        late.connect((server.host, server.port))
        for _ in range(10):
            assert early.request(ECHO_REQ, b"x").body == b"x"
        fillers.close()
        connection = RawConnection.adopt(late)
        assert connection.request(ECHO_REQ, b"late").body == b"late"
    assert caplog.text.count("no connection can be accepted") == 1


def test_clock_that_fails_is_logged_and_the_server_goes_on_when_it_works_again(caplog):
    broken = threading.Event()

    def clock():
        if broken.is_set():
            raise ZeroDivisionError("the clock is broken")
        return 1_000_000.0

    with EmbeddedServer(clock=clock) as server, GearmanClient([server.address], submit_timeout=0.3) as client:
        broken.set()
        assert server.jobs == ()
        with pytest.raises(ServerUnavailable):
            client.submit_background("task").result(10)
        broken.clear()
        assert server.stats().queued == 0
    with EmbeddedServer(clock=clock) as server, GearmanClient([server.address]) as client:
        assert client.submit_background("task").result(10)
    assert "the clock is broken" in caplog.text


def test_child_of_a_fork_does_not_serve_and_does_not_disturb(server, client):
    client.ping()
    pid = os.fork()
    if pid == 0:
        # The parent's listener must not live on in the child.
        os._exit(1 if server.running else 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert client.submit_background("task").result(10)


def test_interpreter_ends_while_it_runs():
    program = (
        "from gearman_pool import GearmanClient\n"
        "from gearman_pool.testing import EmbeddedServer\n"
        "server = EmbeddedServer().start()\n"
        "client = GearmanClient([server.address])\n"
        "print(client.submit_background('task').result(10).handle)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith("H:")
    assert done.stderr == ""
