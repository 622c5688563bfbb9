"""What becomes of a job when its connection ends in each way, at each point of its life, and at each byte of it."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost
from gearman_pool.future import JobFuture
from gearman_pool.testing import FaultProxy

from ..support.figures import figure
from ..support.outcomes import wait_up
from ..support.raw import (
    ECHO_REQ,
    ECHO_RES,
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    SUBMIT_JOB,
    WORK_DATA,
    RawConnection,
    pack_response,
)
from ..support.waiting import wait_until


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _half_close(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


ENDS: dict[str, Callable[[socket.socket], None]] = {
    "RST": _reset,
    "FIN": socket.socket.close,
    "half-close": _half_close,
}


@contextlib.contextmanager
def _only_connection(live: str) -> Iterator[tuple[GearmanClient, RawConnection]]:
    """A client that prefers a server which takes one connection, played by the test, and has a second server."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        port = listener.getsockname()[1]
        client = stack.enter_context(
            GearmanClient([("127.0.0.1", port), live], policy="failover", health_check_interval=60)
        )
        client.ping(0.01)
        listener.settimeout(10)
        connection = RawConnection.adopt(listener.accept()[0])
        stack.callback(connection.sock.close)
        listener.close()
        assert connection.expect(OPTION_REQ)
        connection.sock.sendall(pack_response(OPTION_RES, b"exceptions"))
        while any(server.state != "UP" for server in client.servers()):
            # The greeting's, and that of `ping`.
            with contextlib.suppress(TimeoutError):
                connection.sock.sendall(pack_response(ECHO_RES, connection.expect(ECHO_REQ, 0.1).body))
        connection.sock.settimeout(10)
        yield client, connection


def _next_job(connection: RawConnection) -> None:
    while (packet := connection.receive()).command != SUBMIT_JOB:
        connection.sock.sendall(pack_response(ECHO_RES, packet.body))


def _assert_lost(future: JobFuture, attempts: int = 1) -> None:
    error = future.exception(15)
    assert isinstance(error, ConnectionLost)
    assert error.maybe_sent
    assert future.request.connection_attempts == attempts


@pytest.mark.parametrize("end", ENDS)
def test_jobs_that_are_written_in_part_may_have_been_sent_and_those_behind_go_elsewhere(gearmand, c_worker, end):
    with _only_connection(gearmand.address) as (client, connection):
        (ours,) = [c for c in client._engine.pool.connections if c.server.name != gearmand.address]
        half_written = client.submit("echo", bytes(16_000_000))
        wait_until(lambda: ours._rest, message="the kernel takes no more")
        unsent = client.submit("echo", b"unsent")
        ENDS[end](connection.sock)
        assert unsent.result(15) == b"unsent"
        assert str(unsent.job.connection) == gearmand.address
        assert unsent.request.connection_attempts == 1
        _assert_lost(half_written)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("stage", ["written", "created", "streaming"])
def test_jobs_that_are_with_the_server_may_have_run(gearmand, c_worker, end, stage):
    with _only_connection(gearmand.address) as (client, connection):
        future = client.submit("echo", b"x")
        _next_job(connection)
        if stage != "written":
            connection.sock.sendall(pack_response(JOB_CREATED, b"H:1"))
        if stage == "streaming":
            connection.sock.sendall(pack_response(WORK_DATA, b"H:1", b"part"))
        ENDS[end](connection.sock)
        received: list[bytes] = []
        with pytest.raises(ConnectionLost):
            received.extend(update.data for update in future.updates(15))
        # A reset may overtake what was sent before it.
        assert received == [b"part"] if stage == "streaming" and end != "RST" else received in ([], [b"part"])
        _assert_lost(future)
        # The other server goes on.
        assert client.submit("echo", b"y").result(15) == b"y"


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("stage", ["written", "created", "streaming"])
def test_jobs_with_attempts_left_are_sent_again_and_give_their_right_result(gearmand, c_worker, end, stage):
    with _only_connection(gearmand.address) as (client, connection):
        future = client.submit("echo", b"again", max_retries=1)
        _next_job(connection)
        if stage != "written":
            connection.sock.sendall(pack_response(JOB_CREATED, b"H:1"))
        if stage == "streaming":
            connection.sock.sendall(pack_response(WORK_DATA, b"H:1", b"part"))
        ENDS[end](connection.sock)
        assert future.result(15) == b"again"
        assert future.request.connection_attempts == 2
        assert str(future.job.connection) == gearmand.address


def test_packet_that_was_cut_at_any_of_its_bytes_is_no_job_and_the_next_connection_is_sound(gearmand, c_worker):
    with (
        FaultProxy(gearmand.address) as proxy,
        GearmanClient([proxy.address], reconnect_backoff=(0.001, 0.01), health_check_interval=60) as client,
    ):
        size = 12 + len("cut") + 1 + 32 + 1 + len(b"payload")
        for offset in range(size):
            # Answered, so that nothing else is on its way when the count begins.
            wait_until(lambda: client.ping(5)[proxy.address] is not None, message="the connection")
            proxy.cut_after(offset, "to_server")
            error = client.submit_background("cut", b"payload").exception(15)
            assert isinstance(error, ConnectionLost), offset
            assert error.maybe_sent
            proxy.pass_through()
        assert gearmand.jobs("cut") == 0
        # One byte more would have been a job: the cuts were where they ought to be.
        wait_until(lambda: client.ping(5)[proxy.address] is not None, message="the connection")
        proxy.cut_after(size, "to_server")
        client.submit_background("cut", b"payload").exception(15)
        gearmand.wait_for(lambda text: "cut\t1\t" in text, message="the whole packet is a job")
        proxy.pass_through()
        wait_up(client)
        assert client.submit("echo", b"x").result(15) == b"x"
    figure(f"cut at each of the {size} bytes of a SUBMIT_JOB_BG: no job each time, and a sound connection after it")
