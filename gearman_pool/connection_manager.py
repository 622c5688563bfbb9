"""python-gearman's module of this name: what client, worker and admin client have in common, and its encoders.

Threads: as the class that inherits. The base only declares; it holds no connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .connection import GearmanConnection
from .encoders import BytesEncoder, DataEncoder, NoopEncoder
from .jobs.job import GearmanJob, GearmanJobRequest
from .transport.servers import ServerState

if TYPE_CHECKING:
    from .settings.addresses import ServerAddress
    from .transport.servers import Server

__all__ = ["DataEncoder", "GearmanConnection", "GearmanConnectionManager", "NoopEncoder"]


class GearmanConnectionManager:
    """Base of `GearmanClient`, `GearmanWorker` and `GearmanAdminClient`; not made by itself.

    What drove sockets and command handlers in python-gearman's class of this name has no counterpart.

    Attributes:
        data_encoder: How payloads become bytes and bytes become objects. A class attribute, for subclasses to override.
        job_class: Of what jobs are made, likewise.
        job_request_class: Of what requests are made, likewise.
    """

    data_encoder: Any = BytesEncoder
    job_class: type[GearmanJob] = GearmanJob
    job_request_class: type[GearmanJobRequest] = GearmanJobRequest

    @property
    def connection_list(self) -> list[GearmanConnection]:
        """The servers, in the order of the configuration."""
        raise NotImplementedError

    def add_connection(self, hostport_tuple: Any) -> GearmanConnection:
        """Take in a server, given as (host, port) or ``"host:port"``, and return it.

        Raises:
            ValueError, TypeError: it is no server.

        Example::

            client.add_connection(("10.0.0.3", 4730))
        """
        raise NotImplementedError

    def add_ssl_connection(self, host: str, port: int, keyfile: str, certfile: str, ca_certs: str) -> GearmanConnection:
        """Take in a server that is spoken to through TLS, and return it.

        Args:
            keyfile, certfile, ca_certs: PEM files, as for `make_ssl_context`.

        Raises:
            ValueError, TypeError: it is no server, or a file cannot be used.

        Example::

            client.add_ssl_connection("10.0.0.3", 4730, "client.key", "client.pem", "ca.pem")
        """
        server = {"host": host, "port": port, "keyfile": keyfile, "certfile": certfile, "ca_certs": ca_certs}
        return self.add_connection(server)

    def establish_connection(self, current_connection: GearmanConnection) -> GearmanConnection:
        """Wait until one of the servers answers, and return it. No other call needs that.

        Raises:
            ServerUnavailable: it does not answer in time.
            ValueError: it is none of ``connection_list``.

        Example::

            client.establish_connection(client.connection_list[0])
        """
        raise NotImplementedError

    def shutdown(self) -> None:
        """End all connections; the newer name is ``close``."""
        raise NotImplementedError

    def _pool_servers(self) -> Iterable[Server]:
        """Return the servers that this process is, or wants to be, connected to."""
        raise NotImplementedError

    def _is_connected(self, address: ServerAddress) -> bool:
        return any(s.address == address and s.state is ServerState.UP for s in self._pool_servers())
