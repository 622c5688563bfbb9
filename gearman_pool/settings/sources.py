"""Where servers and options are written down: lists, text, a DSN, the environment.

Any thread may call these. They read the environment, and of files only those that TLS needs.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .addresses import NO_USER, ServerAddress, host_text, ipv6, make_ssl_context, parse_server
from .checks import shown
from .client_options import COUNTS, DURATIONS

if TYPE_CHECKING:
    import ssl

__all__ = ["parse_servers", "servers_from_env"]


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
        text = host_text(host_list).strip()
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
        place = (ipv6(address.host) or address.host.lower(), address.host.partition("%")[2], address.port)
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
        raise ValueError(NO_USER)
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
            raise ValueError(NO_USER)
        if not equals:
            raise ValueError("the servers' URL has an option without a value; write ?option=value&option=value")
        if name in values:
            raise ValueError(f"the option {shown(name)} stands in the servers' URL twice")
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


def _convert(name: str, text: str) -> Any:
    """Return an option's value from its text in a DSN."""
    if name in ("ssl_context", "data_encoder", "listeners"):
        raise ValueError(f"{name} cannot stand in the servers' URL; give it to GearmanClient")
    try:
        if name in COUNTS:
            return int(text)
        if name in DURATIONS:
            return float(text)
        if name == "reconnect_backoff":
            first, _, longest = text.partition(",")
            return float(first), float(longest)
    except ValueError:
        raise ValueError(f"{name} is {text!r} in the servers' URL; it must be a number") from None
    return text
