"""Servers and options, as users import them: `gearman_pool.settings` has the code."""

from __future__ import annotations

from .protocol.values import encode_name, encode_task, encode_unique
from .settings.addresses import ServerAddress, make_ssl_context, parse_server
from .settings.client_options import ClientOptions, ClientOptionsDict
from .settings.sources import parse_servers, servers_from_env

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
