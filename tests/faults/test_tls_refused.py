"""S1: what client, worker and admin client refuse, each with an error that says which, and what they never send."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import warnings

import pytest
import trustme

from gearman_pool import GearmanClient
from gearman_pool.errors import TLSError
from gearman_pool.options import ServerAddress
from gearman_pool.transport.tls import tls_error

from ..support.raw import ECHO_RES, RawConnection, pack_response
from ..support.scripted import SocketServer
from ..support.waiting import wait_until
from .tls import SUBJECTS


@pytest.fixture(params=SUBJECTS)
def subject(request):
    """What makes a client, a worker or an admin client of one server."""
    return SUBJECTS[request.param]


def _refused(subject, address: object, context: ssl.SSLContext | None) -> TLSError:
    with subject(address, context) as opened:
        error = opened.failure()
    assert type(error) is TLSError, repr(error)
    assert not error.retryable
    return error


def test_certificate_of_an_unknown_authority_is_refused(subject, stunnel):
    other = ssl.create_default_context()
    trustme.CA().configure_trust(other)
    text = str(_refused(subject, stunnel.address, other))
    assert "the server's certificate was refused" in text
    assert "authority as ca" in text


def test_authorities_of_the_system_count_by_default(stunnel):
    with GearmanClient(f"gearmans://{stunnel.address}/?submit_timeout=0.5") as client:
        error = client.submit("echo").exception(15)
    assert isinstance(error.__cause__, TLSError)
    assert "certificate was refused" in str(error)


def test_certificate_of_another_name_is_refused(subject, gearmand, stunnels, tls):
    server = stunnels(gearmand.address, tls.ca.issue_cert("gearman.example.org"))
    text = str(_refused(subject, server.address, tls.context()))
    assert "the server's certificate was refused" in text
    assert "127.0.0.1" in text
    assert "server_hostname" in text
    assert "Hostname mismatch" in str(_refused(subject, ("localhost", server.port), tls.context()))


def test_expired_certificate_is_refused(subject, gearmand, stunnels, tls):
    yesterday = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
    server = stunnels(gearmand.address, tls.ca.issue_cert("127.0.0.1", not_after=yesterday))
    text = str(_refused(subject, server.address, tls.context()))
    assert "certificate has expired" in text
    assert "renewed" in text


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_missing_client_certificate_is_named(subject, gearmand, stunnels, tls, version):
    server = stunnels(gearmand.address, tls.server, client_ca=tls.ca, version=version)
    text = str(_refused(subject, server.address, tls.context()))
    assert "give cert and key" in text


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_client_certificate_of_an_unknown_authority_is_named(subject, gearmand, stunnels, tls, version):
    server = stunnels(gearmand.address, tls.server, client_ca=trustme.CA(), version=version)
    text = str(_refused(subject, server.address, tls.context_with_certificate()))
    assert "does not accept the client's certificate" in text


def test_versions_of_tls_that_do_not_meet_are_named(gearmand, stunnels, tls):
    server = stunnels(gearmand.address, tls.server, version="TLSv1.2")
    context = tls.context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    assert "no TLS version in common" in str(_refused(SUBJECTS["client"], server.address, context))


def _version_of_an_old_client(port: int, tls) -> str | None:
    """Shake hands as a client does that takes TLS 1.1 as well; return the version that was agreed on."""
    context = ssl.create_default_context()
    tls.ca.configure_trust(context)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", port), 10) as sock,
        context.wrap_socket(sock, server_hostname="127.0.0.1") as secured,
    ):
        return secured.version()


def test_server_that_speaks_nothing_later_than_tls_1_1_is_refused(subject, gearmand, stunnels, tls):
    server = stunnels(gearmand.address, tls.server, version="TLSv1.1")
    # It does speak that: a client that took it would get it.
    try:
        assert _version_of_an_old_client(server.port, tls) == "TLSv1.1"
    except ssl.SSLError as error:
        pytest.skip(f"OpenSSL here no longer speaks TLS 1.1: {error}")
    assert "no TLS version in common" in str(_refused(subject, server.address, tls.context()))


def test_gearmand_without_tls_is_named(subject, gearmand, tls):
    assert_named_as_plain(_refused(subject, gearmand.address, tls.context()))


def assert_named_as_plain(error: TLSError) -> None:
    text = str(error)
    assert "does the server speak TLS on this port?" in text
    assert "takes --ssl and serves plain TCP" in text


def test_gearmand_with_the_option_for_tls_is_used_and_one_that_was_built_without_tls_is_named(
    subject, gearmands, tls, tmp_path, raw_workers
):
    files = {"ca": tmp_path / "ca.pem", "certificate": tmp_path / "server.pem", "key": tmp_path / "server.key"}
    tls.ca.cert_pem.write_to_path(files["ca"])
    tls.server.cert_chain_pems[0].write_to_path(files["certificate"])
    tls.server.private_key_pem.write_to_path(files["key"])
    arguments = ["--ssl", f"--ssl-ca-file={files['ca']}"]
    arguments += [f"--ssl-certificate={files['certificate']}", f"--ssl-key={files['key']}"]
    gearmand = gearmands(arguments=arguments, ssl_context=tls.context())
    if not gearmand.speaks_tls:
        # Debian's, which is built without TLS, takes the option and serves plain TCP without a word.
        assert_named_as_plain(_refused(subject, gearmand.address, tls.context()))
        return
    raw_workers(gearmand, "echo", lambda job: job.complete(job.data))
    with subject(gearmand.address, tls.context()) as opened:
        assert opened.works(gearmand) in ("TLSv1.2", "TLSv1.3")
    other = ssl.create_default_context()
    trustme.CA().configure_trust(other)
    assert "the server's certificate was refused" in str(_refused(subject, gearmand.address, other))


def test_plain_connection_to_a_tls_port_is_told_what_to_do(subject, stunnel):
    with subject(stunnel.address, None) as opened:
        text = str(opened.failure())
    assert "ssl_context" in text
    assert "gearmans://" in text


def test_plain_connection_that_is_answered_with_an_alert_gets_a_tls_error(subject):
    def alert(connection: RawConnection) -> None:
        connection.sock.recv(100)
        connection.sock.sendall(b"\x15\x03\x01\x00\x02\x02\x46")

    with SocketServer(alert) as server:
        assert "gearmans://" in str(_refused(subject, server.address, None))


@pytest.mark.parametrize("behaviour", ["silence", "end", "plain answer", "reset"])
def test_nothing_but_a_handshake_ever_leaves_for_a_server_that_has_not_shown_its_certificate(subject, tls, behaviour):
    """No silent fallback to plain TCP: everything that is sent in two attempts is recorded."""
    heard = []

    def record(connection: RawConnection) -> None:
        sock = connection.sock
        data = sock.recv(65536)
        heard.append(data)
        if behaviour == "plain answer":
            sock.sendall(pack_response(ECHO_RES, b"gearman_pool"))
        elif behaviour == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            return
        elif behaviour == "end":
            return
        while data:
            data = sock.recv(65536)
            heard.append(data)

    with SocketServer(record) as server, subject(server.address, tls.context(), connect_timeout=0.4) as opened:

        def has_tried_twice() -> bool:
            # On a busy machine the time of an attempt can be over before it has sent anything.
            opened.failure()
            return len([data for data in heard if data]) >= 2

        wait_until(has_tried_twice, 40, message=lambda: f"two attempts that send something: {len(heard)}")
    # Records of TLS begin with 0x16 (a handshake) or 0x15 (an alert).
    for data in heard:
        assert not data or data[0] in (0x15, 0x16)
        for word in (b"\0REQ", b"secret", b"upper", b"version"):
            assert word not in data


@pytest.mark.parametrize(
    "error",
    [
        ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        # What Debian 12's Python says of the same.
        ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed (EOF)"),
        ConnectionResetError(104, "Connection reset by peer"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_server_that_ends_the_handshake_may_speak_no_tls_however_the_end_is_called(error):
    told = tls_error(ServerAddress("127.0.0.1"), error)
    assert isinstance(told, TLSError)
    assert "does the server speak TLS on this port?" in str(told)
    assert told.__cause__ is error
