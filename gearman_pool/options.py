"""Servers and options: read once, checked once, with one table of defaults."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

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

#: Seconds. The system takes at most 2**31 ms where it waits for sockets; this is eleven days, and a round number.
LONGEST_DURATION = 1_000_000.0

_POLICIES = ("random", "round_robin", "failover", "least_pending", "unique")


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is. Its text is ``"host:port"``, or ``"[::1]:4730"``, which `parse_server` reads back.

    Attributes:
        host: A name, or an IPv4 or IPv6 address (without brackets).
        port: The TCP port, 1 to 65535.
        ssl_context: For TLS; None for plain TCP. Two addresses that differ in nothing else are equal.
        server_hostname: The name that the server's certificate must bear; the host if None.
        ssl_is_default: Whether the context came from a DSN or the environment, and so gives way to `with_ssl`.

    Raises:
        ValueError, TypeError: the host or the port cannot be one.

    Example::

        ServerAddress("10.0.0.1", ssl_context=make_ssl_context(ca="ca.pem"), server_hostname="gearman.example.org")
    """

    host: str
    port: int = DEFAULT_GEARMAN_PORT
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    server_hostname: str | None = None
    ssl_is_default: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_host(self.host)
        if isinstance(self.port, bool) or not isinstance(self.port, int):
            raise TypeError(f"the port of {self.host} is a {type(self.port).__name__}; it must be a whole number")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"the port of {self.host} is not a number from 1 to 65535")
        _check_ssl_context(self.ssl_context)
        if self.server_hostname is not None:
            _check_host(self.server_hostname)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def with_ssl(self, context: ssl.SSLContext) -> ServerAddress:
        """Return the same address with TLS through this context, unless it has one of its own."""
        if self.ssl_context is not None and not self.ssl_is_default:
            return self
        return dataclasses.replace(self, ssl_context=context, ssl_is_default=False)


