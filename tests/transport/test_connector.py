"""One attempt to connect: names with several addresses, the time that it may take, and the socket that comes of it."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionError, ConnectTimeout, TLSError  # noqa: A004
from gearman_pool.options import ServerAddress
from gearman_pool.transport.connector import connect

from ..faults.tls import TLSFiles
from ..support.gearmand import free_port
from ..support.hanging import deaf_port
from ..support.raw import RawConnection
from ..support.scripted import SocketServer


@contextlib.contextmanager
def listeners(count: int) -> Iterator[list[tuple[str, int]]]:
    """Where somebody listens."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100)).getsockname() for _ in range(count)
        ]


@pytest.fixture
def resolve(monkeypatch):
    """A function that says what the name "several.example" stands for: addresses that differ by their ports."""

    def set_up(*endpoints: tuple[str, int]) -> ServerAddress:
        real = socket.getaddrinfo

        def getaddrinfo(host: str, *arguments: object, **options: object) -> object:
            if host != "several.example":
                return real(host, *arguments, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", endpoint) for endpoint in endpoints]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return ServerAddress("several.example", 4730)

    return set_up


def test_address_that_answers_is_found_among_those_that_refuse(resolve):
    with listeners(1) as (live,):
        address = resolve(("127.0.0.1", free_port()), live, ("127.0.0.1", free_port()))
        for _ in range(20):
            with connect(address, 10) as sock:
                assert sock.getpeername() == live


def test_addresses_of_a_name_are_used_in_random_order(resolve):
    """Or all clients of a service would go to its first server, and the others would idle."""
    with listeners(2) as live:
        address = resolve(*live)
        peers = set()
        for _ in range(50):
            with connect(address, 10) as sock:
                peers.add(sock.getpeername())
        assert peers == set(live)


def test_random_numbers_of_the_program_do_not_depend_on_the_connections_made(resolve):
    with listeners(2) as live:
        address = resolve(*live)
        before = random.getstate()
        connect(address, 10).close()
        assert random.getstate() == before


def test_last_error_is_told_if_no_address_of_the_name_answers(resolve):
    address = resolve(("127.0.0.1", free_port()), ("127.0.0.1", free_port()))
    with pytest.raises(ConnectionError, match=r"several\.example:4730: cannot connect"):
        connect(address, 10)


def test_addresses_that_hang_share_one_time_limit(resolve):
    opened: list[socket.socket] = []
    with deaf_port() as deaf:
        host, _, port = deaf.rpartition(":")
        address = resolve(*[(host, int(port))] * 5)
        with pytest.raises(ConnectTimeout, match=r"connect_timeout \(0.3 s\)"):
            connect(address, 0.3, opened.append)
    # The first one takes it all, but for what is lost by rounding.
    assert 1 <= len(opened) <= 2
    assert all(sock.fileno() < 0 for sock in opened)


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


def test_socket_sends_at_once_and_is_probed_while_it_idles():
    with listeners(1) as (live,), connect(ServerAddress(*live), 10) as sock:
        assert sock.gettimeout() == 0.0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            # Before middleboxes drop it, which is usual after 5 minutes.
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 240


def test_anything_unforeseen_in_an_attempt_is_its_outcome(gearmand, monkeypatch):
    """The I/O thread waits for one, and tries again."""
    real, calls = socket.getaddrinfo, []

    def getaddrinfo(*arguments: object, **options: object) -> object:
        calls.append(arguments)
        if len(calls) <= 2:
            raise MemoryError("in the resolver")
        return real(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with GearmanClient([gearmand.address], reconnect_backoff=(0.01, 0.1)) as client:
        assert client.submit_background("x").result(10).server == gearmand.address
        assert client.stats().connections_failed == 2


@pytest.fixture(params=["first", "second"])
def two_addresses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have "two.example.org" mean two addresses, tried with 127.0.0.1 as the first or as the second of them."""
    real = socket.getaddrinfo
    hosts = ["127.0.0.1", "127.0.0.2"] if request.param == "first" else ["127.0.0.2", "127.0.0.1"]

    def getaddrinfo(host: str, *arguments: object, **options: object) -> list[object]:
        names = hosts if host == "two.example.org" else [host]
        return [entry for name in names for entry in real(name, *arguments, **options)]  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("random.Random.shuffle", lambda self, addresses: None)


@pytest.mark.usefixtures("two_addresses")
def test_certificate_that_was_refused_is_told_though_nobody_listens_on_the_names_other_address(tmp_path: Path) -> None:
    tls = TLSFiles.issue(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.server.configure_cert(context)

    def shake_hands(connection: RawConnection) -> None:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(connection.sock, server_side=True)

    with SocketServer(shake_hands) as server:
        asked = ServerAddress("two.example.org", server.port, tls.context())
        with pytest.raises(TLSError, match="Hostname mismatch"):
            connect(asked, 10.0)
