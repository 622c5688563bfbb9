"""F4: connecting hangs, in the network, in the resolver or in the greeting; all that works goes on at once."""

from __future__ import annotations

import contextlib
import json
import threading
import time

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient
from gearman_pool.errors import ConnectTimeout, ServerUnavailable
from gearman_pool.testing import FaultProxy

from ..support.figures import assert_p99_is_unharmed, figure
from ..support.hanging import HANGING, black_hole, deaf_port
from ..support.outcomes import wait_up
from ..support.processes import run_program
from ..support.raw import ECHO_REQ, ECHO_RES, JOB_CREATED, OPTION_REQ, OPTION_RES, Packet, RawConnection, pack_response
from ..support.scripted import ScriptedServer, SilentServer
from ..support.waiting import wait_until


@pytest.mark.parametrize("kind", HANGING)
def test_other_servers_serve_at_once(gearmand, c_worker, kind):
    with HANGING[kind]() as hanging:
        for policy in ("random", "round_robin", "least_pending"):
            with GearmanClient([hanging, gearmand.address], policy=policy) as client:
                started = time.monotonic()
                assert client.submit("echo", b"x").result(15) == b"x"
                elapsed = time.monotonic() - started
                assert client.servers()[0].state == "CONNECTING"
            # Far below connect_timeout, which a client that waits for all servers would take.
            assert elapsed < 3, policy


@pytest.mark.parametrize("kind", HANGING)
def test_failover_waits_for_the_preferred_server_only_at_the_very_start(gearmand, c_worker, kind):
    with HANGING[kind]() as hanging, GearmanClient([hanging, gearmand.address], policy="failover") as client:
        started = time.monotonic()
        assert client.submit("echo", b"x").result(15) == b"x"
        first = time.monotonic() - started
        started = time.monotonic()
        assert client.submit("echo", b"x").result(15) == b"x"
        second = time.monotonic() - started
    assert first < 4
    assert second < 3


@pytest.mark.parametrize("policy", ["failover", "unique"])
def test_first_jobs_wait_for_the_server_that_a_sticky_policy_prefers(policy):
    """Or those of one unique would go to one server before it has answered, and to another one after."""
    uniques = [f"unique-{number}" for number in range(20)]
    rounds = []
    # They do not wait for long: a busy machine spoils some rounds.
    for _ in range(5):
        other_is_up = threading.Event()

        def hesitate(connection: RawConnection, packet: Packet, up: threading.Event = other_is_up) -> None:
            assert up.wait(10)
            if packet.command == OPTION_REQ:
                answer = pack_response(OPTION_RES, packet.body)
            elif packet.command == ECHO_REQ:
                answer = pack_response(ECHO_RES, packet.body)
            else:
                answer = pack_response(JOB_CREATED, b"H:there:1")
            connection.sock.sendall(answer)

        with (
            ScriptedServer(hesitate, greets=False) as slow,
            SilentServer() as quick,
            GearmanClient([slow.address, quick.address], policy=policy) as client,
        ):
            quick.speaking = True
            futures = [client.submit_background("x", unique=unique) for unique in uniques]
            wait_until(lambda client=client: client.servers()[1].state == "UP", message="the other one is up")
            other_is_up.set()
            first = [future.result(10).server for future in futures]
            later = [client.submit_background("x", unique=unique).result(10).server for unique in uniques]
            if first == later and slow.address in first:
                return
            rounds.append((first, later))
    raise AssertionError(f"the first jobs, and later ones of the same uniques, went to: {rounds}")


@pytest.mark.parametrize("kind", HANGING)
def test_p99_of_other_jobs_is_unharmed(gearmand, c_worker, kind):
    with GearmanClient([gearmand.address]) as client:
        wait_up(client)

        @contextlib.contextmanager
        def beside_it():
            with HANGING[kind]() as hanging:
                client.add_server(hanging)
                wait_until(lambda: any(server.state == "CONNECTING" for server in client.servers()))
                yield
                client.remove_server(hanging, drain=False)

        # A loop that waits for the connect, or for the greeting, stands still for 3 or 5 seconds each time.
        assert_p99_is_unharmed(client, kind, beside_it, longest=2.0)


@pytest.mark.parametrize("kind", HANGING)
def test_submit_returns_at_once_and_the_job_ends_within_submit_timeout(kind):
    with (
        HANGING[kind]() as hanging,
        GearmanClient([hanging], submit_timeout=0.5, connect_timeout=60, health_check_timeout=60) as client,
    ):
        started = time.monotonic()
        futures = [client.submit("echo") for _ in range(100)]
        assert time.monotonic() - started < 3
        errors = [future.exception(15) for future in futures]
        elapsed = time.monotonic() - started
    assert all(isinstance(error, ServerUnavailable) for error in errors)
    assert not any(error.maybe_sent for error in errors)
    assert 0.5 <= elapsed < 5


