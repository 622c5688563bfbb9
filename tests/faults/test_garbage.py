"""F6: a server sends what is not the protocol: its connection is closed, and the others feel nothing."""

from __future__ import annotations

import struct
import threading
import time
import tracemalloc
from collections import Counter

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient
from gearman_pool.errors import ConnectionLost, GearmanError, ProtocolError, UnknownCommandError
from gearman_pool.events import ConnectionClosed
from gearman_pool.testing import FaultProxy

from ..support.figures import figure
from ..support.listening import Keeping
from ..support.outcomes import account, wait_accepted, wait_up
from ..support.raw import (
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    NOOP,
    OPTION_RES,
    STATUS_RES,
    SUBMIT_JOB,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_STATUS,
    Packet,
    RawConnection,
    pack,
    pack_response,
)
from ..support.scripted import ScriptedServer
from ..support.waiting import wait_until

_CREATED = pack_response(JOB_CREATED, b"H:1")

#: What the server sends in answer to a job, and what the error says. The job counts as accepted where _CREATED comes
#: first.
GARBAGE: dict[str, tuple[bytes, str]] = {
    "random bytes": (b"\xde\xad\xbe\xef\x00\x01\x02\x03", "bytes that start no packet"),
    "NUL bytes": (bytes(100), "a packet starts with 00000000"),
    "random bytes after the acceptance": (_CREATED + b"\x00\x07junkjunkjunk", "a packet starts with"),
    "text": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a line of text came"),
    "a request's magic": (pack(ECHO_RES, b"x"), "a packet starts with 00524551"),
    "absurd length": (b"\0RES" + struct.pack(">II", WORK_COMPLETE, 2**32 - 1), "max_packet_size"),
    "absurd length after the acceptance": (
        _CREATED + b"\0RES" + struct.pack(">II", WORK_DATA, 2**31) + b"H:1\0",
        "max_packet_size",
    ),
    "unknown command": (pack_response(99, b"H:1"), "command 99"),
    "a worker's packet": (_CREATED + pack_response(SUBMIT_JOB, b"a", b"b", b"c"), "command 7"),
    "a server's packet for workers": (_CREATED + pack_response(NOOP), "NOOP came"),
    "JOB_CREATED that nobody asked for": (_CREATED * 2, "no request was waiting"),
    "ERROR without a request": (_CREATED + pack_response(ERROR, b"QUEUE_ERROR", b"full"), "no request was waiting"),
    "ECHO_RES without a request": (_CREATED + pack_response(ECHO_RES, b""), "no request was waiting"),
    "OPTION_RES in place of JOB_CREATED": (pack_response(OPTION_RES, b"exceptions"), "where JOB_CREATED was due"),
    "STATUS_RES in place of JOB_CREATED": (
        pack_response(STATUS_RES, b"H:1", b"1", b"1", b"0", b"0"),
        "where JOB_CREATED was due",
    ),
    "WORK_COMPLETE without a payload": (_CREATED + pack_response(WORK_COMPLETE, b"H:1"), "without a payload"),
    "WORK_EXCEPTION without a text": (_CREATED + pack_response(WORK_EXCEPTION, b"H:1"), "without a payload"),
    "WORK_STATUS without numbers": (_CREATED + pack_response(WORK_STATUS, b"H:1", b"1"), "without its numbers"),
    "ERROR without a text": (pack_response(ERROR, b"CODE"), "1 of its 2 arguments"),
}


