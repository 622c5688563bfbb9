"""Servers and options: read once, checked once, with one table of defaults."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import parse_qsl

from .constants import DEFAULT_GEARMAN_PORT

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

__all__ = [
    "ClientOptions",
    "ClientOptionsDict",
    "ServerAddress",
    "encode_name",
    "encode_task",
    "encode_unique",
    "make_ssl_context",
    "parse_server",
    "parse_servers",
    "servers_from_env",
]

#: gearmand takes a header and all arguments but the payload only if they fit into 8192 bytes together; this leaves room
#: for the unique, a reducer and the rest.
MAX_TASK_BYTES = 512

#: gearmand cuts a unique of 64 bytes and refuses longer ones.
MAX_UNIQUE_BYTES = 63

_POLICIES = ("random", "round_robin", "failover", "least_pending", "unique")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is.

    Attributes:
        host: Name or address.
        port: The port.
        ssl_context: For TLS; None for plain TCP.
        server_hostname: The name that the server's certificate must bear; the host if None.
    """

    host: str
    port: int = DEFAULT_GEARMAN_PORT
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    server_hostname: str | None = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def with_ssl(self, context: ssl.SSLContext) -> ServerAddress:
        """Return the same address with TLS, unless it has its own context."""
        return self if self.ssl_context is not None else dataclasses.replace(self, ssl_context=context)


