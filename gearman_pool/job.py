"""Jobs, requests, futures and references, as users import them: `gearman_pool.jobs` has the code."""

from __future__ import annotations

from .constants import (  # noqa: F401 - python-gearman's module of this name has them
    JOB_COMPLETE,
    JOB_CREATED,
    JOB_FAILED,
    JOB_PENDING,
    JOB_UNKNOWN,
    PRIORITY_NONE,
)
from .jobs.future import JobFuture
from .jobs.job import JOB_MOVES, GearmanJob, GearmanJobRequest
from .jobs.views import JobReference, JobStatus, JobUpdate

__all__ = ["JOB_MOVES", "GearmanJob", "GearmanJobRequest", "JobFuture", "JobReference", "JobStatus", "JobUpdate"]
