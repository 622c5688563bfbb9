"""A thread-safe Gearman client: persistent connections, health checks, failover, and a future for every job."""

from __future__ import annotations

from logging import NullHandler, getLogger

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
gearman_root_logger = getLogger("gearman_pool")