def _saying(data: bytes):
    def script(connection: RawConnection, packet: Packet) -> None:
        connection.sock.sendall(data)

    return script


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_closes_its_connection_with_protocol_error(gearmand, name):
    data, text = GARBAGE[name]
    keeping = Keeping()
    with (
        ScriptedServer(_saying(data)) as bad,
        # No health check comes to help: the garbage alone closes the connection.
        GearmanClient(
            [bad.address, gearmand.address], policy="failover", health_check_interval=60, listeners=[keeping]
        ) as client,
    ):
        wait_up(client)
        future = client.submit("job")
        error = future.exception(10)
        assert isinstance(error, ConnectionLost)
        assert error.maybe_sent
        assert error.server == bad.address
        cause = error.__cause__
        assert isinstance(cause, ProtocolError)
        assert cause.server == bad.address
        assert bad.address in str(cause)
        assert text in str(cause)
        assert isinstance(cause, UnknownCommandError) == ("command 99" in text or "command 7" in text)
        (closed,) = wait_until(lambda: keeping.of(ConnectionClosed))
        assert closed.server == bad.address
        assert text in closed.error
        assert client.stats().connections_lost == 1
        assert client.stats().loop_errors == 0


def test_half_a_packet_and_then_the_end_counts_as_a_lost_connection():
    for cut in range(1, len(_CREATED)):

        def script(connection: RawConnection, packet: Packet, cut: int = cut) -> None:
            connection.sock.sendall(_CREATED[:cut])
            connection.close()

        with ScriptedServer(script) as bad, GearmanClient([bad.address]) as client:
            wait_up(client)
            error = client.submit("job").exception(10)
            assert isinstance(error, ConnectionLost)
            assert error.maybe_sent


def test_half_a_packet_and_then_silence_is_found_by_the_health_check():
    data = b"\0RES" + struct.pack(">II", WORK_COMPLETE, 100_000_000) + b"H:1\0" + bytes(50_000)
    silent = threading.Event()

    def script(connection: RawConnection, packet: Packet) -> None:
        connection.sock.sendall(_CREATED + data)
        silent.wait(20)

    with (
        ScriptedServer(script) as bad,
        GearmanClient([bad.address], health_check_interval=0.2, health_check_timeout=0.5) as client,
    ):
        wait_up(client)
        tracemalloc.start()
        try:
            started = time.monotonic()
            error = client.submit("job").exception(10)
            elapsed = time.monotonic() - started
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            silent.set()
    assert isinstance(error, ConnectionLost)
    assert "health check" in str(error)
    figure(f"half a packet, 100 MB announced: found after {elapsed:.2f} s, {peak / 1024:.0f} KiB of memory")
    assert elapsed < 5
    assert peak < 2 * 1024 * 1024


def test_packet_beyond_max_packet_size_is_not_read(gearmand, raw_worker):
    with GearmanClient([gearmand.address], max_packet_size=100_000) as client:
        wait_up(client)
        fits, does_not = client.submit("raw", b"1"), client.submit("raw", b"2")
        raw_worker.next_job().complete(bytes(99_000))
        assert fits.result(10) == bytes(99_000)
        raw_worker.next_job().complete(bytes(100_001))
        error = does_not.exception(10)
        assert isinstance(error.__cause__, ProtocolError)
        assert "max_packet_size is 100000: raise it" in str(error)


@pytest.mark.parametrize("command", [WORK_STATUS, WORK_DATA, WORK_COMPLETE, WORK_EXCEPTION])
def test_update_of_an_unknown_handle_is_only_counted(command):
    """It may be a late one of a job that was given up."""
    unknown = pack_response(command, b"H:unknown", b"1", b"2") + pack_response(14, b"H:unknown")

    def script(connection: RawConnection, packet: Packet) -> None:
        connection.sock.sendall(unknown + _CREATED + unknown + pack_response(WORK_COMPLETE, b"H:1", b"result"))

    with ScriptedServer(script) as server, GearmanClient([server.address]) as client:
        wait_up(client)
        assert client.submit("job").result(10) == b"result"
        assert client.stats().late_packets == 4
        assert client.stats().connections_lost == 0


def test_jobs_of_a_server_that_talks_garbage_go_elsewhere_with_attempts_left(gearmand, c_worker):
    with (
        ScriptedServer(_saying(b"\0garbage")) as bad,
        GearmanClient([bad.address, gearmand.address], policy="round_robin", max_retries=2) as client,
    ):
        wait_up(client)
        futures = [client.submit("echo", b"%d" % number) for number in range(200)]
        assert [future.result(20) for future in futures] == [b"%d" % number for number in range(200)]


