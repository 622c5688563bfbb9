"""S1: TLS for client, admin client and worker, through stunnel in front of a real gearmand."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
import time
from typing import NamedTuple

import pytest
import trustme

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker, ServerAddress
from gearman_pool.errors import ConnectionLost, ConnectTimeout, ServerUnavailable, TLSError
from gearman_pool.options import make_ssl_context
from gearman_pool.testing import FaultProxy

from ..support.raw import (
    ECHO_REQ,
    ECHO_RES,
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    SUBMIT_JOB,
    WORK_COMPLETE,
    Closed,
    RawConnection,
    pack_response,
)
from ..support.waiting import wait_until
from .support import figure, percentile, run_program, wait_accepted, wait_up


class Files(NamedTuple):
    """An authority, what it has issued, and the PEM files of both."""

    ca: trustme.CA
    server: trustme.LeafCert
    ca_file: str
    cert_file: str
    key_file: str


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    client = ca.issue_cert("client.example.org")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    client.private_key_pem.write_to_path(folder / "client.key")
    names = [str(folder / name) for name in ("ca.pem", "client.pem", "client.key")]
    return Files(ca, ca.issue_cert("localhost", "127.0.0.1"), *names)


@pytest.fixture
def stunnel(gearmand, stunnels, tls):
    return stunnels(gearmand.address, tls.server)


def _context(tls: Files) -> ssl.SSLContext:
    return make_ssl_context(tls.ca_file)


def _refused(
    address: object, context: ssl.SSLContext | None, **options: object
) -> tuple[ServerUnavailable, BaseException]:
    """Submit a job and return the error it ends with, and that error's cause."""
    options = {"submit_timeout": 1.0, "connect_timeout": 5.0, "reconnect_backoff": (0.05, 0.2), **options}
    with GearmanClient([address], ssl_context=context, **options) as client:
        error = client.submit("echo", b"secret payload").exception(20)
        assert isinstance(error, ServerUnavailable)
        assert not error.maybe_sent
        assert client.stats().connections_opened == 0
        (text,) = error.servers.values()
        assert text in str(error)
        assert text in str(error.__cause__)
        return error, error.__cause__


# ---- what works ----------------------------------------------------------------------------------------------------