def test_hanging_connect_ends_with_connect_timeout_and_is_tried_again(gearmand):
    with (
        deaf_port() as hanging,
        GearmanClient([hanging], connect_timeout=0.3, reconnect_backoff=(0.01, 0.1)) as client,
    ):
        started = time.monotonic()
        client.ping(0.01)
        wait_until(lambda: client.servers()[0].last_error)
        elapsed = time.monotonic() - started
        assert "no connection within connect_timeout (0.3 s)" in client.servers()[0].last_error
        wait_until(lambda: client.stats().connections_failed >= 3)
    assert 0.3 <= elapsed < 5


def test_black_hole_is_given_up_after_health_check_timeout():
    with (
        black_hole() as hanging,
        GearmanClient([hanging], health_check_timeout=0.3, submit_timeout=0.5, reconnect_backoff=(0.01, 0.1)) as client,
    ):
        client.ping(0.01)
        wait_until(lambda: client.servers()[0].last_error, message="the first attempt is given up")
        error = client.submit("echo").exception(15)
        assert isinstance(error, ServerUnavailable)
        assert "no answer to a health check within health_check_timeout (0.3 s)" in str(error)
        assert client.stats().connections_opened == 0


def test_server_that_stops_hanging_is_used(gearmand, c_worker):
    with FaultProxy(gearmand.address) as proxy:
        proxy.swallow()
        with GearmanClient([proxy.address], health_check_timeout=0.3, reconnect_backoff=(0.05, 0.2)) as client:
            future = client.submit("echo", b"x")
            wait_until(lambda: client.stats().connections_failed >= 1)
            proxy.pass_through()
            assert future.result(15) == b"x"


@pytest.mark.parametrize("kind", HANGING)
def test_admin_client_gives_up_in_time(kind):
    with (
        HANGING[kind]() as hanging,
        GearmanAdminClient([hanging], connect_timeout=0.4, health_check_timeout=0.4) as admin,
    ):
        started = time.monotonic()
        with pytest.raises(ServerUnavailable) as raised:
            admin.get_version()
        assert time.monotonic() - started < 5
        cause = raised.value.__cause__
    assert isinstance(cause, ConnectTimeout) or "health check" in str(cause)


@pytest.mark.parametrize("kind", HANGING)
def test_close_does_not_wait_for_a_hanging_connect(kind):
    with HANGING[kind]() as hanging:
        client = GearmanClient([hanging], connect_timeout=3, health_check_timeout=30)
        client.ping(0.05)
        started = time.monotonic()
        client.close()
        assert time.monotonic() - started < 3


_HANGING_RESOLVER = """
import contextlib, json, sys, time
import gearman_pool
from gearman_pool.errors import ServerUnavailable
from tests.support.figures import assert_p99_is_unharmed
from tests.support.hanging import let_resolver_hang
from tests.support.waiting import wait_until

asked = let_resolver_hang("hangs.example.org")
options = {"connect_timeout": 0.4, "reconnect_backoff": (0.05, 0.1)}
figures = {}

@contextlib.contextmanager
def beside_it():
    before = len(asked)
    client.add_server("hangs.example.org")
    wait_until(lambda: len(asked) > before, message="the resolver is asked")
    yield
    client.remove_server("hangs.example.org", drain=False)

with gearman_pool.GearmanClient([sys.argv[1]], **options) as client:
    assert_p99_is_unharmed(client, "a resolver that hangs", beside_it, longest=2.0)
del asked[:]
with gearman_pool.GearmanClient(["hangs.example.org", sys.argv[1]], **options) as client:
    started = time.monotonic()
    assert client.submit("echo", b"x").result(15) == b"x"
    figures["first"] = time.monotonic() - started
    deadline = time.monotonic() + 10
    while not client.servers()[0].last_error and time.monotonic() < deadline:
        client.submit("echo", b"x").result(15)
    figures["error"] = client.servers()[0].last_error
with gearman_pool.GearmanClient(["hangs.example.org"], submit_timeout=1.5, **options) as client:
    started = time.monotonic()
    error = client.submit("echo").exception(15)
    figures["alone"] = time.monotonic() - started
    assert isinstance(error, ServerUnavailable), error
# An attempt that hangs there cannot be ended, so there must not be one after the other.
figures["asked"] = len(asked)
print(json.dumps(figures), flush=True)
"""


def test_resolver_that_hangs_delays_nobody_and_not_even_the_end_of_the_process(gearmand, c_worker):
    started = time.monotonic()
    ended = run_program(["-c", _HANGING_RESOLVER, gearmand.address], 50)
    assert ended.code == 0, ended.errors
    *measured, last = ended.output.splitlines()
    figures = json.loads(last)
    figure(
        f"{' '.join(measured).strip().removeprefix('measured: ')}; the process took {time.monotonic() - started:.1f} s"
    )
    assert figures["first"] < 2
    assert 1.5 <= figures["alone"] < 8
    assert "the resolver may hang" in figures["error"]
    assert figures["asked"] == 2
