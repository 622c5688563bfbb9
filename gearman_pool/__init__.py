"""A thread-safe Gearman client: persistent connections, health checks, failover, and a future for every job."""

from __future__ import annotations

from importlib import import_module
from logging import NullHandler, getLogger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logging import Logger

    from .admin_client import GearmanAdminClient
    from .client import GearmanClient
    from .constants import (
        JOB_COMPLETE,
        JOB_CREATED,
        JOB_FAILED,
        JOB_PENDING,
        JOB_UNKNOWN,
        PRIORITY_HIGH,
        PRIORITY_LOW,
        PRIORITY_NONE,
    )
    from .encoders import BytesEncoder, DataEncoder, JSONEncoder, NoopEncoder
    from .errors import GearmanError
    from .events import ClientStats, Listener, ServerInfo, WorkerStats
    from .future import JobFuture
    from .job import GearmanJob, GearmanJobRequest, JobReference, JobStatus, JobUpdate
    from .options import ClientOptions, ServerAddress
    from .worker import GearmanWorker, GearmanWorkerJob

__all__ = [
    "JOB_COMPLETE",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_PENDING",
    "JOB_UNKNOWN",
    "PRIORITY_HIGH",
    "PRIORITY_LOW",
    "PRIORITY_NONE",
    "BytesEncoder",
    "ClientOptions",
    "ClientStats",
    "DataEncoder",
    "GearmanAdminClient",
    "GearmanClient",
    "GearmanError",
    "GearmanJob",
    "GearmanJobRequest",
    "GearmanWorker",
    "GearmanWorkerJob",
    "JSONEncoder",
    "JobFuture",
    "JobReference",
    "JobStatus",
    "JobUpdate",
    "Listener",
    "NoopEncoder",
    "NullHandler",
    "ServerAddress",
    "ServerInfo",
    "WorkerStats",
    "__version__",
    "gearman_root_logger",
]

__version__ = "0.1.0"

#: Above the loggers of all parts, under python-gearman's name for it.
gearman_root_logger: Logger = getLogger("gearman_pool")

# Loaded when they are first asked for: the pytest plugin is imported, and its package with it, in every test run of an
# environment, whether or not a test uses it.
_MODULES: dict[str, str] = {
    "admin_client": "GearmanAdminClient",
    "client": "GearmanClient",
    "connection": "",
    "connection_manager": "",
    "constants": "JOB_COMPLETE JOB_CREATED JOB_FAILED JOB_PENDING JOB_UNKNOWN PRIORITY_HIGH PRIORITY_LOW PRIORITY_NONE",
    "encoders": "BytesEncoder DataEncoder JSONEncoder NoopEncoder",
    "errors": "GearmanError",
    "events": "ClientStats Listener ServerInfo WorkerStats",
    "future": "JobFuture",
    "job": "GearmanJob GearmanJobRequest JobReference JobStatus JobUpdate",
    "options": "ClientOptions ServerAddress",
    "protocol": "",
    "util": "",
    "worker": "GearmanWorker GearmanWorkerJob",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
