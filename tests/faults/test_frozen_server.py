"""F2: a server, or the client's own process, is stopped for a while."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost, JobCancelled
from gearman_pool.testing import FaultProxy

from ..support.figures import figure
from ..support.outcomes import wait_accepted, wait_up
from ..support.processes import ROOT
from ..support.raw import (
    ECHO_REQ,
    ECHO_RES,
    GET_STATUS,
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    STATUS_RES,
    SUBMIT_JOB,
    WORK_COMPLETE,
    Packet,
    RawConnection,
    pack_response,
)
from ..support.scripted import ScriptedServer
from ..support.waiting import wait_until


@pytest.mark.parametrize("max_retries", [0, 1])
def test_frozen_server_is_found_within_interval_and_timeout(gearmands, max_retries):
    frozen, live = gearmands(), gearmands()
    interval, timeout = 0.4, 0.6
    with GearmanClient(
        [frozen.address, live.address],
        health_check_interval=interval,
        health_check_timeout=timeout,
        max_retries=max_retries,
        policy="round_robin",
    ) as client:
        wait_up(client)
        futures = [client.submit("nobody") for _ in range(200)]
        wait_accepted(*futures)
        at_frozen = [future for future in futures if str(future.job.connection) == frozen.address]
        at_live = [future for future in futures if str(future.job.connection) == live.address]
        assert at_frozen
        assert at_live
        handles = [future.job.handle for future in at_live]
        frozen.pause()
        started = time.monotonic()
        if max_retries:
            wait_until(lambda: client.servers()[0].state != "UP", message="detection")
            detected = time.monotonic() - started
            wait_until(lambda: all(str(f.job.connection) == live.address and f.job.handle for f in at_frozen))
        else:
            for future in at_frozen:
                assert isinstance(future.exception(10), ConnectionLost)
            detected = time.monotonic() - started
        figure(
            f"SIGSTOP found after {detected:.2f} s with interval {interval:g} s and timeout {timeout:g} s, "
            f"max_retries={max_retries}"
        )
        # Promised is the sum; the rest is for a busy machine. The defaults would take up to 8 s.
        assert detected < interval + timeout + 4
        assert "health check" in (client.servers()[0].last_error or "")
        assert not any(future.done() for future in at_live)
        assert [future.job.handle for future in at_live] == handles
        client.close(0)


@pytest.mark.slow
def test_frozen_server_is_found_with_the_defaults(gearmand):
    with GearmanClient([gearmand.address]) as client:
        wait_up(client)
        future = client.submit("nobody")
        wait_accepted(future)
        gearmand.pause()
        started = time.monotonic()
        assert isinstance(future.exception(20), ConnectionLost)
        detected = time.monotonic() - started
        figure(f"SIGSTOP found after {detected:.2f} s with the defaults, 5 s and 3 s")
        assert 3.0 <= detected < 9.5


def test_new_jobs_avoid_a_server_that_has_missed_one_check(gearmands, c_workers):
    frozen, live = gearmands(), gearmands()
    c_workers(frozen)
    c_workers(live)
    interval, timeout = 0.2, 3.6
    with GearmanClient(
        [frozen.address, live.address], health_check_interval=interval, health_check_timeout=timeout, policy="failover"
    ) as client:
        wait_up(client)
        assert client.submit("echo", b"x").result(5) == b"x"
        pool = client._engine.pool
        (connection,) = [c for c in pool.connections if c.server.name == frozen.address]
        frozen.pause()
        started = time.monotonic()
        stuck = []

        def avoided() -> bool:
            # Without waiting for the answer: what counts is which connection took the job.
            before = connection.pending
            future = client.submit("echo", b"y")
            if connection.pending > before:
                stuck.append(future)
                return False
            return True

        wait_until(avoided, interval=0.05, message="new jobs go elsewhere")
        elapsed = time.monotonic() - started
        assert client.servers()[0].state == "UP", "only a server that is given up is avoided"
        # All new ones, as long as it is not given up.
        served = 0
        while True:
            future = client.submit("echo", b"z")
            assert future.result(10) == b"z"
            if client.servers()[0].state != "UP" or served == 200:
                break
            assert str(future.job.connection) == live.address
            served += 1
        assert served >= 20
        figure(f"new jobs avoid the frozen server after {elapsed:.2f} s; {served} jobs were served elsewhere at once")
        for future in stuck:
            assert isinstance(future.exception(20), ConnectionLost)


def test_frozen_server_that_goes_on_in_time_loses_nothing(gearmands, c_workers):
    server = gearmands()
    c_workers(server)
    with GearmanClient([server.address], health_check_interval=0.1, health_check_timeout=5) as client:
        wait_up(client)
        server.pause()
        futures = [(b"%d" % number, client.submit("echo", b"%d" % number)) for number in range(300)]
        resume = threading.Timer(0.8, server.resume)
        resume.start()
        for payload, future in futures:
            assert future.result(10) == payload
        resume.join()
        assert client.stats().connections_lost == 0


def test_server_is_used_again_when_it_goes_on_and_its_late_answers_harm_nobody(gearmands, c_workers):
    server = gearmands()
    with GearmanClient(
        [server.address], health_check_interval=0.2, health_check_timeout=1.0, reconnect_backoff=(0.05, 0.2)
    ) as client:
        wait_up(client)
        old = [client.submit("echo", b"old %d" % number) for number in range(500)]
        wait_accepted(*old)
        server.pause()
        for future in old:
            assert isinstance(future.exception(10), ConnectionLost)
        server.resume()
        started = time.monotonic()
        wait_up(client)
        back = time.monotonic() - started
        c_workers(server)
        new = [(b"new %d" % number, client.submit("echo", b"new %d" % number)) for number in range(500)]
        for payload, future in new:
            assert future.result(10) == payload
        assert all(isinstance(future.exception(0), ConnectionLost) for future in old)
        figure(f"used again {back:.2f} s after SIGCONT, with a backoff of at most 0.2 s")
        # An attempt that began while the server was frozen may have to run into its health check first.
        assert back < 0.2 + 1.0 + 4


def test_job_that_was_sent_again_is_not_failed_by_what_its_former_connection_was_asked():
    """The server freezes when it is asked after a silent job, and answers when the job has long been sent again."""
    submitted: list[RawConnection] = []
    late: list[bool] = []

    def script(connection: RawConnection, packet: Packet) -> None:
        frozen = connection in submitted[:1] and late
        if packet.command == OPTION_REQ:
            connection.sock.sendall(pack_response(OPTION_RES, packet.body))
        elif packet.command == ECHO_REQ and not frozen:
            connection.sock.sendall(pack_response(ECHO_RES, packet.body))
        elif packet.command == SUBMIT_JOB:
            submitted.append(connection)
            # As after a restart of the server, the second one gets the handle of the first.
            connection.sock.sendall(pack_response(JOB_CREATED, b"H:1"))
        elif packet.command == GET_STATUS and connection is submitted[0]:
            late.append(True)
        elif packet.command == GET_STATUS:
            with contextlib.suppress(OSError):
                submitted[0].sock.sendall(pack_response(STATUS_RES, b"H:1", b"0", b"0", b"0", b"0"))
            connection.sock.sendall(
                pack_response(STATUS_RES, b"H:1", b"1", b"1", b"0", b"0") + pack_response(WORK_COMPLETE, b"H:1", b"r")
            )

    options = {"health_check_interval": 0.1, "health_check_timeout": 1.0, "reconnect_backoff": (0.01, 0.05)}
    with (
        ScriptedServer(script, greets=False) as server,
        GearmanClient([server.address], lost_job_check=0.2, max_retries=5, **options) as client,
    ):
        assert client.submit("job").result(20) == b"r"
        assert late
        assert len(submitted) > 1
        assert client.stats().jobs_lost == 0


_CLIENT = """
import sys, gearman_pool
client = gearman_pool.GearmanClient([sys.argv[1]], health_check_interval=0.5, health_check_timeout=1.5)
assert client.submit("echo", b"before").result(10) == b"before"
print("ready", flush=True)
sys.stdin.readline()
assert client.submit("echo", b"after").result(10) == b"after"
print(client.stats().connections_lost, client.stats().connections_failed, flush=True)
client.close()
"""


@pytest.mark.slow
def test_client_that_was_stopped_itself_takes_no_server_for_dead(gearmand, c_worker):
    process = subprocess.Popen(
        [sys.executable, "-c", _CLIENT, gearmand.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGSTOP)
        # Twice as long as an unanswered health check may take.
        threading.Event().wait(2 * (0.5 + 1.5))
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate("go on\n", timeout=20)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    assert process.returncode == 0
    assert output == "0 0\n"


def test_cancel_of_a_job_at_a_frozen_server_is_bounded(gearmand):
    with GearmanClient([gearmand.address], health_check_interval=60, health_check_timeout=0.5) as client:
        wait_up(client)
        accepted = client.submit("nobody")
        wait_accepted(accepted)
        gearmand.pause()
        started = time.monotonic()
        assert accepted.cancel() is False
        assert 0.3 < time.monotonic() - started < 8
        gearmand.resume()
        # The question was on its way: what it asked for is done once the server goes on.
        with pytest.raises(JobCancelled):
            accepted.result(10)


def test_large_upload_over_a_slow_link_is_no_frozen_server(gearmand):
    """The health check waits behind the payload; that the server takes it shows that it lives."""
    with (
        FaultProxy(gearmand.address) as proxy,
        GearmanClient([proxy.address], health_check_interval=0.2, health_check_timeout=1.5) as client,
    ):
        client.ping()
        proxy.throttle(16 * 2**20, "to_server")
        payload = bytes(48 * 2**20)
        assert client.submit_background("nobody", payload).result(50)
        assert client.stats().connections_lost == 0


def test_idle_client_wakes_for_its_checks_and_not_for_their_limits():
    """Once to ask and once for the answer; an answered check leaves nothing behind that is due later."""
    checks = []

    def answer(connection: RawConnection, packet: Packet) -> None:
        if packet.command == ECHO_REQ:
            checks.append(packet)
            connection.sock.sendall(pack_response(ECHO_RES, packet.body))
        else:
            connection.sock.sendall(pack_response(OPTION_RES, packet.body))

    # A third of the limit, and all of it, fall between two checks: each would be a wake-up of its own.
    with (
        ScriptedServer(answer, greets=False) as server,
        GearmanClient([server.address], health_check_interval=0.2, health_check_timeout=3.3) as client,
    ):
        client.ping()
        # From here on a third of the limit of earlier checks is over all the time.
        wait_until(lambda: len(checks) > 8, message="the first checks")
        before, wakeups = len(checks), client.stats().wakeups
        wait_until(lambda: len(checks) >= before + 10, message="ten more checks")
        wakeups = client.stats().wakeups - wakeups
        count = len(checks) - before
        figure(f"{wakeups} wake-ups for {count} checks")
        assert wakeups <= 2.5 * count
        assert client.stats().connections_lost == 0


def test_server_that_takes_a_large_upload_is_not_avoided(gearmands):
    preferred, other = gearmands(), gearmands()
    size = 48 * 2**20
    with (
        FaultProxy(preferred.address) as proxy,
        GearmanClient(
            [proxy.address, other.address], health_check_interval=0.2, health_check_timeout=1.5, policy="failover"
        ) as client,
    ):
        wait_up(client)
        proxy.throttle(16 * 2**20, "to_server")
        upload = client.submit_background("nobody", bytes(size))
        # Far longer than it takes to suspect a server that does not answer a health check.
        wait_until(lambda: proxy.forwarded("to_server") > size / 2, 30, message="half of it has gone")
        assert not upload.done()
        beside = client.submit("nobody")
        wait_accepted(beside, timeout=30)
        assert str(beside.job.connection) == proxy.address
        client.close(0)
