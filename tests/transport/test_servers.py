"""One server: its states, the attempts to connect to it, and the pauses between them."""

from __future__ import annotations

import os
import random
import socket
import threading

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import InvalidClientState
from gearman_pool.options import ClientOptions, ServerAddress
from gearman_pool.transport.io_thread import IOThread
from gearman_pool.transport.servers import SERVER_MOVES, Reconnecting, Server, ServerState

from ..support.waiting import wait_until


def child_has(number: int) -> bool:
    """Whether a child that is forked now has this descriptor."""
    pid = os.fork()
    if pid == 0:
        try:
            os.fstat(number)
        except OSError:
            os._exit(0)
        os._exit(1)
    return os.waitpid(pid, 0)[1] != 0


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


class _Wanting:
    """A pool that wants every server."""

    def wants(self, server: Server) -> bool:
        return True


def test_backoff_is_random_and_bounded():
    now = 100.0
    io = IOThread("gearman_pool-test", lambda: None, lambda: False, lambda error: None, lambda: None, lambda: now)
    options = ClientOptions(reconnect_backoff=(0.1, 10.0))
    reconnecting = Reconnecting(io, options, _Wanting(), random.Random(7))
    server = Server(ServerAddress("h"))
    delays = []
    for failures in range(12):
        assert server.failures == failures
        reconnecting.retry_later(server)
        # One that is planned is enough.
        reconnecting.retry_later(server)
        delays.append(server.retry_in(now))
        reconnecting.cancel(server)
    assert all(0 <= delay <= min(10.0, 0.1 * 2**failures) for failures, delay in enumerate(delays))
    assert len({round(delay, 6) for delay in delays}) == 12


@pytest.fixture
def slow_resolver(monkeypatch):
    """Has names resolved slowly; gives the events "somebody asks" and "answer them"."""
    resolve = socket.getaddrinfo
    asked, answer = threading.Event(), threading.Event()

    def slowly(*arguments: object, **options: object) -> object:
        asked.set()
        assert answer.wait(20)
        return resolve(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    yield asked, answer
    answer.set()


@pytest.mark.parametrize("drain", [True, False])
def test_connection_that_comes_after_its_server_was_taken_out_is_closed_unused(slow_resolver, drain):
    asked, answer = slow_resolver
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with GearmanClient([address]) as client:
            try:
                client.ping(0.01)
                assert asked.wait(10)
                client.remove_server(address, drain=drain)
                wait_until(lambda: not client.servers(), message="the removal")
            finally:
                answer.set()
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(10)
                assert peer.recv(1000) == b"", "it greets the server"
            assert client.stats().connections_opened == 0


@pytest.mark.parametrize("taken_out", [False, True])
def test_child_of_a_fork_keeps_no_descriptor_of_a_connection_that_has_just_been_made(slow_resolver, taken_out):
    """The attempt is over, and the I/O thread has not come to its outcome yet."""
    asked, answer = slow_resolver
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with GearmanClient([address]) as client:
            client.ping(0.01)
            assert asked.wait(10)
            if taken_out:
                client.remove_server(address)
                wait_until(lambda: not client.servers(), message="the removal")
            (attempt,) = client._engine.pool.reconnecting._attempts
            is_busy, go_on = threading.Event(), threading.Event()
            client._engine.io.post(lambda: (is_busy.set(), go_on.wait(20)))
            assert is_busy.wait(10)
            answer.set()
            wait_until(lambda: attempt.finished, message="a connection")
            number = attempt._sock.fileno()
            kept = child_has(number)
            go_on.set()
            client.close(timeout=0)
    assert not kept


def test_child_of_a_fork_keeps_no_descriptor_of_a_connection_in_the_making(gearmand):
    """Accepted and not answered: the attempt is over, or under way, at whatever moment the fork comes."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as full:
        address = full.getsockname()
        fillers = []
        while True:
            # A connection that the full backlog keeps in the making.
            filler = socket.socket()
            filler.settimeout(0.3)
            fillers.append(filler)
            try:
                filler.connect(address)
            except TimeoutError:
                break
        client = GearmanClient([f"127.0.0.1:{address[1]}"], connect_timeout=20)
        client.submit("x")
        attempts = client._engine.pool.reconnecting._attempts
        sock = wait_until(lambda: next((a._sock for a in attempts), None), message="a connection in the making")
        number = sock.fileno()
        kept = child_has(number)
        for filler in fillers:
            filler.close()
    client.close(timeout=0)
    assert not kept
