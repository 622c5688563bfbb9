"""What the tests of TLS share: certificates, and the three that connect to a port."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from typing_extensions import Self

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
from gearman_pool.errors import ServerUnavailable
from gearman_pool.options import make_ssl_context

from ..support.gearmand import RunningServer
from ..support.running import running
from ..support.waiting import wait_until

__all__ = ["SUBJECTS", "Subject", "TLSFiles"]


class TLSFiles(NamedTuple):
    """An authority, the certificates of a server and of a client that it has issued, and the client's PEM files."""

    ca: trustme.CA
    server: trustme.LeafCert
    ca_file: str
    cert_file: str
    key_file: str

    @classmethod
    def issue(cls, folder: Path) -> Self:
        """Make all of them, with the files in ``folder``."""
        ca = trustme.CA()
        client = ca.issue_cert("client.example.org")
        ca.cert_pem.write_to_path(folder / "ca.pem")
        client.cert_chain_pems[0].write_to_path(folder / "client.pem")
        client.private_key_pem.write_to_path(folder / "client.key")
        names = [str(folder / name) for name in ("ca.pem", "client.pem", "client.key")]
        return cls(ca, ca.issue_cert("localhost", "127.0.0.1"), *names)

    def context(self) -> ssl.SSLContext:
        """A client's context that trusts the authority."""
        return make_ssl_context(self.ca_file)

    def context_with_certificate(self) -> ssl.SSLContext:
        """The same, with the client's own certificate."""
        return make_ssl_context(self.ca_file, self.cert_file, self.key_file)


class Subject:
    """A client, a worker or an admin client of one server, as the tests of TLS use all three. A context manager."""

    def works(self, server: RunningServer) -> str | None:
        """Do what it is for; ``server`` is the plain one behind, with an ``echo`` worker. Return its TLS version."""
        raise NotImplementedError

    def failure(self) -> BaseException:
        """Wait until one more attempt to connect has failed, and return why it did."""
        raise NotImplementedError

    def _options(self, context: ssl.SSLContext | None, options: dict[str, Any]) -> dict[str, Any]:
        return {"ssl_context": context, "connect_timeout": 5.0, "reconnect_backoff": (0.05, 0.2), **options}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError


def _version(pool: Any) -> str | None:
    (connection,) = pool.connections
    return connection._sock.version()


class _Client(Subject):
    def __init__(self, address: object, context: ssl.SSLContext | None, **options: Any) -> None:
        self.client = GearmanClient([address], **self._options(context, {"submit_timeout": 0.3, **options}))

    def works(self, server: RunningServer) -> str | None:
        wait_until(lambda: None not in self.client.ping(10).values(), message="the client is connected")
        assert self.client.submit("echo", b"x").result(15) == b"x"
        return _version(self.client._engine.pool)

    def failure(self) -> BaseException:
        failed = self.client.stats().connections_failed
        self.client.ping(0.01)
        wait_until(lambda: self.client.stats().connections_failed > failed, 20, message="the client is refused")
        error = self.client.submit("echo", b"secret payload").exception(20)
        assert isinstance(error, ServerUnavailable)
        assert not error.maybe_sent
        assert self.client.stats().connections_opened == 0
        (text,) = error.servers.values()
        assert text in str(error)
        assert text in str(error.__cause__)
        assert error.__cause__ is not None
        return error.__cause__

    def __exit__(self, *_: object) -> None:
        self.client.close()


class _Worker(Subject):
    def __init__(self, address: object, context: ssl.SSLContext | None, **options: Any) -> None:
        self.worker = GearmanWorker([address], concurrency=2, **self._options(context, options))
        self.worker.register_task("upper", lambda job: job.data.upper())
        self._running = running(self.worker, wait_ready=False)
        self._running.__enter__()

    def works(self, server: RunningServer) -> str | None:
        assert self.worker.ready.wait(15)
        with server.connect() as plain:
            assert plain.call("upper", b"abc") == b"ABC"
        return _version(self.worker._runs.engine.pool)  # type: ignore[union-attr]

    def failure(self) -> BaseException:
        failed = self.worker.stats().connections_failed
        wait_until(lambda: self.worker.stats().connections_failed > failed, 20, message="the worker is refused")
        assert not self.worker.ready.is_set()
        assert self.worker.stats().connections_opened == 0
        (server,) = self.worker._runs.engine.pool.servers  # type: ignore[union-attr]
        assert server.last_error is not None
        return server.last_error

    def __exit__(self, *error: object) -> None:
        self._running.__exit__(*error)  # type: ignore[arg-type]


class _Admin(Subject):
    def __init__(self, address: object, context: ssl.SSLContext | None, **options: Any) -> None:
        self.admin = GearmanAdminClient([address], **self._options(context, options))

    def works(self, server: RunningServer) -> str | None:
        assert self.admin.ping_server() > 0
        assert "echo" in {row["task"] for row in self.admin.get_status()}
        return _version(self.admin._engine.pool)

    def failure(self) -> BaseException:
        with pytest.raises(ServerUnavailable) as raised:
            self.admin.get_version()
        cause = raised.value.__cause__
        assert cause is not None
        assert str(cause).partition(": ")[2] in str(raised.value)
        return cause

    def __exit__(self, *_: object) -> None:
        self.admin.close()


#: Each is made with an address, an SSLContext or None, and options.
SUBJECTS: dict[str, Callable[..., Subject]] = {"client": _Client, "worker": _Worker, "admin client": _Admin}
