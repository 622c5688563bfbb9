"""Lists of servers, DSNs and the environment: what is taken, what is refused, and what the refusal says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool.options import (
    ClientOptions,
    ServerAddress,
    make_ssl_context,
    parse_servers,
    servers_from_env,
)

from .values import NAMES, PORTS, SECRET, assert_verifies

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


def test_secure_dsn_gives_every_server_tls(files: dict[str, str]) -> None:
    query = "&".join(f"{name}={path}" for name, path in files.items())
    addresses, options = parse_servers(f"gearmans://h1,h2/?{query}&max_retries=1")
    for address in addresses:
        assert_verifies(address.ssl_context)
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
        assert_verifies(address.ssl_context)
        assert options == {"ssl_context": address.ssl_context}


@pytest.mark.parametrize("name", ["GEARMAND_CA_CERTIFICATE", "GEARMAN_CLIENT_PEM", "GEARMAN_CLIENT_KEY"])
def test_tls_variable_that_is_empty_does_not_fall_back_to_plain_tcp(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        servers_from_env({"GEARMAN_SERVERS": "h", name: ""})