def make_ssl_context(ca: str | None = None, cert: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return a TLS context that verifies the server: its certificate and its name, with TLS 1.2 or later.

    Args:
        ca: PEM file of the certificate authorities; the system's if None.
        cert: PEM file of the client's certificate, if the server wants one.
        key: PEM file of its key, which must not be encrypted; in ``cert`` if None.

    Raises:
        ValueError: a file cannot be read, or is not what it should be. The text names no file.

    Example::

        client = GearmanClient(["10.0.0.1"], ssl_context=make_ssl_context(ca="/etc/gearman/ca.pem"))
    """
    import ssl

    for name, value in (("ca", ca), ("cert", cert), ("key", key)):
        if value is not None and not value:
            raise ValueError(f"the TLS file {name} is empty text; leave it out, or name a file")
    if key is not None and cert is None:
        raise ValueError("a TLS key is of no use without its certificate: give cert too, or leave key out")
    what = "ca"
    try:
        context = ssl.create_default_context(cafile=ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if cert is not None:
            what = "cert or key"
            context.load_cert_chain(cert, key, _no_password)
    except OSError as error:
        # Neither the files' names nor their contents: the text may end in a log.
        reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
        raise ValueError(f"the TLS file {what} cannot be used: {reason}") from None
    return context


def _no_password() -> str:
    # Without this, OpenSSL would ask for the password on the terminal and wait.
    raise ValueError("the TLS key is encrypted; load it into an SSLContext yourself and give that as ssl_context")


# ---- servers -------------------------------------------------------------------------------------------------------

_NO_USER = "a server must not have a user or password: Gearman knows none; write host:port"


def parse_server(item: Any) -> ServerAddress:
    """Return the address that ``item`` means.

    Args:
        item: ``"host"``, ``"host:port"``, ``"[::1]:4730"``, ``"::1"``, the same as bytes, ``(host, port)``, a
            `ServerAddress`, or python-gearman's dict of host, port, keyfile, certfile and ca_certs. A dict with any of
            the last three means TLS; one that is missing, or None, is the system's (ca_certs) or none.

    Raises:
        ValueError, TypeError: it means none; the text says what to write.

    Example::

        parse_server("[::1]:4731")  # ServerAddress(host='::1', port=4731, server_hostname=None)
    """
    if isinstance(item, ServerAddress):
        return item
    if isinstance(item, (str, bytes)):
        return _parse_text(_text(item).strip())
    if isinstance(item, Mapping):
        return _parse_dict(item)
    if isinstance(item, (tuple, list)):
        if len(item) != 2:
            raise ValueError(f"a server has {len(item)} parts; write (host, port)")
        return ServerAddress(_text(item[0]), _port(item[1]))
    hint = "; write [('localhost', 4730)] for one server" if isinstance(item, int) else ""
    raise TypeError(
        f"a server is of type {type(item).__name__}; write 'host:port', (host, port) or a dict of host and port{hint}"
    )


def _parse_text(text: str) -> ServerAddress:
    if "@" in text:
        raise ValueError(_NO_USER)
    if "://" in text:
        raise ValueError("a server in a list is no URL; write host:port, or give the URL alone, not in a list")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{_shown(text)} is not a server; write an IPv6 address and port as [::1]:4730")
        return ServerAddress(host, _port(rest[1:]) if rest else DEFAULT_GEARMAN_PORT)
    if text.count(":") > 1:
        return ServerAddress(text)
    host, colon, port = text.partition(":")
    return ServerAddress(host, _port(port) if colon else DEFAULT_GEARMAN_PORT)


_DICT_KEYS = ("host", "port", "keyfile", "certfile", "ca_certs")


def _parse_dict(item: Mapping[str, Any]) -> ServerAddress:
    if "host" not in item or not set(item) <= set(_DICT_KEYS):
        keys = ", ".join(map(str, item)) or "nothing"
        raise ValueError(f"a server's dict has host and, if wanted, {', '.join(_DICT_KEYS[1:])}; this one has {keys}")
    files = (item.get("ca_certs"), item.get("certfile"), item.get("keyfile"))
    context = make_ssl_context(*files) if any(file is not None for file in files) else None
    return ServerAddress(_text(item["host"]), _port(item.get("port", DEFAULT_GEARMAN_PORT)), context)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise TypeError(f"a server's host is of type {type(value).__name__}; it must be str or bytes")
    try:
        return value.decode()
    except UnicodeDecodeError:
        # Not chained: that error holds all the bytes.
        raise ValueError("a server's name is not UTF-8; write a name or an address") from None


def _port(port: Any) -> int:
    """Return a port that may be text; the range is for the address to check."""
    if not isinstance(port, (str, bytes)):
        return port  # type: ignore[no-any-return]
    # Five digits at most, because int() takes long ones for an attack, and its error is about that.
    if not (port.isascii() and port.isdigit() and len(port) <= 5):
        # The text is not shown: behind the colon may stand a password.
        raise ValueError("a server's port is not a number from 1 to 65535; write host:port")
    return int(port)


#: What has a meaning in a list of servers or in a URL, and none in a name.
_NOT_IN_HOST = frozenset("/,?#[]\\")


def _check_host(host: Any) -> None:
    if not isinstance(host, str):
        raise TypeError(f"a server's host is of type {type(host).__name__}; it must be str")
    if "@" in host or "%40" in host:
        raise ValueError(_NO_USER)
    if not host or not host.isprintable() or " " in host or not _NOT_IN_HOST.isdisjoint(host):
        raise ValueError(f"{_shown(host)} is not a server's host; write a name or an address")
    if ":" in host:
        if _ipv6(host) is None:
            raise ValueError(f"{_shown(host)} is not an IPv6 address; write host:port or [::1]:4730")
    elif "%" in host:
        raise ValueError(f"{_shown(host)} is not a server's host; only an IPv6 address has a zone")


def _ipv6(host: str) -> bytes | None:
    try:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, UnicodeError):
        return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")


def parse_servers(host_list: str | bytes | Iterable[Any] | None) -> tuple[tuple[ServerAddress, ...], dict[str, Any]]:
    """Return the servers of a list, of comma-separated text, or of a DSN, and the options that the DSN has.

    Args:
        host_list: An iterable of what `parse_server` takes; ``"host:port,host"``; or a DSN such as
            ``"gearman://h1:4730,[::1]:4731/?policy=failover&connect_timeout=2"``, whose options are those of
            `ClientOptions` that text can express. ``gearmans://`` means TLS, and takes ca, cert and key (PEM files, see
            `make_ssl_context`) too. None means no servers.

    Returns:
        The addresses, and the options with their values converted, for `ClientOptions.merge`. The TLS context of
        ``gearmans://`` is in both: each address has it, and as an option it holds for servers that are added later.

    Raises:
        ValueError, TypeError: as `parse_server`; a text that names no server; or a server stands there twice. What
            could be a password is never shown.

    Example::

        addresses, options = parse_servers("gearman://h1,h2/?max_retries=2")  # options == {"max_retries": 2}
    """
    options: dict[str, Any] = {}
    if host_list is None:
        return (), options
    if isinstance(host_list, (str, bytes)):
        text = _text(host_list).strip()
        if "://" in text:
            addresses, options = _parse_dsn(text)
        else:
            addresses = [parse_server(part) for part in text.split(",") if part.strip()]
            if not addresses:
                raise ValueError("the text names no server; write host:port, with commas between several")
    elif isinstance(host_list, Mapping) or not isinstance(host_list, Iterable):
        raise TypeError(f"the servers are of type {type(host_list).__name__}; write a list such as ['localhost:4730']")
    else:
        addresses = [parse_server(item) for item in host_list]
    seen = set()
    for address in addresses:
        place = (_ipv6(address.host) or address.host.lower(), address.host.partition("%")[2], address.port)
        if place in seen:
            raise ValueError(f"the server {address} stands in the list twice; name each one once")
        seen.add(place)
    return tuple(addresses), options


def _parse_dsn(dsn: str) -> tuple[list[ServerAddress], dict[str, Any]]:
    scheme, _, rest = dsn.partition("://")
    scheme = scheme.lower()
    if scheme not in ("gearman", "gearmans"):
        raise ValueError("the servers' URL must start with gearman:// or, for TLS, gearmans://")
    place, _, query = rest.partition("?")
    hosts, _, path = place.partition("/")
    if "@" in place:
        raise ValueError(_NO_USER)
    if path or "#" in place:
        raise ValueError("the servers' URL must not have a path or fragment; write gearman://host:port/?option=value")
    if not hosts:
        raise ValueError("the servers' URL names no server; write gearman://host:port/")
    values = _parse_query(query)
    addresses = [parse_server(part) for part in hosts.split(",")]
    files = {name: values.pop(name) for name in ("ca", "cert", "key") if name in values}
    options = {name: _convert(name, value) for name, value in values.items()}
    if scheme == "gearmans":
        context = make_ssl_context(**files)
        options["ssl_context"] = context
        addresses = _with_default_ssl(addresses, context)
    elif files:
        raise ValueError("ca, cert and key are for TLS; write gearmans:// in place of gearman://")
    return addresses, options


def _parse_query(query: str) -> dict[str, str]:
    # Not parse_qsl: it makes a space of each plus, which may stand in a file's name or a prefix.
    from urllib.parse import unquote

    values: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if "@" in name:
            raise ValueError(_NO_USER)
        if not equals:
            raise ValueError("the servers' URL has an option without a value; write ?option=value&option=value")
        if name in values:
            raise ValueError(f"the option {_shown(name)} stands in the servers' URL twice")
        values[name] = unquote(value)
    return values


def _with_default_ssl(addresses: Iterable[ServerAddress], context: ssl.SSLContext) -> list[ServerAddress]:
    return [dataclasses.replace(address, ssl_context=context, ssl_is_default=True) for address in addresses]


def servers_from_env(environ: Mapping[str, str] | None = None) -> tuple[tuple[ServerAddress, ...], dict[str, Any]]:
    """Return the servers of ``GEARMAN_SERVERS``, with TLS if one of libgearman's TLS variables is set.

    Args:
        environ: The environment; the process's own if None. Besides ``GEARMAN_SERVERS`` (comma-separated), it may have
            ``GEARMAND_CA_CERTIFICATE``, ``GEARMAN_CLIENT_PEM`` and ``GEARMAN_CLIENT_KEY``: names of PEM files.

    Returns:
        As `parse_servers`; there are no options but the TLS context.

    Raises:
        ValueError: ``GEARMAN_SERVERS`` is missing or not usable, or a TLS variable is; one that is set but empty is not
            taken for "no TLS".

    Example::

        addresses, options = servers_from_env({"GEARMAN_SERVERS": "10.0.0.1:4730,10.0.0.2"})
    """
    environ = os.environ if environ is None else environ
    text = environ.get("GEARMAN_SERVERS", "").strip()
    if not text:
        raise ValueError("the environment variable GEARMAN_SERVERS is not set; write host:port, commas between several")
    if "://" in text:
        # libgearman's programs share the variable, and know no URL.
        raise ValueError("GEARMAN_SERVERS takes host:port, commas between several; give a URL to GearmanClient itself")
    addresses, options = parse_servers(text)
    names = ("GEARMAND_CA_CERTIFICATE", "GEARMAN_CLIENT_PEM", "GEARMAN_CLIENT_KEY")
    for name in names:
        if environ.get(name) == "":
            raise ValueError(f"{name} is set but empty; unset it if no TLS is wanted, or name a file")
    files = [environ.get(name) for name in names]
    if any(files):
        context = make_ssl_context(*files)
        options["ssl_context"] = context
        addresses = tuple(_with_default_ssl(addresses, context))
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
        object.__setattr__(self, "listeners", _listeners(self.listeners))
        if not isinstance(self.prefix, str):
            raise TypeError(f"prefix is of type {type(self.prefix).__name__}; it must be a str")
        # One byte is left for the shortest task.
        encode_name(self.prefix, "prefix", MAX_TASK_BYTES - 1)
        _check_ssl_context(self.ssl_context)
        encoder = self.data_encoder
        if encoder is not None and not all(callable(getattr(encoder, name, None)) for name in ("encode", "decode")):
            raise TypeError(f"data_encoder is of type {type(encoder).__name__}; it must have encode() and decode()")
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name is a {type(self.name).__name__}; it must be a str")

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the names of all options, in the order in which they are documented."""
        return tuple(option.name for option in dataclasses.fields(cls))

    @classmethod
    def merge(cls, dsn_options: Mapping[str, Any], keyword_options: Mapping[str, Any]) -> Self:
        """Return the options of both; what was given as a keyword wins.

        Raises:
            TypeError: there is no such option, or a value is of the wrong type.
            ValueError: a value is not allowed.

        Example::

            ClientOptions.merge({"max_retries": 2, "policy": "failover"}, {"max_retries": 0}).max_retries  # 0
        """
        values = {**dsn_options, **keyword_options}
        names = cls.field_names()
        for name in values:
            if name not in names:
                raise TypeError(f"there is no option {_shown(name)}{_hint(name, names)}")
        return cls(**values)