def make_ssl_context(ca: str | None = None, cert: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return a TLS context that verifies the server: its certificate and its name, with TLS 1.2 or later.

    Args:
        ca: File of the certificate authorities; the system's if None.
        cert: File of the client's certificate, if the server wants one.
        key: File of its key; in ``cert`` if None.

    Raises:
        ValueError: a file cannot be read, or is not what it should be.
    """
    import ssl

    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert is not None:
            context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        # Neither the files' names nor their contents: the text may end in a log.
        reason = error.strerror or type(error).__name__
        raise ValueError(f"the TLS files (ca, cert, key) cannot be used: {reason}") from None
    return context


# ---- servers -------------------------------------------------------------------------------------------------------


def parse_server(item: Any) -> ServerAddress:
    """Return the address that ``item`` means.

    Args:
        item: ``"host"``, ``"host:port"``, ``"[::1]:4730"``, ``"::1"``, the same as bytes, ``(host, port)``, a
            `ServerAddress`, or python-gearman's dict of host, port, keyfile, certfile and ca_certs for TLS.

    Raises:
        ValueError, TypeError: it means none; the text says what to write.
    """
    if isinstance(item, ServerAddress):
        return item
    if isinstance(item, bytes):
        item = item.decode("utf-8", "replace")
    if isinstance(item, str):
        return _parse_text(item.strip())
    if isinstance(item, Mapping):
        return _parse_dict(item)
    if isinstance(item, (tuple, list)):
        if len(item) != 2:
            raise ValueError(f"a server has {len(item)} parts; write (host, port)")
        return ServerAddress(_host(item[0]), _port(item[1], str(item[0])))
    raise TypeError(f"a server is a {type(item).__name__}; write 'host:port', (host, port) or a dict of host and port")


def _parse_text(text: str) -> ServerAddress:
    if "@" in text:
        raise ValueError("a server must not have a user or password: Gearman knows none; write host:port")
    if "/" in text:
        raise ValueError(
            f"{text!r} is not a server; write host:port, or gearman://host:port/ as the whole of the servers"
        )
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not a server; write an IPv6 address and port as [::1]:4730")
        return ServerAddress(_host(host), _port(rest[1:], text) if rest else DEFAULT_GEARMAN_PORT)
    if text.count(":") > 1:
        return ServerAddress(_host(text))
    host, colon, port = text.partition(":")
    return ServerAddress(_host(host), _port(port, text) if colon else DEFAULT_GEARMAN_PORT)


def _parse_dict(item: Mapping[str, Any]) -> ServerAddress:
    unknown = set(item) - {"host", "port", "keyfile", "certfile", "ca_certs"}
    if unknown or "host" not in item:
        raise ValueError(
            f"a server's dict has host and perhaps port, keyfile, certfile, ca_certs; this one has {sorted(item)}"
        )
    context = None
    if any(item.get(name) for name in ("keyfile", "certfile", "ca_certs")):
        context = make_ssl_context(item.get("ca_certs"), item.get("certfile"), item.get("keyfile"))
    return ServerAddress(_host(item["host"]), _port(item.get("port", DEFAULT_GEARMAN_PORT), str(item["host"])), context)


def _host(host: Any) -> str:
    if isinstance(host, bytes):
        host = host.decode("utf-8", "replace")
    if not isinstance(host, str):
        raise TypeError(f"a server's host is a {type(host).__name__}; it must be a str")
    if not host or any(character.isspace() or character == "\0" for character in host):
        raise ValueError(f"{host!r} is not a host; write a name or an address")
    return host


def _port(port: Any, where: str) -> int:
    if isinstance(port, bool) or not isinstance(port, (int, str)):
        raise TypeError(f"the port of {where!r} is a {type(port).__name__}; it must be a number from 1 to 65535")
    if isinstance(port, str):
        port = int(port) if port.isascii() and port.isdigit() else 0
    if not 1 <= port <= 65535:
        raise ValueError(f"the port of {where!r} is not a number from 1 to 65535")
    return int(port)


def parse_servers(host_list: str | bytes | Iterable[Any] | None) -> tuple[tuple[ServerAddress, ...], dict[str, Any]]:
    """Return the servers of a list, of comma-separated text, or of a DSN, and the options that the DSN has.

    Raises:
        ValueError, TypeError: as `parse_server`; or a server stands there twice.
    """
    options: dict[str, Any] = {}
    if host_list is None:
        return (), options
    if isinstance(host_list, bytes):
        host_list = host_list.decode("utf-8", "replace")
    if isinstance(host_list, str):
        if "://" in host_list:
            host_list, options = _parse_dsn(host_list)
        else:
            host_list = [part for part in host_list.split(",") if part.strip()]
    elif isinstance(host_list, Mapping) or not isinstance(host_list, Iterable):
        raise TypeError(f"the servers are a {type(host_list).__name__}; write a list such as ['localhost:4730']")
    addresses = tuple(parse_server(item) for item in host_list)
    for number, address in enumerate(addresses):
        if address in addresses[:number]:
            raise ValueError(f"the server {address} stands in the list twice")
    return addresses, options


def _parse_dsn(dsn: str) -> tuple[list[ServerAddress], dict[str, Any]]:
    scheme, _, rest = dsn.partition("://")
    if scheme not in ("gearman", "gearmans"):
        raise ValueError("the servers' URL must start with gearman:// or, for TLS, gearmans://")
    place, _, query = rest.partition("?")
    hosts, _, path = place.partition("/")
    if "@" in place:
        raise ValueError("the servers' URL must not have a user or password: Gearman knows none")
    if path:
        raise ValueError("the servers' URL must not have a path; write gearman://host:port/?option=value")
    if not hosts:
        raise ValueError("the servers' URL names no server; write gearman://host:port/")
    options: dict[str, Any] = {}
    files: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        if name in ("ca", "cert", "key"):
            files[name] = value
        else:
            options[name] = _convert(name, value)
    addresses = [parse_server(part) for part in hosts.split(",")]
    if scheme == "gearmans":
        context = make_ssl_context(**files)
        addresses = [address.with_ssl(context) for address in addresses]
    elif files:
        raise ValueError("ca, cert and key are for TLS; write gearmans:// in place of gearman://")
    return addresses, options


def servers_from_env(environ: Mapping[str, str] | None = None) -> tuple[tuple[ServerAddress, ...], dict[str, Any]]:
    """Return the servers of ``GEARMAN_SERVERS``, with TLS if libgearman's TLS variables are set.

    Raises:
        ValueError: the variable is missing or not usable.
    """
    environ = os.environ if environ is None else environ
    text = environ.get("GEARMAN_SERVERS", "")
    if not text.strip():
        raise ValueError(
            "the environment variable GEARMAN_SERVERS is not set; write host:port, with commas between several"
        )
    addresses, options = parse_servers(text)
    names = ("GEARMAND_CA_CERTIFICATE", "GEARMAN_CLIENT_PEM", "GEARMAN_CLIENT_KEY")
    files = [environ.get(name) or None for name in names]
    if any(files):
        context = make_ssl_context(*files)
        addresses = tuple(address.with_ssl(context) for address in addresses)
    return addresses, options


# ---- options -------------------------------------------------------------------------------------------------------


class ClientOptionsDict(TypedDict, total=False):
    """The options of a client as keyword arguments; `ClientOptions` says what each means."""

    connect_timeout: float
    submit_timeout: float
    health_check_interval: float
    health_check_timeout: float
    max_retries: int
    policy: str | Callable[..., Any]
    connections_per_server: int
    max_in_flight: int
    max_outbound_bytes: int
    max_packet_size: int
    reconnect_backoff: tuple[float, float]
    lost_job_check: float
    prefix: str
    ssl_context: ssl.SSLContext | None
    data_encoder: Any
    listeners: Sequence[Any]
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """The options of a client, with their defaults. All durations are in seconds.

    Attributes:
        connect_timeout: For one attempt to connect, TLS included, after the name is resolved.
        submit_timeout: How long a job waits for a server, and `GearmanClient.submit` for room.
        health_check_interval: Between two ECHO_REQ on a connection.
        health_check_timeout: For the answer; without one the connection is given up.
        max_retries: How often a job is sent again when its connection is lost. It may then run twice.
        policy: ``"random"``, ``"round_robin"``, ``"failover"`` (the first that is up), ``"least_pending"``,
            ``"unique"`` (equal uniques on one server), or a callable of (servers, key) that returns one of the servers.
        connections_per_server: More than 1 helps only when large payloads keep small jobs waiting.
        max_in_flight: Jobs held at the same time; beyond, `submit` blocks.
        max_outbound_bytes: Bytes that wait to be sent; beyond, `submit` blocks.
        max_packet_size: The largest packet accepted from a server, in bytes.
        reconnect_backoff: The first and the longest upper bound of the random wait between two attempts to connect.
        lost_job_check: A job that is silent for so long is asked after at its server.
        prefix: Put before each task's name.
        ssl_context: For TLS with every server that has no context of its own.
        data_encoder: How payloads become bytes; the client's class attribute if None.
        listeners: Objects whose `Listener.handle` gets the events.
        name: Stands in the threads' names and in the client's repr.
    """

    connect_timeout: float = 5.0
    submit_timeout: float = 5.0
    health_check_interval: float = 5.0
    health_check_timeout: float = 3.0
    max_retries: int = 0
    policy: str | Callable[..., Any] = "random"
    connections_per_server: int = 1
    max_in_flight: int = 10_000
    max_outbound_bytes: int = 64 * 1024 * 1024
    max_packet_size: int = 128 * 1024 * 1024
    reconnect_backoff: tuple[float, float] = (0.1, 10.0)
    lost_job_check: float = 30.0
    prefix: str = ""
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)
    data_encoder: Any = None
    listeners: Sequence[Any] = ()
    name: str | None = None

    def __post_init__(self) -> None:
        for name in _DURATIONS:
            _check_duration(name, getattr(self, name))
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is {value!r}; it must be a whole number")
            if value < least:
                raise ValueError(f"{name} is {value!r}; it must be {least} or more")
        if isinstance(self.policy, str):
            if self.policy not in _POLICIES:
                raise ValueError(f"policy is {self.policy!r}; it must be one of {', '.join(_POLICIES)}, or a callable")
        elif not callable(self.policy):
            raise TypeError(
                f"policy is a {type(self.policy).__name__}; it must be one of {', '.join(_POLICIES)}, or a callable"
            )
        object.__setattr__(self, "reconnect_backoff", _backoff(self.reconnect_backoff))
        object.__setattr__(self, "listeners", tuple(self.listeners))
        encode_name(self.prefix, "prefix", MAX_TASK_BYTES)
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name is a {type(self.name).__name__}; it must be a str")

    @classmethod
    def merge(cls, first: Mapping[str, Any], second: Mapping[str, Any]) -> Self:
        """Return the options of both; what ``second`` has wins.

        Raises:
            TypeError: there is no such option.
            ValueError: a value is not allowed.
        """
        values = {**first, **second}
        names = [option.name for option in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"
                raise TypeError(f"there is no option {name!r}{hint}")
        return cls(**values)


_DURATIONS = ("connect_timeout", "submit_timeout", "health_check_interval", "health_check_timeout", "lost_job_check")
_COUNTS = {
    "max_retries": 0,
    "connections_per_server": 1,
    "max_in_flight": 1,
    "max_outbound_bytes": 1,
    "max_packet_size": 1,
}


def _check_duration(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}; it must be a number of seconds")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} is {value!r}; it must be a finite number of seconds above 0")


def _backoff(value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"reconnect_backoff is {value!r}; it must be a pair of seconds, such as (0.1, 10.0)")
    for part in value:
        _check_duration("reconnect_backoff", part)
    if value[0] > value[1]:
        raise ValueError(f"reconnect_backoff is {value!r}; the first must not be more than the second")
    return float(value[0]), float(value[1])


def _convert(name: str, text: str) -> Any:
    """Return an option's value from its text in a DSN."""
    if name in ("ssl_context", "data_encoder", "listeners"):
        raise ValueError(f"{name} cannot stand in the servers' URL; give it to GearmanClient")
    try:
        if name in _COUNTS:
            return int(text)
        if name in _DURATIONS:
            return float(text)
        if name == "reconnect_backoff":
            first, _, longest = text.partition(",")
            return float(first), float(longest)
    except ValueError:
        raise ValueError(f"{name} is {text!r} in the servers' URL; it must be a number") from None
    return text


# ---- names on the wire ---------------------------------------------------------------------------------------------


def encode_name(value: Any, what: str, longest: int) -> bytes:
    """Return a name as UTF-8.

    Raises:
        TypeError: it is neither str nor bytes.
        ValueError: it holds a NUL byte or is too long.
    """
    if isinstance(value, str):
        try:
            encoded = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError(f"{what} cannot be written in UTF-8") from None
    elif isinstance(value, (bytes, bytearray)):
        encoded = bytes(value)
    else:
        raise TypeError(f"{what} is a {type(value).__name__}; it must be str or bytes")
    if b"\0" in encoded:
        raise ValueError(f"{what} must not hold a NUL byte: it would shift what follows it")
    if len(encoded) > longest:
        raise ValueError(f"{what} has {len(encoded)} bytes; it may have {longest}")
    return encoded


def encode_task(task: Any, prefix: str = "") -> bytes:
    """Return a task's name for the wire, behind the prefix.

    Raises:
        TypeError, ValueError: it is no name, is empty, or is too long.
    """
    encoded = encode_name(task, "the task's name", MAX_TASK_BYTES)
    if not encoded:
        raise ValueError("the task's name is empty")
    return prefix.encode() + encoded


def encode_unique(unique: Any) -> bytes:
    """Return a job's unique for the wire.

    Raises:
        TypeError, ValueError: it is none, is empty, or is longer than the 63 bytes that the server keeps.
    """
    encoded = encode_name(unique, "unique", MAX_UNIQUE_BYTES)
    if not encoded:
        raise ValueError("unique is empty; leave it out to have one made")
    return encoded
