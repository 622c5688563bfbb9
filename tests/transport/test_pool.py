"""Servers and their states; the pool's own rules. What faults do to it stands in tests/faults."""

from __future__ import annotations

import random
import socket

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectTimeout, InvalidClientState, ServerUnavailable
from gearman_pool.options import ServerAddress
from gearman_pool.transport.connector import connect
from gearman_pool.transport.pool import SERVER_MOVES, Server, ServerState

from ..support.waiting import wait_until


def test_illegal_move_of_a_server_raises():
    server = Server(ServerAddress("h"))
    server.move(ServerState.CONNECTING)
    server.move(ServerState.UP)
    with pytest.raises(InvalidClientState, match="no move from UP to CONNECTING"):
        server.move(ServerState.CONNECTING)


def test_every_state_of_a_server_can_be_reached_and_left():
    targets = {state for moves in SERVER_MOVES.values() for state in moves}
    assert targets == set(ServerState) == set(SERVER_MOVES)
    assert all(SERVER_MOVES.values())


def test_server_that_accepts_and_says_nothing_never_counts_as_up(gearmand):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with GearmanClient([address, gearmand.address], health_check_timeout=0.3) as client:
            assert [client.submit_background("x").result(5).server for _ in range(10)] == [gearmand.address] * 10
            wait_until(lambda: client.servers()[0].state == "DOWN", message="down")
            assert "no answer to a health check" in client.servers()[0].last_error


def test_several_connections_to_one_server_share_the_jobs(gearmand):
    with GearmanClient([gearmand.address], connections_per_server=3) as client:
        wait_until(lambda: client.ping() and client.servers()[0].connections == 3, message="three connections")
        futures = [client.submit("no such task") for _ in range(9)]
        wait_until(lambda: all(future.job.handle for future in futures), message="acceptance")
        assert sorted(connection.pending for connection in client._dispatcher.pool.connections) == [3, 3, 3]
        for future in futures:
            assert future.cancel()


def test_backoff_is_random_and_bounded(gearmand):
    with GearmanClient([gearmand.address], reconnect_backoff=(0.1, 10.0)) as client:
        pool = client._dispatcher.pool
        pool._random = random.Random(7)
        delays = []
        for failures in range(12):
            server = Server(ServerAddress("h"))
            server.failures = failures
            pool.servers = (*pool.servers, server)
            pool._retry_later(server)
            delays.append(server.retry.when - pool.io.clock())
            server.retry.cancel()
            pool.servers = pool.servers[:-1]
        assert all(0 <= delay <= min(10.0, 0.1 * 2**failures) + 0.1 for failures, delay in enumerate(delays))
        assert len({round(delay, 6) for delay in delays}) == 12


def test_client_without_servers_says_so(gearmand):
    with GearmanClient() as client:
        with pytest.raises(ServerUnavailable, match="no servers are configured"):
            client.submit("x").result(5)
        client.add_server(gearmand.address)
        wait_until(client.servers, message="the server")
        assert client.submit_background("x").result(5).server == gearmand.address


def test_connect_gives_up_after_its_timeout():
    # A listener whose backlog is full swallows further attempts.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(8)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            with pytest.raises(ConnectTimeout, match=r"connect_timeout \(0.3 s\)"):
                connect(ServerAddress("127.0.0.1", port), 0.3)
        finally:
            for filler in fillers:
                filler.close()


def test_name_without_an_address_is_a_connection_error():
    with pytest.raises(ConnectionError, match="cannot resolve the name"):
        connect(ServerAddress("no-such-host.invalid"), 5)
