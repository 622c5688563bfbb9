"""What tests need to run against Gearman: for this package's own tests and for those of its users."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .eager import EagerClient, SubmittedJob
    from .gearmand import Gearmand
    from .proxy import FaultProxy
    from .served import ServedJob, ServerStats
    from .server import EmbeddedServer

__all__ = ["EagerClient", "EmbeddedServer", "FaultProxy", "Gearmand", "ServedJob", "ServerStats", "SubmittedJob"]

# Loaded when they are first asked for; see `gearman_pool`.
_HOMES = {
    "EagerClient": "gearman_pool.testing.eager",
    "SubmittedJob": "gearman_pool.testing.eager",
    "Gearmand": "gearman_pool.testing.gearmand",
    "FaultProxy": "gearman_pool.testing.proxy",
    "EmbeddedServer": "gearman_pool.testing.server",
    "ServedJob": "gearman_pool.testing.served",
    "ServerStats": "gearman_pool.testing.served",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
