"""`JobFuture`, as users import it: `gearman_pool.jobs` has the code."""

from __future__ import annotations

from .jobs.future import JobFuture

__all__ = ["JobFuture"]