WAYS = {
    "ssl_context": lambda tls, port: GearmanClient([f"127.0.0.1:{port}"], ssl_context=_context(tls)),
    "by name": lambda tls, port: GearmanClient([("localhost", port)], ssl_context=_context(tls)),
    "address": lambda tls, port: GearmanClient([ServerAddress("127.0.0.1", port, _context(tls))]),
    "other name": lambda tls, port: GearmanClient(
        [ServerAddress("127.0.0.1", port, _context(tls), server_hostname="localhost")]
    ),
    "DSN": lambda tls, port: GearmanClient(f"gearmans://127.0.0.1:{port}/?ca={tls.ca_file}"),
    "DSN with a client's certificate": lambda tls, port: GearmanClient(
        f"gearmans://127.0.0.1:{port}/?ca={tls.ca_file}&cert={tls.cert_file}&key={tls.key_file}"
    ),
    "python-gearman's dict": lambda tls, port: GearmanClient(
        [
            {
                "host": "127.0.0.1",
                "port": port,
                "ca_certs": tls.ca_file,
                "certfile": tls.cert_file,
                "keyfile": tls.key_file,
            }
        ]
    ),
    "environment": lambda tls, port: GearmanClient.from_env(
        {
            "GEARMAN_SERVERS": f"127.0.0.1:{port}",
            "GEARMAND_CA_CERTIFICATE": tls.ca_file,
            "GEARMAN_CLIENT_PEM": tls.cert_file,
            "GEARMAN_CLIENT_KEY": tls.key_file,
        }
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_jobs_go_through_tls_however_it_is_asked_for(tls, stunnel, echo_worker, way):
    with FaultProxy(stunnel.address, record=True) as wire:
        port = int(wire.address.rpartition(":")[2])
        with WAYS[way](tls, port) as client:
            futures = [client.submit("reverse", b"secret payload %d" % number) for number in range(50)]
            for number, future in enumerate(futures):
                assert future.result(15) == (b"secret payload %d" % number)[::-1]
            client.submit_background("echo", b"secret payload").result(15)
        sent, received = wire.recorded("to_server"), wire.recorded("to_client")
    # A handshake's record comes first, and nothing of Gearman or of the payload is to be seen.
    assert sent[:2] == b"\x16\x03"
    for word in (b"secret", b"\0REQ", b"reverse", b"exceptions"):
        assert word not in sent
    for word in (b"terces", b"\0RES"):
        assert word not in received


def test_server_that_is_added_later_gets_the_clients_context(tls, stunnel, echo_worker):
    with GearmanClient(ssl_context=_context(tls)) as client:
        client.add_server(stunnel.address)
        assert client.submit("echo", b"x").result(15) == b"x"


def test_admin_client_talks_through_tls(tls, stunnel, echo_worker):
    with GearmanAdminClient([stunnel.address], ssl_context=_context(tls)) as admin:
        assert admin.ping_server() > 0
        assert {row["task"] for row in admin.get_status()} == {"echo", "reverse"}
        assert admin.get_version()


@contextlib.contextmanager
def _working(address: str, context: ssl.SSLContext):
    """A worker of ours for "upper", on a thread that ends with the block, whatever happens in it."""
    worker = GearmanWorker([address], ssl_context=context, concurrency=2)
    worker.register_task("upper", lambda job: job.data.upper())
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(15)
        worker.close()
    assert not thread.is_alive()


def test_worker_takes_jobs_through_tls(tls, stunnel, gearmand):
    with (
        _working(stunnel.address, _context(tls)) as worker,
        GearmanClient([stunnel.address], ssl_context=_context(tls)) as client,
        gearmand.connect() as plain,
    ):
        assert worker.ready.wait(15)
        assert client.submit("upper", b"abc").result(15) == b"ABC"
        assert plain.call("upper", b"from a plain client") == b"FROM A PLAIN CLIENT"
        large = b"a" * (8 * 1024 * 1024)
        assert client.submit("upper", large).result(30) == large.upper()


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_both_versions_of_tls_work(gearmand, echo_worker, stunnels, tls, version):
    server = stunnels(gearmand.address, tls.server, version=version)
    with GearmanClient([server.address], ssl_context=_context(tls)) as client:
        assert client.submit("echo", b"x").result(15) == b"x"
        (connection,) = client._dispatcher.pool.connections
        assert connection._sock.version() == version


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_client_certificate_is_shown_to_a_server_that_wants_one(gearmand, echo_worker, stunnels, tls, version):
    server = stunnels(gearmand.address, tls.server, client_ca=tls.ca, version=version)
    context = make_ssl_context(tls.ca_file, tls.cert_file, tls.key_file)
    with GearmanClient([server.address], ssl_context=context) as client:
        assert client.submit("echo", b"x").result(15) == b"x"


def test_payloads_of_16_mib_go_both_ways(tls, stunnel, gearmand, echo_worker):
    payload = bytes(range(256)) * 65536
    with GearmanClient([stunnel.address], ssl_context=_context(tls)) as client:
        wait_up(client)
        started = time.monotonic()
        futures = [client.submit("reverse", payload), client.submit("echo", b"small"), client.submit("echo", payload)]
        assert futures[0].result(40) == payload[::-1]
        assert futures[1].result(40) == b"small"
        assert futures[2].result(40) == payload
        figure(f"two payloads of 16 MiB there and back through TLS in {time.monotonic() - started:.2f} s")
        assert client.stats().connections_lost == 0


def test_16_threads_share_a_tls_connection_and_each_gets_its_own_answers(tls, stunnel, c_worker):
    wrong = []
    with GearmanClient([stunnel.address], ssl_context=_context(tls)) as client:

        def call(thread: int) -> None:
            for number in range(100):
                # Up to 30 kB, so that packets end anywhere within TLS records.
                payload = b"%d-%d " % (thread, number) * (1 + number * 37 % 3000)
                result = client.submit("reverse", payload).result(30)
                if result != payload[::-1]:
                    wrong.append((thread, number))

        threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
        assert not any(thread.is_alive() for thread in threads)
        assert client.stats().jobs_completed == 1600
    assert wrong == []


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_certificate_of_an_unknown_authority_is_refused(tls, stunnel):
    other = ssl.create_default_context()
    trustme.CA().configure_trust(other)
    error, cause = _refused(stunnel.address, other)
    assert isinstance(cause, TLSError)
    assert "certificate was refused" in str(error)
    assert "authority as ca" in str(error)
    assert not cause.retryable


def test_authorities_of_the_system_count_by_default(stunnel):
    with GearmanClient(f"gearmans://{stunnel.address}/?submit_timeout=0.5") as client:
        error = client.submit("echo").exception(15)
    assert isinstance(error.__cause__, TLSError)
    assert "certificate was refused" in str(error)


def test_certificate_of_another_name_is_refused(gearmand, stunnels, tls):
    server = stunnels(gearmand.address, tls.ca.issue_cert("gearman.example.org"))
    error, cause = _refused(server.address, _context(tls))
    assert isinstance(cause, TLSError)
    assert "certificate was refused" in str(error)
    assert "127.0.0.1" in str(error)
    assert "server_hostname" in str(error)
    _, cause = _refused(("localhost", server.port), _context(tls))
    assert "Hostname mismatch" in str(cause)


def test_expired_certificate_is_refused(gearmand, stunnels, tls):
    yesterday = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
    expired = tls.ca.issue_cert("127.0.0.1", not_after=yesterday)
    server = stunnels(gearmand.address, expired)
    error, cause = _refused(server.address, _context(tls))
    assert isinstance(cause, TLSError)
    assert "expired" in str(error)
    assert "renewed" in str(error)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_missing_client_certificate_is_named(gearmand, stunnels, tls, version):
    server = stunnels(gearmand.address, tls.server, client_ca=tls.ca, version=version)
    error, cause = _refused(server.address, _context(tls))
    assert isinstance(cause, TLSError)
    assert "give cert and key" in str(error)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_client_certificate_of_an_unknown_authority_is_named(gearmand, stunnels, tls, version):
    server = stunnels(gearmand.address, tls.server, client_ca=trustme.CA(), version=version)
    context = make_ssl_context(tls.ca_file, tls.cert_file, tls.key_file)
    error, cause = _refused(server.address, context)
    assert isinstance(cause, TLSError)
    assert "does not accept the client's certificate" in str(error)


def test_versions_of_tls_that_do_not_meet_are_named(gearmand, stunnels, tls):
    server = stunnels(gearmand.address, tls.server, version="TLSv1.2")
    context = _context(tls)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    error, cause = _refused(server.address, context)
    assert isinstance(cause, TLSError)
    assert "no TLS version in common" in str(error)


def test_old_versions_are_never_offered(tls):
    assert _context(tls).minimum_version >= ssl.TLSVersion.TLSv1_2


def test_gearmand_without_tls_is_named(gearmand, tls):
    error, cause = _refused(gearmand.address, _context(tls))
    assert isinstance(cause, TLSError)
    assert "does the server speak TLS on this port?" in str(error)


def test_plain_client_at_a_tls_port_is_told_what_to_do(stunnel):
    error, _ = _refused(stunnel.address, None)
    assert "ssl_context" in str(error)
    assert "gearmans://" in str(error)


@contextlib.contextmanager
def _listening(serve):
    """Serve each connection to a port with ``serve(socket)``, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopping = threading.Event()

        def run() -> None:
            while True:
                sock, _ = listener.accept()
                with sock:
                    if stopping.is_set():
                        return
                    sock.settimeout(10)
                    serve(sock)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stopping.set()
            socket.create_connection(listener.getsockname(), 10).close()
            thread.join(15)


def test_plain_client_that_is_answered_with_an_alert_gets_a_tls_error():
    def alert(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"\x15\x03\x01\x00\x02\x02\x46")

    with _listening(alert) as address:
        error, cause = _refused(address, None)
    assert isinstance(cause, TLSError)
    assert "gearmans://" in str(error)


@pytest.mark.parametrize("behaviour", ["silence", "end", "plain answer", "reset"])
def test_nothing_but_a_handshake_ever_leaves_for_a_server_that_has_not_shown_its_certificate(tls, behaviour):
    """No silent fallback to plain TCP: everything that the client sends is recorded."""
    heard = []

    def record(sock: socket.socket) -> None:
        data = sock.recv(65536)
        heard.append(data)
        if behaviour == "plain answer":
            sock.sendall(pack_response(ECHO_RES, b"gearman_pool"))
        elif behaviour == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return
        elif behaviour == "end":
            return
        with contextlib.suppress(OSError):
            while data:
                data = sock.recv(65536)
                heard.append(data)

    with _listening(record) as address:
        _refused(address, _context(tls), connect_timeout=0.4, submit_timeout=1.5)
    # Records of TLS begin with 0x16 (a handshake) or 0x15 (an alert), and the port's own last visitor says nothing.
    assert len([data for data in heard if data]) >= 2
    for data in heard:
        assert not data or data[0] in (0x15, 0x16)
        assert b"\0REQ" not in data
        assert b"secret" not in data


def test_admin_client_and_worker_refuse_what_the_client_refuses(gearmand, stunnels, tls):
    server = stunnels(gearmand.address, tls.ca.issue_cert("gearman.example.org"))
    with GearmanAdminClient([server.address], ssl_context=_context(tls)) as admin:
        with pytest.raises(ServerUnavailable, match="certificate was refused") as raised:
            admin.get_version()
        assert isinstance(raised.value.__cause__, TLSError)
    with _working(server.address, _context(tls)) as worker:

        def refused() -> str | None:
            return next((info.last_error for info in worker.stats().servers), None)

        wait_until(refused, message="the refusal")
        assert "certificate was refused" in refused()
        assert not worker.ready.is_set()


# ---- faults --------------------------------------------------------------------------------------------------------


def test_handshake_that_hangs_ends_with_connect_timeout_and_stalls_nobody(gearmand, c_worker, stunnel, tls):
    with FaultProxy(stunnel.address) as hanging:
        hanging.swallow()
        servers = [ServerAddress("127.0.0.1", int(hanging.address.rpartition(":")[2]), _context(tls)), stunnel.address]
        with GearmanClient(
            servers, ssl_context=_context(tls), connect_timeout=0.5, policy="failover", reconnect_backoff=(0.05, 0.1)
        ) as client:
            started = time.monotonic()
            assert client.submit("echo", b"first").result(15) == b"first"
            first = time.monotonic() - started
            latencies = []
            while time.monotonic() - started < 2.5:
                before = time.monotonic()
                assert client.submit("echo", b"x").result(15) == b"x"
                latencies.append(time.monotonic() - before)
            text = client.servers()[0].last_error
        assert "TLS handshake was not finished within connect_timeout" in text
        assert hanging.accepted >= 3
        p99 = percentile(latencies, 99)
        figure(
            f"with a server whose handshake hangs: first job after {first * 1e3:.0f} ms, {len(latencies)} more, p99 "
            f"{p99 * 1e3:.1f} ms"
        )
        # A loop that waited for the handshake would stand still for connect_timeout, again and again.
        assert p99 < 2
        assert first < 4


def test_hanging_handshake_alone_ends_with_connect_timeout(stunnel, tls):
    with FaultProxy(stunnel.address) as hanging:
        hanging.swallow("to_client")
        started = time.monotonic()
        error, cause = _refused(hanging.address, _context(tls), connect_timeout=0.3, submit_timeout=1.0)
        assert time.monotonic() - started < 8
    assert isinstance(cause, ConnectTimeout)
    assert "TLS handshake" in str(error)


@pytest.mark.parametrize("how", ["cut", "reset", "kill"])
def test_tls_connection_that_is_killed_mid_job_counts_as_lost(tls, gearmand, stunnels, how, raw_workers):
    first, second = stunnels(gearmand.address, tls.server), stunnels(gearmand.address, tls.server)
    with (
        FaultProxy(first.address) as wire,
        GearmanClient([wire.address], ssl_context=_context(tls), reconnect_backoff=(0.05, 0.2)) as client,
    ):
        wait_up(client)
        client.add_server(second.address)
        lost, retried = client.submit("job", b"lost"), client.submit("job", b"again", max_retries=1)
        wait_accepted(lost, retried)
        if how == "kill":
            first.kill()
        else:
            getattr(wire, how)()
        error = lost.exception(15)
        assert isinstance(error, ConnectionLost)
        assert error.maybe_sent

        raw_workers(gearmand, "job", lambda job: job.complete(job.data))
        assert retried.result(15) == b"again"


def test_corrupted_record_closes_the_connection_and_gives_nobody_a_wrong_answer(tls, stunnel, echo_worker):
    with (
        FaultProxy(stunnel.address) as wire,
        GearmanClient([wire.address], ssl_context=_context(tls), reconnect_backoff=(0.05, 0.2)) as client,
    ):
        wait_up(client)
        wire.corrupt(1, skip=20)
        futures = [(b"%d" % number, client.submit("echo", b"%d" % number)) for number in range(50)]
        for payload, future in futures:
            error = future.exception(15)
            assert future.result() == payload if error is None else isinstance(error, ConnectionLost)
        wait_until(lambda: client.stats().connections_lost == 1)
        assert client.submit("echo", b"after").result(15) == b"after"


def test_fork_leaves_the_parents_tls_connection_alone(tls, stunnel, c_worker):
    with FaultProxy(stunnel.address) as wire:
        ended = run_program(["-m", "tests.faults.programs.tls_fork", wire.address, tls.ca_file], 50)
        assert ended.code == 0, ended.errors
        # A close_notify of a child, or a shutdown(), would have ended the parent's connection.
        assert ended.output == "opened 1 lost 0\n"
        # The parent's, and one for each of the three children that used the client.
        assert wire.accepted == 4


def test_job_that_may_have_reached_the_server_within_a_longer_send_is_not_sent_elsewhere(tls):
    """A send that blocks half-way leaves whole packets with the server: those are no unsent jobs."""
    at_first, at_second = [], []
    go_on = threading.Event()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.server.configure_cert(context)

    def serve(connection: RawConnection, jobs: list[bytes], answers: bool) -> None:
        while True:
            packet = connection.receive()
            if packet.command == OPTION_REQ:
                connection.sock.sendall(pack_response(OPTION_RES, packet.body))
            elif packet.command == ECHO_REQ:
                connection.sock.sendall(pack_response(ECHO_RES, packet.body))
                if not answers:
                    # Greeted: from now on it reads nothing.
                    go_on.wait(30)
            elif packet.command == SUBMIT_JOB:
                jobs.append(packet.arguments(3)[2][:8])
                if answers:
                    handle = b"H:%d" % len(jobs)
                    connection.sock.sendall(
                        pack_response(JOB_CREATED, handle) + pack_response(WORK_COMPLETE, handle, b"")
                    )

    def first(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        with contextlib.suppress(Closed, OSError), context.wrap_socket(sock, server_side=True) as secured:
            serve(RawConnection.adopt(secured, 30), at_first, answers=False)

    def second(sock: socket.socket) -> None:
        with contextlib.suppress(Closed, OSError):
            serve(RawConnection.adopt(sock, 30), at_second, answers=True)

    with _listening(first) as first_address, _listening(second) as second_address:
        secured = ServerAddress("127.0.0.1", int(first_address.rpartition(":")[2]), _context(tls))
        with GearmanClient([secured], health_check_interval=60, health_check_timeout=60) as client:
            wait_up(client)
            futures = [client.submit("task", b"%08d" % number + bytes(992)) for number in range(9000)]
            outbound = client._dispatcher._outbound
            sizes = []

            def settled() -> bool:
                sizes.append(outbound())
                return len(sizes) > 20 and len(set(sizes[-20:])) == 1

            wait_until(settled, interval=0.02, message="the connection is full")
            assert sizes[-1] > 256 * 1024
            client.add_server(second_address)
            client.remove_server(secured, drain=False)
            go_on.set()
            outcomes = [future.exception(30) for future in futures]
    maybe_sent = sum(isinstance(error, ConnectionLost) and error.maybe_sent for error in outcomes)
    assert maybe_sent + sum(error is None for error in outcomes) == len(futures)
    assert at_first
    assert at_second
    assert not set(at_first) & set(at_second)
    # A record at the most is in doubt besides what the first server has.
    assert len(at_first) <= maybe_sent
