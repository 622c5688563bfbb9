"""The options of a client, each with its default: declared once, checked once.

Options never change once they are made, so any thread may use them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from ..protocol.limits import MAX_TASK_BYTES
from ..protocol.values import encode_name
from .checks import check_count, check_duration, check_ssl_context, shown
from .policies import POLICIES

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Self

__all__ = ["COUNTS", "DURATIONS", "ClientOptions", "ClientOptionsDict"]


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
        for name in DURATIONS:
            check_duration(name, getattr(self, name))
        for name, least in COUNTS.items():
            check_count(name, getattr(self, name), least)
        if isinstance(self.policy, str):
            if self.policy not in POLICIES:
                raise ValueError(f"policy is {self.policy!r}; it must be one of {', '.join(POLICIES)}, or a callable")
        elif not callable(self.policy):
            raise TypeError(
                f"policy is a {type(self.policy).__name__}; it must be one of {', '.join(POLICIES)}, or a callable"
            )
        object.__setattr__(self, "reconnect_backoff", _backoff(self.reconnect_backoff))
        object.__setattr__(self, "listeners", _listeners(self.listeners))
        if not isinstance(self.prefix, str):
            raise TypeError(f"prefix is of type {type(self.prefix).__name__}; it must be a str")
        # One byte is left for the shortest task.
        encode_name(self.prefix, "prefix", MAX_TASK_BYTES - 1)
        check_ssl_context(self.ssl_context)
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
                raise TypeError(f"there is no option {shown(name)}{_hint(name, names)}")
        return cls(**values)


# Where users know the class, and where pickles look for it, those that older versions wrote and those they read.
ClientOptions.__module__ = "gearman_pool.options"


#: The options that are a number of seconds, and those that are a whole number, with the least that each may be.
DURATIONS = tuple(option.name for option in dataclasses.fields(ClientOptions) if option.type == "float")
COUNTS = {
    option.name: 0 if option.name == "max_retries" else 1
    for option in dataclasses.fields(ClientOptions)
    if option.type == "int"
}


def _hint(name: str, names: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(names)}"


def _listeners(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        raise TypeError(f"listeners is of type {type(value).__name__}; it must be a list of Listener objects")
    listeners = tuple(value)
    for listener in listeners:
        if isinstance(listener, type) or not callable(getattr(listener, "handle", None)):
            raise TypeError(f"listeners holds {shown(repr(listener))}; each must be a Listener object")
    return listeners


def _backoff(value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"reconnect_backoff is {value!r}; it must be a pair of seconds, such as (0.1, 10.0)")
    for part in value:
        check_duration("reconnect_backoff", part)
    if value[0] > value[1]:
        raise ValueError(f"reconnect_backoff is {value!r}; the first must not be more than the second")
    return float(value[0]), float(value[1])
