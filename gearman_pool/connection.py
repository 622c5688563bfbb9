"""python-gearman's module of this name: servers, as its users know them.

Threads: any may use a `GearmanConnection`, which never changes and has no socket.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Protocol

from .constants import DEFAULT_GEARMAN_PORT
from .errors import ServerUnavailable
from .settings.addresses import ServerAddress, parse_server

__all__ = ["GearmanConnection"]


class Connected(Protocol):
    """What knows whether it is connected: a client, a worker or an admin client."""

    def _is_connected(self, address: ServerAddress, /) -> bool: ...


def _nobody() -> None:
    return None


class GearmanConnection:
    """A server, as python-gearman's users know it: what `GearmanJob.connection` and ``connection_list`` hold.

    It says which server, and whether it is connected; it has no methods that read or write, because the I/O thread
    alone does that. It never changes, so that any thread may use it, and two that mean the same server are equal.

    Args:
        host: The host, or a `ServerAddress` by itself.
        port: The TCP port.
        keyfile, certfile, ca_certs: PEM files for TLS; plain TCP if all are None.

    Attributes:
        address: The `ServerAddress`.

    Raises:
        ServerUnavailable: no host is given.
        ValueError, TypeError: host, port or files are not usable.

    Example::

        job = GearmanJob(GearmanConnection("10.0.0.1"), handle, None, None, None)
        client.get_job_status(GearmanJobRequest(job)).status["running"]
    """

    __slots__ = ("_manager", "address")

    def __init__(
        self,
        host: str | ServerAddress | None = None,
        port: int = DEFAULT_GEARMAN_PORT,
        keyfile: str | None = None,
        certfile: str | None = None,
        ca_certs: str | None = None,
    ) -> None:
        if host is None:
            raise ServerUnavailable("no host is given for this connection")
        files = {"keyfile": keyfile, "certfile": certfile, "ca_certs": ca_certs}
        if not isinstance(host, ServerAddress):
            host = parse_server({"host": host, "port": port, **files})
        self.address: ServerAddress = host
        self._manager: Callable[[], Connected | None] = _nobody

    @classmethod
    def of(cls, manager: Connected, address: ServerAddress) -> GearmanConnection:
        """Return the connection of a client, worker or admin client to one of its servers. Not for users."""
        connection = cls(address)
        # Weakly: it stands in jobs, which may outlive their client.
        connection._manager = weakref.ref(manager)
        return connection

    @property
    def gearman_host(self) -> str:
        """The host, as it was given."""
        return self.address.host

    @property
    def gearman_port(self) -> int:
        """The port."""
        return self.address.port

    @property
    def connected(self) -> bool:
        """Whether the client, worker or admin client that this came from is connected now; False if it was made by
        hand.
        """
        manager = self._manager()
        return manager is not None and manager._is_connected(self.address)

    @property
    def use_ssl(self) -> bool:
        """Whether it is spoken to through TLS."""
        return self.address.ssl_context is not None

    def get_address(self) -> tuple[str, int]:
        """Return (host, port).

        Example::

            host, port = client.connection_list[0].get_address()
        """
        return self.address.host, self.address.port

    def __reduce__(self) -> tuple[type[GearmanConnection], tuple[ServerAddress]]:
        return type(self), (self.address,)

    def __str__(self) -> str:
        return str(self.address)

    def __repr__(self) -> str:
        return f"<GearmanConnection {self.address}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GearmanConnection) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)
