"""The pool's own rules: which servers there are, and which of them gets a job. Faults stand in tests/faults."""

from __future__ import annotations

import os
import threading

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost, GearmanError, ServerUnavailable

from ..support.waiting import wait_until


def test_several_connections_to_one_server_share_the_jobs(gearmand):
    with GearmanClient([gearmand.address], connections_per_server=3) as client:
        wait_until(lambda: client.ping() and client.servers()[0].connections == 3, message="three connections")
        futures = [client.submit("no such task") for _ in range(9)]
        wait_until(lambda: all(future.job.handle for future in futures), message="acceptance")
        assert sorted(connection.pending for connection in client._engine.pool.connections) == [3, 3, 3]
        for future in futures:
            assert future.cancel()


def test_client_without_servers_says_so(gearmand):
    with GearmanClient() as client:
        with pytest.raises(ServerUnavailable, match="no servers are configured"):
            client.submit("x").result(5)
        client.add_server(gearmand.address)
        wait_until(client.servers, message="the server")
        assert client.submit_background("x").result(5).server == gearmand.address


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


def test_child_of_a_fork_knows_of_a_job_that_came_to_a_connection_just_after_its_end(gearmand):
    with GearmanClient([gearmand.address]) as client:
        client.ping()
        pool = client._engine.pool
        (connection,) = pool.connections
        is_lost, go_on = threading.Event(), threading.Event()

        def lose() -> None:
            connection.lose(ConnectionLost("on purpose"))
            is_lost.set()
            # Whoever comes now is rescued when this call is over.
            go_on.wait(20)

        client._engine.io.post(lose)
        assert is_lost.wait(10)
        # As for a caller who looked just before.
        pool.choose, choose = lambda key: connection, pool.choose
        pool.waiting_room.held_up = False
        future = client.submit_background("x")
        pool.choose = choose
        pid = os.fork()
        if pid == 0:
            # Not waited for, which would end it too.
            os._exit(0 if future.done() else 1)
        status = os.waitpid(pid, 0)[1]
        go_on.set()
        assert future.result(10).server == gearmand.address
    assert status == 0


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
