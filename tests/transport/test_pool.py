"""Servers and their states; the pool's own rules. What faults do to it stands in tests/faults."""

from __future__ import annotations

import os
import random
import socket
import threading
import time

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ClientSaturated, ConnectTimeout, GearmanError, InvalidClientState, ServerUnavailable
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
        with GearmanClient([address, gearmand.address], health_check_timeout=1.0) as client:
            assert [client.submit_background("x").result(10).server for _ in range(10)] == [gearmand.address] * 10
            wait_until(lambda: client.servers()[0].state == "DOWN", message="down")
            assert "no answer to a health check" in client.servers()[0].last_error


def test_job_does_not_overtake_one_that_the_io_thread_is_about_to_send(gearmand):
    with GearmanClient([gearmand.address]) as client:
        client.ping()
        pool = client._engine.pool
        park, parking, second = pool.park, threading.Event(), threading.Event()

        def slow_park(*arguments: object) -> None:
            parking.set()
            assert second.wait(10)
            park(*arguments)

        pool.park = slow_park
        # As for a caller who looked just before the first connection stood.
        pool._held_up = True
        first_job = client.submit_background("x")
        pool._held_up = False
        assert parking.wait(10)
        second_job = client.submit_background("x")
        second.set()
        numbers = [int(job.result(10).handle.rpartition(":")[2]) for job in (first_job, second_job)]
    assert numbers == sorted(numbers)


