"""F3 and F5: servers come back, or none does."""

from __future__ import annotations

import statistics
import threading
import time

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ClientClosed, ConnectionLost, ServerUnavailable

from ..support.figures import figure
from ..support.gearmand import free_port
from ..support.outcomes import account, wait_up
from ..support.processes import run_program
from ..support.raw import ECHO_RES, OPTION_REQ, OPTION_RES, Packet, RawConnection, pack_response
from ..support.scripted import ScriptedServer
from ..support.waiting import wait_until

RESTARTS = 20


def test_server_that_is_restarted_twenty_times_is_used_again_each_time(gearmand):
    longest_backoff = 0.3
    with GearmanClient([gearmand.address], reconnect_backoff=(0.05, longest_backoff)) as client:
        delays = []
        for _ in range(RESTARTS):
            assert client.submit_background("x").result(10).server == gearmand.address
            gearmand.kill()
            wait_until(lambda: client.servers()[0].state != "UP", interval=0.001, message="the loss is noticed")
            gearmand.start()
            started = time.monotonic()
            assert client.submit_background("x").result(10).server == gearmand.address
            delays.append(time.monotonic() - started)
        figure(
            f"used again after the server answers: median {statistics.median(delays) * 1e3:.0f} ms, longest "
            f"{max(delays) * 1e3:.0f} ms, backoff at most {longest_backoff * 1e3:.0f} ms"
        )
        assert statistics.median(delays) < longest_backoff + 0.2
        assert max(delays) < 3
        stats = client.stats()
        assert (stats.connections_lost, stats.connections_opened) == (RESTARTS, RESTARTS + 1)


