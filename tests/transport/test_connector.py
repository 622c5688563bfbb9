"""Attempts to connect, with real sockets."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from gearman_pool.errors import ConnectionError as GearmanConnectionError
from gearman_pool.errors import TLSError
from gearman_pool.options import ServerAddress
from gearman_pool.transport.connector import connect

from ..faults.tls import TLSFiles, listening
from ..support.gearmand import free_port


@pytest.fixture(params=["first", "second"])
def two_addresses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have "two.example.org" mean two addresses, tried with 127.0.0.1 as the first or as the second of them."""
    real = socket.getaddrinfo
    hosts = ["127.0.0.1", "127.0.0.2"] if request.param == "first" else ["127.0.0.2", "127.0.0.1"]

    def getaddrinfo(host: str, *arguments: object, **options: object) -> list[object]:
        names = hosts if host == "two.example.org" else [host]
        return [entry for name in names for entry in real(name, *arguments, **options)]  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("random.shuffle", lambda addresses: None)


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.usefixtures("two_addresses")
def test_name_is_connected_whichever_of_its_addresses_listens() -> None:
    with listening(lambda sock: sock.sendall(b"welcome")) as address:
        sock = connect(ServerAddress("two.example.org", _port(address)), 10.0)
        with sock:
            assert sock.getpeername()[0] == "127.0.0.1"


@pytest.mark.usefixtures("two_addresses")
def test_name_of_which_no_address_listens_is_refused() -> None:
    with pytest.raises(GearmanConnectionError, match="Connection refused"):
        connect(ServerAddress("two.example.org", free_port()), 10.0)


@pytest.mark.usefixtures("two_addresses")
def test_certificate_that_was_refused_is_told_though_nobody_listens_on_the_names_other_address(tmp_path: Path) -> None:
    tls = TLSFiles.issue(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.server.configure_cert(context)

    def shake_hands(sock: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(sock, server_side=True)

    with listening(shake_hands) as address:
        asked = ServerAddress("two.example.org", _port(address), tls.context())
        with pytest.raises(TLSError, match="Hostname mismatch"):
            connect(asked, 10.0)