def test_threads_that_look_at_the_same_arrival_leave_none_behind():
    """When the loop has ended, each late caller ends what has arrived."""
    with GearmanClient(["127.0.0.1:1"]) as client:
        pool = client._engine.pool
        both = threading.Barrier(2)
        parked = []

        def park(entry: object, *_: object) -> None:
            parked.append(entry)
            if entry == "first":
                both.wait(10)

        pool.park = park
        pool._arriving.extend([(0.0, None, "first"), (0.0, None, "second")])
        threads = [threading.Thread(target=pool._take_arrivals) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert parked.count("first") == 2
        assert "second" in parked
        assert not pool._arriving


def test_jobs_that_are_put_in_line_again_use_up_their_room_again(gearmand):
    gearmand.kill()
    limit = 1_000_000
    with GearmanClient([gearmand.address], max_outbound_bytes=limit, submit_timeout=60) as client:
        pool = client._engine.pool
        assert not pool.full(10)  # room for many of its size, without counting
        for _ in range(9):
            pool.park_again((bytes(limit // 10), 0, None), None, client._engine.io.clock() + 60)
        assert not pool.full(limit // 20)
        assert pool.full(limit // 5)
        client.close(0)


def test_several_connections_to_one_server_share_the_jobs(gearmand):
    with GearmanClient([gearmand.address], connections_per_server=3) as client:
        wait_until(lambda: client.ping() and client.servers()[0].connections == 3, message="three connections")
        futures = [client.submit("no such task") for _ in range(9)]
        wait_until(lambda: all(future.job.handle for future in futures), message="acceptance")
        assert sorted(connection.pending for connection in client._engine.pool.connections) == [3, 3, 3]
        for future in futures:
            assert future.cancel()


def test_backoff_is_random_and_bounded(gearmand):
    with GearmanClient([gearmand.address], reconnect_backoff=(0.1, 10.0)) as client:
        pool = client._engine.pool
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


# ---- servers that are taken in and out -------------------------------------------------------------------------------


def test_server_that_is_added_before_the_first_use_is_one_of_the_servers_at_once(gearmand, echo_worker):
    with GearmanClient(["127.0.0.1:1"]) as client:
        client.add_server(gearmand.address)
        client.add_server(gearmand.address)
        assert [server.address for server in client.servers()] == ["127.0.0.1:1", gearmand.address]
        assert [str(connection) for connection in client.connection_list] == ["127.0.0.1:1", gearmand.address]
        client.remove_server("127.0.0.1:1")
        with pytest.raises(ValueError, match="not a server of this client"):
            client.remove_server("127.0.0.1:1")
        assert client.submit("echo", b"x").result(10) == b"x"
        assert [server.address for server in client.servers()] == [gearmand.address]


def test_client_without_servers_waits_for_the_one_that_has_just_been_added(gearmand, echo_worker):
    for _ in range(20):
        with GearmanClient([]) as client:
            with pytest.raises(ServerUnavailable, match="no servers are configured"):
                client.submit("echo", b"x").result(10)
            client.add_server(gearmand.address)
            assert client.submit("echo", b"x").result(10) == b"x"


def test_servers_added_before_a_fork_are_the_childs_too(gearmand, echo_worker):
    client = GearmanClient([])
    client.add_server(gearmand.address)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if client.submit("echo", b"child").result(10) == b"child" else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    client.close()


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
        server = client._engine.pool.servers[0]
        sock = wait_until(lambda: server.attempts and server.attempts[0]._sock, message="a connection in the making")
        number = sock.fileno()
        pid = os.fork()
        if pid == 0:
            try:
                os.fstat(number)
            except OSError:
                os._exit(0)
            os._exit(1)
        status = os.waitpid(pid, 0)[1]
        for filler in fillers:
            filler.close()
    client.close(timeout=0)
    assert status == 0


def test_server_that_another_thread_takes_out_while_it_is_taken_in_stays_out(gearmand, monkeypatch):
    with GearmanClient([gearmand.address]) as client:
        client.ping()
        io = client._engine.io
        post, taken_out, seen = io.post, threading.Event(), threading.Event()

        def post_late(call: object) -> None:
            if threading.current_thread() is adder:
                assert taken_out.wait(10)
            post(call)

        monkeypatch.setattr(io, "post", post_late)
        adder = threading.Thread(target=client.add_server, args=("127.0.0.1:1",))
        adder.start()
        wait_until(lambda: len(client.servers()) == 2, message="it is wanted")
        client.remove_server("127.0.0.1:1")
        taken_out.set()
        adder.join(10)
        # What comes after both on the I/O thread.
        io.post(seen.set)
        assert seen.wait(10)
        assert [server.address for server in client.servers()] == [gearmand.address]


def test_connection_to_a_server_that_is_taken_out_is_closed_once_nothing_is_in_flight(gearmand, raw_worker):
    with GearmanClient([gearmand.address]) as client:
        future = client.submit("raw")
        job = raw_worker.next_job()
        client.remove_server(gearmand.address)
        job.complete(b"done")
        assert future.result(10) == b"done"
        # The worker's alone is left.
        wait_until(lambda: gearmand.connections() == 1, message="the connection's end")


@pytest.mark.parametrize("drain", [True, False])
def test_connection_that_comes_after_its_server_was_taken_out_is_closed_unused(monkeypatch, drain):
    resolve = socket.getaddrinfo
    asked, answer = threading.Event(), threading.Event()

    def slowly(*arguments: object, **options: object) -> object:
        asked.set()
        assert answer.wait(20)
        return resolve(*arguments, **options)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with GearmanClient([address]) as client:
            monkeypatch.setattr(socket, "getaddrinfo", slowly)
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


# ---- room ------------------------------------------------------------------------------------------------------------


def test_caller_that_waits_for_room_costs_no_processor_time(gearmand):
    with GearmanClient([gearmand.address], max_outbound_bytes=3_000_000, submit_timeout=1.0) as client:
        client.ping()
        with gearmand.paused():
            for _ in range(100):  # until the server's buffers are full, and the limit is reached with the next one
                try:
                    client.submit("x", bytes(1_000_000))
                except ClientSaturated:
                    break
            wakeups, used = client.stats().wakeups, time.process_time()
            with pytest.raises(ClientSaturated):
                client.submit("x", bytes(2_900_000))
            assert client.stats().wakeups - wakeups < 100
            assert time.process_time() - used < 0.5
        client.close(timeout=0)


# ---- policies of the user's ------------------------------------------------------------------------------------------


def test_policy_that_raises_is_the_jobs_error_and_nobody_elses(gearmands, c_workers):
    first, second = gearmands(), gearmands()
    c_workers(first), c_workers(second)
    broken = threading.Event()

    def policy(servers, key):
        if broken.is_set():
            raise ZeroDivisionError("in the policy")
        return servers[-1]

    with GearmanClient([first.address, second.address], policy=policy) as client:
        wait_until(
            lambda: client.ping() and all(server.state == "UP" for server in client.servers()), message="both are up"
        )
        in_flight = client.submit("nobody does this")
        wait_until(lambda: in_flight.job.handle, message="acceptance")
        assert str(in_flight.job.connection) == second.address
        broken.set()
        future = client.submit("echo")
        with pytest.raises(GearmanError, match="the policy failed: ZeroDivisionError"):
            future.result(10)
        broken.clear()
        assert client.submit("echo", b"x").result(10) == b"x"
        assert client.stats().connections_lost == 0
        assert in_flight.cancel()


def test_least_pending_takes_the_server_with_less_in_flight(gearmands):
    first, second = gearmands(), gearmands()
    with GearmanClient([first.address, second.address], policy="least_pending") as client:
        wait_until(
            lambda: client.ping() and all(server.state == "UP" for server in client.servers()), message="both are up"
        )
        futures = [client.submit("nobody does this") for _ in range(10)]
        wait_until(lambda: all(future.job.handle for future in futures), message="acceptance")
        assert sorted(server.in_flight for server in client.servers()) == [5, 5]
        for future in futures:
            assert future.cancel()


def test_callers_who_found_no_room_leave_nothing_behind(gearmand):
    with GearmanClient([gearmand.address], max_in_flight=1, submit_timeout=0.005) as client:
        client.ping(5)
        blocker = client.submit("nobody does this")
        for _ in range(50):
            with pytest.raises(ClientSaturated):
                client.submit("nobody does this")
        assert not client._engine.pool._room_waiters
        wait_until(lambda: blocker.job.handle, message="acceptance")
        assert blocker.cancel()


def test_server_that_is_taken_out_while_it_drains_may_be_closed_at_once(gearmand, raw_worker):
    with GearmanClient([gearmand.address]) as client:
        future = client.submit("raw")
        raw_worker.next_job()
        client.remove_server(gearmand.address)
        wait_until(lambda: client.servers()[0].state == "DRAINING", message="draining")
        client.remove_server(gearmand.address, drain=False)
        wait_until(lambda: not client.servers(), message="the removal")
        assert future.exception(5) is not None
        with pytest.raises(ValueError, match="not a server of this client"):
            client.remove_server(gearmand.address)


def test_servers_taken_in_and_out_by_many_threads_are_as_wanted_in_the_end(gearmands):
    addresses = [gearmands().address for _ in range(2)]
    with GearmanClient(addresses[:1]) as client:
        client.ping(5)

        def change() -> None:
            for _ in range(100):
                client.add_server(addresses[1])
                try:
                    client.remove_server(addresses[1])
                except ValueError:  # another thread was faster
                    pass

        threads = [threading.Thread(target=change) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        wait_until(lambda: [server.address for server in client.servers()] == addresses[:1], message="one server")
        assert client.submit_background("x").result(10).server == addresses[0]
