"""``gearman-pool work --health-port``: whether the workers live and are ready, and their metrics, by HTTP.

The threads of the HTTP server only read the supervisor's snapshot: they never ask a process or a Gearman server, so no
probe waits for one.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import TYPE_CHECKING

from ..exits import USAGE, CommandError
from .supervisor import Snapshot

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["HealthServer", "metrics"]

#: Seconds without a turn of the supervisor's loop after which it counts as stuck; it makes two a second.
_STUCK = 15.0


class HealthServer:
    """Serves ``/livez``, ``/readyz`` and ``/metrics`` on a thread of its own.

    ``/livez`` is 200 while the supervisor goes round; ``/readyz`` is 200 while a process has told its tasks to a server
    that can be reached, and 503 otherwise, also when stopping.

    Raises:
        CommandError: the address cannot be listened on.
    """

    def __init__(self, host: str, port: int, snapshot: Callable[[], Snapshot]) -> None:
        handler = type("Handler", (_Handler,), {"snapshot": staticmethod(snapshot)})
        try:
            self._server = (_Server6 if ":" in host else ThreadingHTTPServer)((host, port), handler)
        except OSError as error:
            text = f"cannot listen on {_place(host, port)} for --health-port: {error.strerror or error}"
            raise CommandError(text, USAGE) from None
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="gearman_pool-cli-health", daemon=True
        )

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return _place(str(host), port)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server6(ThreadingHTTPServer):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        # ``[::]`` stands for all addresses, those of IPv4 too.
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class _Handler(BaseHTTPRequestHandler):
    snapshot: Callable[[], Snapshot]
    timeout = 10.0
    server_version = "gearman-pool"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a request."""
        snapshot = type(self).snapshot()
        path = self.path.partition("?")[0]
        if path == "/livez":
            self._answer(200 if monotonic() - snapshot.time < _STUCK else 503)
        elif path == "/readyz":
            text = f"{snapshot.ready} of {snapshot.wanted} processes are ready\n"
            self._answer(200 if snapshot.ready and not snapshot.stopping else 503, text)
        elif path == "/metrics":
            self._answer(200, metrics(snapshot), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._answer(404, "there are /livez, /readyz and /metrics\n")

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def _answer(self, code: int, text: str = "", kind: str = "text/plain; charset=utf-8") -> None:
        body = (text or ("ok\n" if code == 200 else "not ok\n")).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing of each request."""


_METRICS: tuple[tuple[str, str, str, Callable[[Snapshot], float]], ...] = (
    ("processes", "gauge", "Worker processes that run.", lambda s: s.running),
    ("processes_wanted", "gauge", "Worker processes that are to run.", lambda s: s.wanted),
    ("processes_ready", "gauge", "Worker processes that are ready for jobs.", lambda s: s.ready),
    ("process_restarts_total", "counter", "Worker processes that were replaced.", lambda s: s.restarts),
    ("server_connections", "gauge", "Connections to servers that are up.", lambda s: s.servers_up),
    ("jobs_held", "gauge", "Jobs that the workers hold now.", lambda s: s.held),
    ("results_lost_total", "counter", "Results that no server was there for.", lambda s: s.counters["results_lost"]),
)


def metrics(snapshot: Snapshot) -> str:
    """Return a snapshot in Prometheus' text format."""
    lines = []
    for name, kind, text, value in _METRICS:
        lines += _head(name, kind, text)
        lines.append(f"gearman_pool_worker_{name} {value(snapshot)}")
    lines += _head("jobs_total", "counter", "Jobs that ended, by how.")
    for outcome in ("done", "failed", "timed_out"):
        value_now = snapshot.counters[f"jobs_{outcome}"]
        lines.append(f'gearman_pool_worker_jobs_total{{outcome="{outcome}"}} {value_now}')
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> list[str]:
    full = f"gearman_pool_worker_{name}"
    return [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