def test_other_servers_feel_nothing(gearmand, c_worker, raw_worker):
    with (
        ScriptedServer(_saying(b"\0garbage")) as bad,
        GearmanClient([bad.address, gearmand.address], policy="round_robin", reconnect_backoff=(0.01, 0.02)) as client,
    ):
        wait_up(client)
        running = []
        while len(running) < 2:
            future = client.submit("raw", b"running")
            wait_accepted(future)
            if not future.done():
                running.append(future)
        counts = {"right": 0, "lost": 0}
        for number in range(400):
            future = client.submit("echo", b"%d" % number)
            error = future.exception(10)
            if error is None:
                assert future.result() == b"%d" % number
                counts["right"] += 1
            else:
                assert isinstance(error, ConnectionLost)
                assert error.server == bad.address
                counts["lost"] += 1
        # How often the bad server is there to be chosen depends on how fast it is found again.
        assert counts["right"] >= 100
        assert counts["lost"] >= 1
        for future in running:
            raw_worker.next_job().complete(b"done")
            assert future.result(10) == b"done"
        assert {server.address: server.state for server in client.servers()}[gearmand.address] == "UP"
    figure(f"beside a server that talks garbage: {counts['right']} of 400 right, {counts['lost']} lost at that server")


def _tampered(gearmand, fault) -> Counter[str]:
    """Run jobs while ``fault(proxy)`` strikes 15 times; return how they ended."""
    outcomes: Counter[str] = Counter()
    options = {"reconnect_backoff": (0.01, 0.05), "health_check_interval": 0.1, "lost_job_check": 0.2}
    with FaultProxy(gearmand.address) as proxy, GearmanClient([proxy.address], **options) as client:
        for turn in range(15):
            wait_up(client)
            payloads = [b"%d-%d" % (turn, number) for number in range(60)]
            futures = [client.submit("echo", payload) for payload in payloads[:40]]
            fault(proxy)
            futures += [client.submit("echo", payload) for payload in payloads[40:]]
            outcomes += account(zip(payloads, futures, strict=True))
        proxy.pass_through()

        def works() -> bool:
            future = client.submit("echo", b"after")
            return future.exception(15) is None and future.result() == b"after"

        wait_until(works, message="the client works again")
    assert sum(outcomes.values()) == 900
    assert outcomes["TimeoutError"] == 0
    return outcomes


@pytest.mark.parametrize(
    ("command", "data"),
    [
        ("JOB_CREATED", pack_response(ERROR, b"QUEUE_ERROR", b"full")),
        ("JOB_CREATED", pack_response(ECHO_RES, b"?")),
        ("JOB_CREATED", b"\0RES\0\0"),
        ("WORK_COMPLETE", pack_response(WORK_COMPLETE, b"H:unknown", b"wrong")),
        ("WORK_COMPLETE", pack_response(14, b"H:unknown") + b"\0garbage"),
    ],
)
def test_packet_that_was_replaced_gives_nobody_a_wrong_answer(gearmand, c_worker, command, data):
    outcomes = _tampered(gearmand, lambda proxy: proxy.replace_next(command, data))
    figure(f"{command} replaced by {data[:24]!r}: {dict(outcomes)}")
    assert outcomes["wrong"] == 0
    assert outcomes["right"] < 900


