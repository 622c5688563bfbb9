"""One server: its address, how it is written, and TLS with it.

Any thread may call these. Nothing here resolves a name or opens a socket.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..constants import DEFAULT_GEARMAN_PORT
from .checks import check_ssl_context, shown

if TYPE_CHECKING:
    import ssl

__all__ = ["NO_USER", "ServerAddress", "host_text", "ipv6", "make_ssl_context", "parse_server"]


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
        check_ssl_context(self.ssl_context)
        if self.server_hostname is not None:
            _check_host(self.server_hostname)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def with_ssl(self, context: ssl.SSLContext) -> ServerAddress:
        """Return the same address with TLS through this context, unless it has one of its own."""
        if self.ssl_context is not None and not self.ssl_is_default:
            return self
        return dataclasses.replace(self, ssl_context=context, ssl_is_default=False)


# Where users know the class, and where pickles look for it, those that older versions wrote and those they read.
ServerAddress.__module__ = "gearman_pool.options"


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


#: What is said of anything that could hold a password.
NO_USER = "a server must not have a user or password: Gearman knows none; write host:port"


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
        return _parse_text(host_text(item).strip())
    if isinstance(item, Mapping):
        return _parse_dict(item)
    if isinstance(item, (tuple, list)):
        if len(item) != 2:
            raise ValueError(f"a server has {len(item)} parts; write (host, port)")
        return ServerAddress(host_text(item[0]), _port(item[1]))
    hint = "; write [('localhost', 4730)] for one server" if isinstance(item, int) else ""
    raise TypeError(
        f"a server is of type {type(item).__name__}; write 'host:port', (host, port) or a dict of host and port{hint}"
    )


def _parse_text(text: str) -> ServerAddress:
    if "@" in text:
        raise ValueError(NO_USER)
    if "://" in text:
        raise ValueError("a server in a list is no URL; write host:port, or give the URL alone, not in a list")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{shown(text)} is not a server; write an IPv6 address and port as [::1]:4730")
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
    return ServerAddress(host_text(item["host"]), _port(item.get("port", DEFAULT_GEARMAN_PORT)), context)


def host_text(value: Any) -> str:
    """Return a host, or a list of servers, as text.

    Raises:
        TypeError, ValueError: it is neither str nor bytes, or no UTF-8.
    """
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
        raise ValueError(NO_USER)
    if not host or not host.isprintable() or " " in host or not _NOT_IN_HOST.isdisjoint(host):
        raise ValueError(f"{shown(host)} is not a server's host; write a name or an address")
    if ":" in host:
        if ipv6(host) is None:
            raise ValueError(f"{shown(host)} is not an IPv6 address; write host:port or [::1]:4730")
    elif "%" in host:
        raise ValueError(f"{shown(host)} is not a server's host; only an IPv6 address has a zone")


def ipv6(host: str) -> bytes | None:
    """Return the 16 bytes of an IPv6 address, whose zone is left out; None if the host is no such address."""
    try:
        return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except (OSError, UnicodeError):
        return None