@pytest.mark.parametrize("max_retries", [0, 3])
def test_restarts_under_load_leave_no_future_without_an_outcome(gearmands, c_workers, max_retries):
    restarted, steady = gearmands(), gearmands()
    c_workers(steady)
    c_workers(restarted)
    stop = threading.Event()
    with GearmanClient(
        [restarted.address, steady.address], reconnect_backoff=(0.02, 0.1), max_retries=max_retries
    ) as client:
        wait_up(client)
        collected: list[list] = [[] for _ in range(3)]

        def submit(thread: int) -> None:
            number = 0
            while not stop.is_set():
                batch = []
                for _ in range(20):
                    number += 1
                    payload = b"%d/%d" % (thread, number)
                    batch.append((payload, client.submit("echo", payload)))
                collected[thread] += batch
                for _, future in batch:
                    # The restarted server's worker is not back at once: its jobs wait, and go with the next kill.
                    future.exception(20)

        threads = [threading.Thread(target=submit, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(8):
            wait_up(client, timeout=15)
            before = client.stats().jobs_completed
            wait_until(lambda before=before: client.stats().jobs_completed > before + 20, message="the load is on")
            restarted.restart()
        wait_up(client)
        stop.set()
        for thread in threads:
            thread.join(30)
        counts = account(pair for pairs in collected for pair in pairs)
        figure(f"8 restarts under load, max_retries={max_retries}: {dict(counts)}")
        assert set(counts) <= ({"right"} if max_retries else {"right", "ConnectionLost"})
        stats = client.stats()
        assert stats.jobs_completed == counts["right"]
        assert stats.jobs_lost == counts["ConnectionLost"]
        assert client.submit("echo", b"after").result(20) == b"after"


def test_two_hundred_clients_that_lost_one_server_come_back_spread_out(gearmand):
    clients = [GearmanClient([gearmand.address], reconnect_backoff=(1.0, 10.0)) for _ in range(200)]
    try:
        for client in clients:
            client.ping(0.001)
        for client in clients:
            wait_up(client)
        gearmand.kill()
        # What each client has drawn, on its own clock: when they really come depends on the machine as well.
        moments: list[float] = []

        def drawn() -> bool:
            moments[:] = [
                server.retry.when for client in clients for server in client._engine.pool.servers if server.retry
            ]
            return len(moments) == 200

        wait_until(drawn, message="every client has noticed and drawn the moment of its next attempt")
        moments.sort()
        moments[:] = [moment - moments[0] for moment in moments]
        fullest = max(sum(1 for m in moments if start <= m < start + 0.1) for start in moments)
        figure(
            f"200 reconnects are spread over {moments[-1]:.2f} s (backoff 1 s, full jitter); the fullest 100 ms hold "
            f"{fullest} of them"
        )
        # Evenly spread they would be 20.
        assert fullest < 60
        assert moments[-1] > 0.6
    finally:
        closers = [threading.Thread(target=client.close, args=(0,)) for client in clients]
        for closer in closers:
            closer.start()
        for closer in closers:
            closer.join()


# Its clock can be put forward: a connection has lasted after ten seconds.
_LASTING = """
import time
real, ahead = time.monotonic, 0.0
time.monotonic = lambda: real() + ahead
from gearman_pool import GearmanClient
from gearman_pool.events import ConnectionFailed
from tests.support.outcomes import wait_up
from tests.support.gearmand import Gearmand
from tests.support.listening import Keeping
from tests.support.waiting import wait_until

heard = Keeping()
options = {"reconnect_backoff": (0.001, 60.0), "health_check_interval": 600, "listeners": [heard]}
with Gearmand() as server, GearmanClient([server.address], **options) as client:
    wait_up(client)
    server.kill()
    wait_until(lambda: len(heard.of(ConnectionFailed)) >= 10, message="ten failures")
    server.start()
    wait_up(client, timeout=30)
    failed = len(heard.of(ConnectionFailed))
    ahead = 11.0
    server.kill()
    wait_until(lambda: len(heard.of(ConnectionFailed)) > failed, message="the next failure")
    print(heard.of(ConnectionFailed)[failed].retry_in)
"""


def test_backoff_begins_anew_after_a_connection_that_has_lasted():
    ended = run_program(["-c", _LASTING], 55)
    assert ended.code == 0, ended.errors
    # The second step of the backoff; ten failures before would make it two seconds at the most.
    assert float(ended.output) <= 0.002


def test_backoff_goes_on_growing_while_no_connection_lasts():
    """A server that loses its clients at once is as good as down; they must not come back a thousand times a second."""

    def hang_up(connection: RawConnection, packet: Packet) -> None:
        if packet.command == OPTION_REQ:
            connection.sock.sendall(pack_response(OPTION_RES, packet.body))
        else:
            connection.sock.sendall(pack_response(ECHO_RES, packet.body))
            connection.close()

    with (
        ScriptedServer(hang_up, greets=False) as server,
        GearmanClient([server.address], reconnect_backoff=(0.001, 60.0)) as client,
    ):
        client.ping(0.01)
        wait_until(lambda: (client.servers()[0].retry_in or 0) > 0.05, 5, message="a longer pause")
        stats = client.stats()
        assert stats.connections_lost >= 5
        assert stats.connections_failed == 0


def test_jobs_submitted_while_all_servers_are_down_go_out_when_one_returns(gearmands, c_workers):
    servers = [gearmands(), gearmands()]
    with GearmanClient(
        [server.address for server in servers], submit_timeout=10, reconnect_backoff=(0.05, 0.3)
    ) as client:
        wait_up(client)
        for server in servers:
            server.kill()
        wait_until(lambda: all(server.state != "UP" for server in client.servers()), message="both are down")
        foreground = [(b"%d" % number, client.submit("echo", b"%d" % number)) for number in range(1000)]
        background = [client.submit_background("nobody", b"%d" % number) for number in range(1000)]
        wait_until(lambda: client.stats().waiting == 2000, message="all wait")
        assert not any(future.done() for _, future in foreground)
        returning = servers[1]
        returning.start()
        started = time.monotonic()
        references = [future.result(10) for future in background]
        figure(f"2,000 jobs waited; the background ones were accepted {time.monotonic() - started:.2f} s after")
        assert {reference.server for reference in references} == {returning.address}
        assert len({reference.handle for reference in references}) == 1000
        c_workers(returning)
        assert account(foreground) == {"right": 1000}
        assert returning.jobs("nobody") == 1000
        assert all(future.request.connection_attempts == 1 for _, future in foreground)


def test_jobs_of_a_client_that_starts_before_its_server_are_sent_when_it_comes(gearmands):
    port = free_port()
    with GearmanClient([("127.0.0.1", port)], submit_timeout=10, reconnect_backoff=(0.05, 0.2)) as client:
        future = client.submit_background("x")
        wait_until(lambda: client.servers()[0].last_error, message="the first attempt has failed")
        server = gearmands(port=port)
        assert future.result(10).server == server.address


def test_server_unavailable_names_each_server_at_its_deadline(gearmands):
    down, killed = free_port(), gearmands()
    limit = 0.7
    with GearmanClient([("127.0.0.1", down), killed.address], submit_timeout=limit) as client:
        wait_up(client, killed.address)
        killed.kill()
        wait_until(lambda: client.servers()[1].state != "UP", message="the loss is noticed")
        moments = []
        started = time.monotonic()
        futures = [client.submit("echo", b"x"), client.submit_background("echo", b"x")]
        assert not any(future.done() for future in futures), "submit() waited for a server"
        for future in futures:
            with pytest.raises(ServerUnavailable) as caught:
                future.result(10)
            moments.append(time.monotonic() - started)
            error = caught.value
            assert set(error.servers) == {f"127.0.0.1:{down}", killed.address}
            assert all(error.servers.values())
            assert str(down) in str(error)
            assert killed.address in str(error)
            assert "refused" in error.servers[f"127.0.0.1:{down}"]
            assert (error.task, error.retryable, error.maybe_sent) == ("echo", True, False)
            assert future.request.connection_attempts == 0
        figure(f"ServerUnavailable after {moments[0]:.3f} s with submit_timeout {limit:g} s")
        assert limit <= moments[0] < limit * 1.1 + 2
        assert client.stats().waiting == 0
        # It never gives up: the same client works once the server is there.
        killed.start()
        wait_up(client, killed.address, timeout=20)
        assert client.submit_background("x").result(5).server == killed.address


def test_each_waiting_job_ends_at_its_own_deadline():
    limit = 0.6
    with GearmanClient([("127.0.0.1", free_port())], submit_timeout=limit) as client:
        ends: dict[int, float] = {}
        starts: dict[int, float] = {}
        futures = []
        for number in range(5):
            starts[number] = time.monotonic()
            futures.append(client.submit("x"))
            futures[-1].add_done_callback(lambda _, number=number: ends.setdefault(number, time.monotonic()))
            threading.Event().wait(0.2)
        for future in futures:
            assert isinstance(future.exception(5), ServerUnavailable)
        wait_until(lambda: len(ends) == 5)
        waits = [ends[number] - starts[number] for number in range(5)]
        figure(f"five jobs at intervals of 0.2 s, submit_timeout {limit:g} s: waits {[round(w, 3) for w in waits]}")
        # Each its own: with a common deadline the last would wait for 0.8 s less, or the third for 0.4 s more.
        assert all(limit <= wait < limit + 1.5 for wait in waits)
        assert statistics.median(waits) < limit + 0.3


def test_waiting_jobs_end_with_client_closed_when_the_client_is_closed():
    client = GearmanClient([("127.0.0.1", free_port())], submit_timeout=30)
    future = client.submit("x")
    client.close(0.1)
    with pytest.raises(ClientClosed) as caught:
        future.result(0)
    assert not caught.value.maybe_sent


def test_job_that_was_lost_and_finds_no_server_ends_too(gearmand):
    with GearmanClient([gearmand.address], submit_timeout=0.5, max_retries=3) as client:
        wait_up(client)
        future = client.submit("nobody")
        wait_until(lambda: future.job.handle, message="acceptance")
        gearmand.kill()
        started = time.monotonic()
        error = future.exception(10)
        assert isinstance(error, (ServerUnavailable, ConnectionLost))
        # It was at a server once: who decides whether to submit it again must be told.
        assert error.maybe_sent
        assert 0.4 < time.monotonic() - started < 3
