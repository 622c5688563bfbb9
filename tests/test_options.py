"""Servers, DSNs, the environment and options: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

import dataclasses
import ssl
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool.encoders import BytesEncoder, JSONEncoder
from gearman_pool.events import Listener
from gearman_pool.options import (
    LONGEST_DURATION,
    MAX_TASK_BYTES,
    MAX_UNIQUE_BYTES,
    ClientOptions,
    ClientOptionsDict,
    ServerAddress,
    encode_name,
    encode_task,
    encode_unique,
    make_ssl_context,
    parse_server,
    parse_servers,
    servers_from_env,
)
from gearman_pool.transport.policies import POLICIES

SECRET = "hunter2"

NAMES = st.from_regex(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?", fullmatch=True)
IPV6 = st.builds(lambda number: str(IPv6Address(number)), st.integers(0, 2**128 - 1))
HOSTS = NAMES | IPV6 | st.builds(lambda host: host + "%eth0", IPV6)
PORTS = st.integers(1, 65535)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A CA, and a client's certificate and key, as files."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    client = authority.issue_cert("client.example.org")
    paths = {name: str(tmp_path / f"{SECRET}-{name}+file.pem") for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    client.cert_chain_pems[0].write_to_path(paths["cert"])
    client.private_key_pem.write_to_path(paths["key"])
    return paths


# ---- one server ----------------------------------------------------------------------------------------------------


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


# ---- several servers -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(NAMES, PORTS), min_size=1, unique_by=lambda pair: (pair[0].lower(), pair[1])))
def test_list_text_and_dsn_name_the_same_servers_in_the_same_order(pairs: list[tuple[str, int]]) -> None:
    addresses = tuple(ServerAddress(host, port) for host, port in pairs)
    text = ",".join(map(str, addresses))
    assert parse_servers(pairs) == (addresses, {})
    assert parse_servers(text) == (addresses, {})
    assert parse_servers(text.encode()) == (addresses, {})
    assert parse_servers(f"gearman://{text}") == (addresses, {})
    assert parse_servers(f"GEARMAN://{text}/") == (addresses, {})
    assert parse_servers(iter(addresses)) == (addresses, {})


def test_no_servers_may_be_given() -> None:
    assert parse_servers(None) == parse_servers([]) == ((), {})


@pytest.mark.parametrize("text", ["h1, h2", " h1,h2 ", "h1,h2,", "h1,,h2"])
def test_spaces_and_stray_commas_between_servers_are_allowed(text: str) -> None:
    assert parse_servers(text)[0] == (ServerAddress("h1"), ServerAddress("h2"))


@pytest.mark.parametrize("text", ["", " ", ",", "gearman://", "gearman:///?max_retries=1"])
def test_text_that_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no server"):
        parse_servers(text)


@pytest.mark.parametrize(
    "servers",
    [
        ["h", "h:4730"],
        ["h", "H"],
        "h,h",
        "gearman://h,h",
        ["::1", "0:0::1"],
        [("h", 4730), {"host": "h", "port": 4730}],
    ],
)
def test_server_that_is_named_twice_is_refused(servers: Any) -> None:
    with pytest.raises(ValueError, match="twice"):
        parse_servers(servers)


def test_one_host_with_several_ports_or_zones_is_several_servers() -> None:
    assert len(parse_servers("h:1,h:2,fe80::1%eth0,fe80::1%eth1")[0]) == 4


@pytest.mark.parametrize("servers", [5, {"host": "h"}, ("h", 4730)])
def test_one_server_that_is_not_in_a_list_is_refused_with_the_way_to_write_it(servers: Any) -> None:
    with pytest.raises(TypeError, match=r"write (a list such as )?\["):
        parse_servers(servers)


# ---- DSN -----------------------------------------------------------------------------------------------------------


def test_dsn_names_servers_and_options_with_their_types() -> None:
    addresses, options = parse_servers(
        "gearman://h1:4731,h2,[::1]:4732/?policy=failover&max_retries=2&connect_timeout=1.5&reconnect_backoff=0.5,20"
        "&prefix=a%20b+c%26&name=web"
    )
    assert addresses == (ServerAddress("h1", 4731), ServerAddress("h2"), ServerAddress("::1", 4732))
    assert options == {
        "policy": "failover",
        "max_retries": 2,
        "connect_timeout": 1.5,
        "reconnect_backoff": (0.5, 20.0),
        "prefix": "a b+c&",
        "name": "web",
    }
    assert type(options["max_retries"]) is int
    assert ClientOptions.merge(options, {}).policy == "failover"


@pytest.mark.parametrize(
    "dsn",
    [
        "http://h",
        "gearman://h/path",
        "gearman://h#fragment",
        "gearman://h?max_retries",
        "gearman://h?max_retries=",
        "gearman://h?max_retries=two",
        "gearman://h?max_retries=1.5",
        "gearman://h?connect_timeout=soon",
        "gearman://h?reconnect_backoff=1",
        "gearman://h?max_retries=1&max_retries=2",
        "gearman://h?max_retries=1&",
        "gearman://h?ssl_context=x",
        "gearman://h?data_encoder=x",
        "gearman://h?listeners=x",
        "gearman://h1,,h2",
        "gearman://h?ca=x",
        "gearmans://h?ca=",
        "gearmans://h?key=x",
    ],
)
def test_dsn_that_cannot_be_one_is_refused(dsn: str) -> None:
    with pytest.raises(ValueError):
        parse_servers(dsn)


def test_unknown_option_of_a_dsn_is_refused_with_the_name_that_was_meant() -> None:
    _, options = parse_servers("gearman://h/?max_retry=1")
    with pytest.raises(TypeError, match="did you mean max_retries"):
        ClientOptions.merge(options, {})


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "0", "1e400"])
def test_duration_in_a_dsn_is_held_to_the_same_limits(value: str) -> None:
    _, options = parse_servers(f"gearman://h/?connect_timeout={value}")
    with pytest.raises(ValueError, match="connect_timeout"):
        ClientOptions.merge(options, {})


@pytest.mark.parametrize(
    "servers",
    [
        f"user:{SECRET}@h",
        f"h1,user:{SECRET}@h",
        f"user:{SECRET},{SECRET}@h",
        f"gearman://user:{SECRET}@h",
        f"gearman://user:{SECRET}/{SECRET}@h",
        f"gearman://user:{SECRET}?{SECRET}@h",
        f"gearman://user:{SECRET}?{SECRET}=1&{SECRET}@h",
        f"gearman://user:{SECRET}#{SECRET}@h",
        f"gearman://user:{SECRET}%40h",
        f"http://user:{SECRET}@h",
        [f"user:{SECRET}@h"],
        [f"gearman://user:{SECRET}@h"],
        [(f"user:{SECRET}@h", 4730)],
        [("h", SECRET)],
        [{"host": f"user:{SECRET}@h"}],
        [{"host": "h", "password": SECRET}],
    ],
)
def test_password_is_refused_and_never_shown(servers: Any) -> None:
    with pytest.raises(ValueError) as caught:
        parse_servers(servers)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


# ---- TLS -----------------------------------------------------------------------------------------------------------


def _assert_verifies(context: ssl.SSLContext | None) -> None:
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_tls_context_verifies_against_the_systems_authorities_by_default() -> None:
    _assert_verifies(make_ssl_context())


def test_tls_context_with_an_authority_of_ones_own_trusts_no_other(files: dict[str, str]) -> None:
    context = make_ssl_context(**files)
    _assert_verifies(context)
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


def test_secure_dsn_gives_every_server_tls(files: dict[str, str]) -> None:
    query = "&".join(f"{name}={path}" for name, path in files.items())
    addresses, options = parse_servers(f"gearmans://h1,h2/?{query}&max_retries=1")
    for address in addresses:
        _assert_verifies(address.ssl_context)
    assert options == {"ssl_context": addresses[0].ssl_context, "max_retries": 1}
    assert SECRET not in repr(addresses) + str(addresses) + repr(ClientOptions.merge(options, {}))


def test_context_given_as_a_keyword_wins_over_the_dsns() -> None:
    mine = make_ssl_context()
    addresses, dsn_options = parse_servers("gearmans://h")
    options = ClientOptions.merge(dsn_options, {"ssl_context": mine})
    assert options.ssl_context is mine
    address = addresses[0].with_ssl(mine)
    assert address.ssl_context is mine
    assert address.with_ssl(make_ssl_context()).ssl_context is mine


def test_servers_own_context_is_kept_when_there_is_one_for_all(files: dict[str, str]) -> None:
    (address,), _ = parse_servers([{"host": "h", "ca_certs": files["ca"]}])
    _assert_verifies(address.ssl_context)
    assert address.with_ssl(make_ssl_context()) is address


def test_python_gearmans_tls_dict_turns_tls_on(files: dict[str, str]) -> None:
    item = {"host": "h", "port": 4731, "keyfile": files["key"], "certfile": files["cert"], "ca_certs": files["ca"]}
    address = parse_server(item)
    assert address == ServerAddress("h", 4731)
    _assert_verifies(address.ssl_context)
    for name in ("keyfile", "certfile", "ca_certs"):
        with pytest.raises(ValueError):
            parse_server({**item, name: ""})


def test_tls_dict_without_any_file_means_plain_tcp() -> None:
    assert parse_server({"host": "h", "keyfile": None, "certfile": None, "ca_certs": None}).ssl_context is None


# ---- environment ---------------------------------------------------------------------------------------------------


def test_servers_are_read_from_libgearmans_variable() -> None:
    addresses, options = servers_from_env({"GEARMAN_SERVERS": " h1:4731, h2 "})
    assert addresses == (ServerAddress("h1", 4731), ServerAddress("h2"))
    assert options == {}
    assert all(address.ssl_context is None for address in addresses)


def test_environment_of_the_process_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEARMAN_SERVERS", "h1")
    for name in ("GEARMAND_CA_CERTIFICATE", "GEARMAN_CLIENT_PEM", "GEARMAN_CLIENT_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert servers_from_env() == ((ServerAddress("h1"),), {})


@pytest.mark.parametrize("environ", [{}, {"GEARMAN_SERVERS": ""}, {"GEARMAN_SERVERS": "gearman://h"}])
def test_environment_without_usable_servers_is_refused_by_the_variables_name(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="GEARMAN_SERVERS"):
        servers_from_env(environ)


def test_any_of_libgearmans_tls_variables_turns_tls_on(files: dict[str, str]) -> None:
    names = {"GEARMAND_CA_CERTIFICATE": "ca", "GEARMAN_CLIENT_PEM": "cert", "GEARMAN_CLIENT_KEY": "key"}
    everything = {name: files[file] for name, file in names.items()}
    for environ in (everything, {"GEARMAND_CA_CERTIFICATE": files["ca"]}):
        (address,), options = servers_from_env({"GEARMAN_SERVERS": "h", **environ})
        _assert_verifies(address.ssl_context)
        assert options == {"ssl_context": address.ssl_context}


@pytest.mark.parametrize("name", ["GEARMAND_CA_CERTIFICATE", "GEARMAN_CLIENT_PEM", "GEARMAN_CLIENT_KEY"])
def test_tls_variable_that_is_empty_does_not_fall_back_to_plain_tcp(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        servers_from_env({"GEARMAN_SERVERS": "h", name: ""})


# ---- options -------------------------------------------------------------------------------------------------------

DURATIONS = ["connect_timeout", "submit_timeout", "health_check_interval", "health_check_timeout", "lost_job_check"]
COUNTS = ["max_retries", "connections_per_server", "max_in_flight", "max_outbound_bytes", "max_packet_size"]


def test_defaults_are_the_documented_ones() -> None:
    assert dataclasses.asdict(ClientOptions()) == {
        "connect_timeout": 5.0,
        "submit_timeout": 5.0,
        "health_check_interval": 5.0,
        "health_check_timeout": 3.0,
        "max_retries": 0,
        "policy": "random",
        "connections_per_server": 1,
        "max_in_flight": 10_000,
        "max_outbound_bytes": 64 * 1024 * 1024,
        "max_packet_size": 128 * 1024 * 1024,
        "reconnect_backoff": (0.1, 10.0),
        "lost_job_check": 30.0,
        "prefix": "",
        "ssl_context": None,
        "data_encoder": None,
        "listeners": (),
        "name": None,
    }


def test_keyword_arguments_are_typed_for_every_option_and_no_other() -> None:
    assert tuple(ClientOptionsDict.__annotations__) == ClientOptions.field_names()
    types = {name: hint.__forward_arg__ for name, hint in ClientOptionsDict.__annotations__.items()}
    assert types == {option.name: option.type for option in dataclasses.fields(ClientOptions)}


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [0, -1, 0.0, float("nan"), float("inf"), LONGEST_DURATION * 2, 10**400])
def test_duration_out_of_range_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        ClientOptions(**{name: value})


@pytest.mark.parametrize("name", DURATIONS + COUNTS)
@pytest.mark.parametrize("value", [None, "5", True, [1]])
def test_number_of_the_wrong_type_is_refused_by_its_name(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=name):
        ClientOptions(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_count_out_of_range_is_refused_by_its_name(name: str) -> None:
    least = 0 if name == "max_retries" else 1
    lowest: dict[str, Any] = {name: least}
    assert getattr(ClientOptions(**lowest), name) == least
    below: dict[str, Any] = {name: least - 1}
    with pytest.raises(ValueError, match=name):
        ClientOptions(**below)


@pytest.mark.parametrize("name", COUNTS)
def test_count_that_is_a_float_is_refused_by_its_name(name: str) -> None:
    fraction: dict[str, Any] = {name: 1.0}
    with pytest.raises(TypeError, match=name):
        ClientOptions(**fraction)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_policy_there_is_can_be_chosen(policy: str) -> None:
    assert ClientOptions(policy=policy).policy == policy


def test_policy_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValueError) as caught:
        ClientOptions(policy="fastest")
    assert all(name in str(caught.value) for name in POLICIES)
    with pytest.raises(TypeError, match="policy"):
        ClientOptions(policy=None)  # type: ignore[arg-type]


def test_policy_may_be_a_callable() -> None:
    def first(servers: Any, key: Any) -> Any:
        return servers[0]

    assert ClientOptions(policy=first).policy is first


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), 1, "12", None, ("1", "2")])
def test_backoff_that_is_no_pair_of_numbers_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="reconnect_backoff"):
        ClientOptions(reconnect_backoff=value)


@pytest.mark.parametrize("value", [(2, 1), (0, 1), (-1, 1), (1, float("inf"))])
def test_backoff_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="reconnect_backoff"):
        ClientOptions(reconnect_backoff=value)


def test_lists_are_taken_and_become_tuples() -> None:
    listener = Listener()
    options = ClientOptions(reconnect_backoff=[1, 2], listeners=[listener])  # type: ignore[arg-type]
    assert options.reconnect_backoff == (1.0, 2.0)
    assert options.listeners == (listener,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"listeners": Listener()},
        {"listeners": [Listener]},
        {"listeners": [print]},
        {"listeners": "ab"},
        {"listeners": None},
        {"ssl_context": True},
        {"ssl_context": "ca.pem"},
        {"data_encoder": "json"},
        {"data_encoder": print},
        {"prefix": b"x"},
        {"prefix": None},
        {"name": 5},
    ],
)
def test_object_of_the_wrong_type_is_refused_by_its_options_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(wrong))):
        ClientOptions(**wrong)


@pytest.mark.parametrize("encoder", [BytesEncoder, JSONEncoder, JSONEncoder()])
def test_encoder_may_be_a_class_or_an_instance(encoder: Any) -> None:
    assert ClientOptions(data_encoder=encoder).data_encoder is encoder


@pytest.mark.parametrize("prefix", ["a\0", "x" * MAX_TASK_BYTES, "\ud800"])
def test_prefix_that_cannot_stand_before_a_task_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        ClientOptions(prefix=prefix)


def test_keyword_wins_over_the_dsn() -> None:
    options = ClientOptions.merge({"max_retries": 2, "policy": "failover"}, {"max_retries": 0})
    assert options.max_retries == 0
    assert options.policy == "failover"


def test_unknown_option_is_refused_with_the_name_that_was_meant_or_all_there_are() -> None:
    with pytest.raises(TypeError, match="did you mean submit_timeout"):
        ClientOptions.merge({}, {"submit_timout": 1})
    with pytest.raises(TypeError) as caught:
        ClientOptions.merge({}, {"zzz": 1})
    assert all(name in str(caught.value) for name in ClientOptions.field_names())


# ---- names on the wire ---------------------------------------------------------------------------------------------

ENCODERS: list[tuple[Callable[[Any], bytes], int]] = [(encode_task, MAX_TASK_BYTES), (encode_unique, MAX_UNIQUE_BYTES)]


@pytest.mark.parametrize(("encode", "longest"), ENCODERS)
@given(data=st.data())
def test_name_goes_to_the_wire_as_it_is_or_is_refused(
    encode: Callable[[Any], bytes], longest: int, data: st.DataObject
) -> None:
    name = data.draw(st.binary(max_size=longest + 10))
    if 0 < len(name) <= longest and b"\0" not in name:
        assert encode(name) == name
        # What the wire brought as text that was no UTF-8 goes back unchanged.
        assert encode(name.decode("utf-8", "surrogateescape")) == name
    else:
        with pytest.raises(ValueError):
            encode(name)


@pytest.mark.parametrize(("encode", "longest"), ENCODERS)
def test_longest_name_is_counted_in_bytes(encode: Callable[[Any], bytes], longest: int) -> None:
    assert len(encode("x" * longest)) == longest
    for name in ("x" * (longest + 1), "ü" * (longest // 2 + 1)):
        with pytest.raises(ValueError, match=f"it may have {longest}"):
            encode(name)


@pytest.mark.parametrize(("encode", "longest"), [(encode_task, 512), (encode_unique, 63)])
def test_longest_names_are_those_that_the_documents_promise(encode: Callable[[Any], bytes], longest: int) -> None:
    assert encode("x" * longest) == b"x" * longest
    with pytest.raises(ValueError, match=f"has {longest + 1} bytes"):
        encode("x" * (longest + 1))


@pytest.mark.parametrize("encode", [encode_task, encode_unique])
@pytest.mark.parametrize("name", ["", b"", "a\0b", b"\0", "\ud800"])
def test_name_that_would_break_the_packet_is_refused(encode: Callable[[Any], bytes], name: Any) -> None:
    with pytest.raises(ValueError):
        encode(name)


@pytest.mark.parametrize("encode", [encode_task, encode_unique])
@pytest.mark.parametrize("name", [None, 5, ["a"], object()])
def test_name_of_the_wrong_type_is_refused(encode: Callable[[Any], bytes], name: Any) -> None:
    with pytest.raises(TypeError, match=type(name).__name__):
        encode(name)


def test_prefix_and_task_share_the_limit() -> None:
    assert encode_task("resize", "staging.") == b"staging.resize"
    assert encode_task(b"x" * 500, "p" * 12) == b"p" * 12 + b"x" * 500
    with pytest.raises(ValueError, match="prefix"):
        encode_task("x" * 500, "p" * 13)


def test_empty_name_is_left_to_the_caller_of_encode_name() -> None:
    assert encode_name("", "the client id", 127) == b""


def test_ssl_is_not_imported_until_tls_is_asked_for() -> None:
    program = (
        "import sys, types; package = types.ModuleType('gearman_pool'); package.__path__ = sys.argv[1:];"
        "sys.modules['gearman_pool'] = package; import gearman_pool.options as options;"
        "options.ClientOptions(); options.parse_servers('gearman://h'); print('ssl' in sys.modules)"
    )
    package = str(Path(sys.modules["gearman_pool"].__path__[0]))
    done = subprocess.run(
        [sys.executable, "-c", program, package], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "False"
