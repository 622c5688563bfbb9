"""One server's address: what is taken, what is refused, what the refusal says, and TLS with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool.options import (
    ServerAddress,
    make_ssl_context,
    parse_server,
    parse_servers,
)

from .values import HOSTS, PORTS, SECRET, assert_verifies


@given(HOSTS, PORTS)
def test_text_of_an_address_is_read_back_as_the_same_address(host: str, port: int) -> None:
    address = ServerAddress(host, port)
    assert parse_server(str(address)) == address
    assert parse_server(str(address).encode()) == address
    assert parse_server((host, port)) == address
    assert parse_server([host.encode(), str(port)]) == address
    assert parse_server({"host": host, "port": port}) == address
    assert parse_server(address) is address


@given(HOSTS)
def test_host_without_a_port_gets_gearmans_port(host: str) -> None:
    assert parse_server(host) == parse_server({"host": host}) == ServerAddress(host, 4730)


@given(st.text() | st.binary())
def test_any_text_is_either_an_address_or_a_value_error(text: str | bytes) -> None:
    try:
        address = parse_server(text)
    except ValueError:
        return
    assert parse_server(str(address)) == address


@pytest.mark.parametrize("item", ["[::1]", "::1", " ::1 ", "[::1]:4730"])
def test_ipv6_is_taken_with_and_without_brackets(item: str) -> None:
    assert parse_server(item) == ServerAddress("::1", 4730)
    assert str(parse_server(item)) == "[::1]:4730"


@pytest.mark.parametrize(
    "item",
    [
        "",
        " ",
        ":4730",
        "h:",
        "h:0",
        "h:65536",
        "h:-1",
        "h:+1",
        "h:1_0",
        "h:٤٧٣٠",
        "h:" + "9" * 5000,
        "h x",
        "h\0",
        "h\n:4730",
        "h/x",
        "h#x",
        "h%eth0",
        "a:b:c",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[h]:4730",
        "[]",
        "gearman://h",
        b"\xff",
        ("h",),
        ("h", 4730, 1),
        ("h:1", 4730),
        ("a,b", 4730),
        ("", 4730),
        ("h", 0),
        ("h", "x"),
        {},
        {"port": 4730},
        {"host": "h", "user": "x"},
        {"host": "h", 5: "x"},
    ],
)
def test_server_that_cannot_be_one_is_refused(item: Any) -> None:
    with pytest.raises(ValueError):
        parse_server(item)


@pytest.mark.parametrize("item", [None, 5, 4.5, {"h"}, (5, 4730), ("h", None), ("h", True), ("h", 1.5), {"host": None}])
def test_server_of_the_wrong_type_is_refused_as_such(item: Any) -> None:
    with pytest.raises(TypeError):
        parse_server(item)


@pytest.mark.parametrize("wrong", [{"host": ""}, {"host": "h", "port": 0}, {"host": "h", "server_hostname": "a b"}])
def test_address_made_by_hand_is_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ServerAddress(**wrong)


@pytest.mark.parametrize("wrong", [{"host": b"h"}, {"host": "h", "port": "1"}, {"host": "h", "ssl_context": True}])
def test_address_made_by_hand_of_wrong_types_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        ServerAddress(**wrong)


def test_addresses_that_differ_only_in_their_tls_context_are_equal() -> None:
    plain, secure = ServerAddress("h"), ServerAddress("h", ssl_context=make_ssl_context())
    assert plain == secure
    assert hash(plain) == hash(secure)
    assert repr(plain) == repr(secure)


# ---- TLS -----------------------------------------------------------------------------------------------------------


def test_tls_context_verifies_against_the_systems_authorities_by_default() -> None:
    assert_verifies(make_ssl_context())


def test_tls_context_with_an_authority_of_ones_own_trusts_no_other(files: dict[str, str]) -> None:
    context = make_ssl_context(**files)
    assert_verifies(context)
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize("wrong", ["ca", "cert", "key"])
def test_tls_file_that_cannot_be_used_is_refused_without_its_name(files: dict[str, str], wrong: str) -> None:
    with open(files[wrong], "w") as file:
        file.write("no PEM")
    for path in (files[wrong], files[wrong] + ".missing"):
        with pytest.raises(ValueError, match="cannot be used") as caught:
            make_ssl_context(**{**files, wrong: path})
        assert SECRET not in str(caught.value)
        assert caught.value.__cause__ is None


def test_key_of_another_certificate_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("other.example.org").private_key_pem.write_to_path(other)
    with pytest.raises(ValueError, match="cannot be used"):
        make_ssl_context(cert=files["cert"], key=str(other))


def test_encrypted_key_is_refused_instead_of_asking_for_its_password(files: dict[str, str]) -> None:
    serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    path = Path(files["key"])
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(SECRET.encode())
    formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(*formats, encryption))
    with pytest.raises(ValueError, match="encrypted"):
        make_ssl_context(**files)


def test_key_without_a_certificate_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="certificate"):
        make_ssl_context(key=files["key"])


def test_servers_own_context_is_kept_when_there_is_one_for_all(files: dict[str, str]) -> None:
    (address,), _ = parse_servers([{"host": "h", "ca_certs": files["ca"]}])
    assert_verifies(address.ssl_context)
    assert address.with_ssl(make_ssl_context()) is address


def test_python_gearmans_tls_dict_turns_tls_on(files: dict[str, str]) -> None:
    item = {"host": "h", "port": 4731, "keyfile": files["key"], "certfile": files["cert"], "ca_certs": files["ca"]}
    address = parse_server(item)
    assert address == ServerAddress("h", 4731)
    assert_verifies(address.ssl_context)
    for name in ("keyfile", "certfile", "ca_certs"):
        with pytest.raises(ValueError):
            parse_server({**item, name: ""})


def test_tls_dict_without_any_file_means_plain_tcp() -> None:
    assert parse_server({"host": "h", "keyfile": None, "certfile": None, "ca_certs": None}).ssl_context is None