SLIPS = {
    "dropped": lambda proxy: proxy.drop_next("JOB_CREATED"),
    "injected": lambda proxy: proxy.inject(pack_response(JOB_CREATED, b"H:injected")),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_order_that_slipped_is_found_at_the_next_check_and_harms_that_connection_alone(gearmands, c_workers, slip):
    """Nothing in a JOB_CREATED tells whose it is: jobs that are in flight then may get each other's results.

    The documentation says so, and that no server does this. What bounds the harm is the health check.
    """
    slipping, sound = gearmands(), gearmands()
    c_workers(slipping)
    c_workers(sound)
    options = {"reconnect_backoff": (0.01, 0.05), "health_check_interval": 0.2, "lost_job_check": 0.2}
    outcomes, beside = Counter(), Counter()
    longest = 0.0
    with (
        FaultProxy(slipping.address) as proxy,
        GearmanClient([proxy.address], **options) as client,
        GearmanClient([sound.address], **options) as neighbour,
    ):
        for turn in range(5):
            wait_up(client)
            wait_up(neighbour)
            known = client.stats().connections_lost
            # With jobs in flight, so that the reply that is missing is one of many.
            payloads = [b"%d-%d" % (turn, number) for number in range(40)]
            futures = [client.submit("echo", payload) for payload in payloads]
            SLIPS[slip](proxy)
            started = time.monotonic()
            while client.stats().connections_lost == known:
                assert time.monotonic() - started < 15, "it is not found"
                payloads.append(b"%d-%d" % (turn, len(payloads)))
                futures.append(client.submit("echo", payloads[-1]))
                other = neighbour.submit("echo", payloads[-1])
                beside += account([(payloads[-1], other)])
            longest = max(longest, time.monotonic() - started)
            outcomes += account(zip(payloads, futures, strict=True))
            # The next connection is as good as any.
            after = [(b"after-%d" % number, client.submit("echo", b"after-%d" % number)) for number in range(40)]
            assert account(after) == {"right": 40}
    figure(f"order of replies slipped 5 times, found after {longest:.2f} s at the latest: {dict(outcomes)}")
    assert outcomes["ConnectionLost"] > 0
    assert outcomes["TimeoutError"] == 0
    assert set(beside) <= {"right"}


@pytest.mark.parametrize("data", [b"\0garbage", b"OK\nOK\n", pack_response(ECHO_RES, b"not asked for"), b"\xff"])
def test_admin_client_gets_a_typed_error_and_goes_on(gearmand, data):
    with (
        FaultProxy(gearmand.address) as proxy,
        GearmanAdminClient([proxy.address], health_check_interval=0.1, health_check_timeout=1) as admin,
    ):
        assert admin.get_pid()
        proxy.delay(0.3, "to_client")
        caller_error: list[BaseException] = []

        def ask() -> None:
            try:
                admin.get_status()
            except GearmanError as error:
                caller_error.append(error)

        caller = threading.Thread(target=ask)
        caller.start()
        proxy.inject(data)
        caller.join(15)
        assert not caller.is_alive()
        proxy.pass_through()
        assert not caller_error or isinstance(caller_error[0], (ProtocolError, ConnectionLost))
        assert wait_until(lambda: _pid(admin)) == str(gearmand.pid)


def _pid(admin: GearmanAdminClient) -> str | None:
    try:
        return admin.get_pid()
    except GearmanError:
        return None


def test_results_that_came_before_the_garbage_count():
    """One read brings two results and then garbage; no job hangs, and none that was answered is lost."""
    submitted = []

    def script(connection: RawConnection, packet: Packet) -> None:
        submitted.append(packet)
        if len(submitted) == 3:
            created = b"".join(pack_response(JOB_CREATED, b"H:%d" % number) for number in range(3))
            done = b"".join(pack_response(WORK_COMPLETE, b"H:%d" % number, b"%d" % number) for number in range(2))
            connection.sock.sendall(created + done + b"\0garbage")

    with ScriptedServer(script) as server, GearmanClient([server.address], health_check_interval=60) as client:
        wait_up(client)
        futures = [client.submit("task") for _ in range(3)]
        assert [future.result(10) for future in futures[:2]] == [b"0", b"1"]
        error = futures[2].exception(10)
        assert isinstance(error, ConnectionLost)
        assert error.maybe_sent
        assert isinstance(error.__cause__, ProtocolError)