_DURATIONS = ("connect_timeout", "submit_timeout", "health_check_interval", "health_check_timeout", "lost_job_check")
_COUNTS = {
    "max_retries": 0,
    "connections_per_server": 1,
    "max_in_flight": 1,
    "max_outbound_bytes": 1,
    "max_packet_size": 1,
}


def _hint(name: str, names: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"


def _check_duration(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}; it must be a number of seconds")
    # NaN compares as neither.
    if not 0 < value <= LONGEST_DURATION:
        raise ValueError(f"{name} is {value!r}; it must be a number of seconds above 0, at most {LONGEST_DURATION:g}")


def _check_ssl_context(context: Any) -> None:
    if context is None:
        return
    import ssl

    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is of type {type(context).__name__}; it must be an ssl.SSLContext")


def _listeners(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        raise TypeError(f"listeners is of type {type(value).__name__}; it must be a list of Listener objects")
    listeners = tuple(value)
    for listener in listeners:
        if isinstance(listener, type) or not callable(getattr(listener, "handle", None)):
            raise TypeError(f"listeners holds {_shown(repr(listener))}; each must be a Listener object")
    return listeners


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
    """Return a name as UTF-8. Bytes that are no UTF-8 come back from ``surrogateescape`` as they were.

    Args:
        value: The name, str or bytes; an empty one is for the caller to refuse.
        what: What it is, for the errors' text.
        longest: How many bytes it may have.

    Raises:
        TypeError: it is neither str nor bytes.
        ValueError: it holds a NUL byte, has no UTF-8 form, or is too long.
    """
    if isinstance(value, str):
        try:
            encoded = value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ValueError(f"{what} cannot be written in UTF-8: it holds a lone surrogate") from None
    elif isinstance(value, (bytes, bytearray)):
        encoded = bytes(value)
    else:
        raise TypeError(f"{what} is of type {type(value).__name__}; it must be str or bytes")
    if b"\0" in encoded:
        raise ValueError(f"{what} must not hold a NUL byte: it would shift what follows it")
    if len(encoded) > longest:
        raise ValueError(f"{what} has {len(encoded)} bytes; it may have {longest}")
    return encoded


def encode_task(task: Any, prefix: str = "") -> bytes:
    """Return a task's name for the wire, behind the prefix. Both together may have 512 bytes.

    Raises:
        TypeError, ValueError: it is no name, is empty, or is too long.

    Example::

        encode_task("resize", "staging.")  # b"staging.resize"
    """
    encoded = encode_name(task, "the task's name", MAX_TASK_BYTES)
    if not encoded:
        raise ValueError("the task's name is empty")
    if not prefix:
        return encoded
    encoded = encode_name(prefix, "prefix", MAX_TASK_BYTES) + encoded
    return encode_name(encoded, "the task's name with its prefix", MAX_TASK_BYTES)


def encode_unique(unique: Any) -> bytes:
    """Return a job's unique for the wire.

    Raises:
        TypeError, ValueError: it is none, is empty, or is longer than the 63 bytes that the server keeps.

    Example::

        encode_unique("user-42")  # b"user-42"
    """
    encoded = encode_name(unique, "unique", MAX_UNIQUE_BYTES)
    if not encoded:
        raise ValueError("unique is empty; leave it out to have one made")
    return encoded
