"""python-gearman's constants, under its names and with its values."""

from __future__ import annotations

from typing import Final

__all__ = [
    "DEFAULT_GEARMAN_PORT",
    "PRIORITY_NONE",
    "PRIORITY_LOW",
    "PRIORITY_HIGH",
    "JOB_UNKNOWN",
    "JOB_PENDING",
    "JOB_CREATED",
    "JOB_FAILED",
    "JOB_COMPLETE",
]

#: The TCP port that IANA registered for Gearman, taken where an address names none.
DEFAULT_GEARMAN_PORT: Final = 4730

#: A job's priority: between the other two, which is what jobs have unless told otherwise.
PRIORITY_NONE: Final = None
#: A job's priority: taken when no job of its task with a higher priority waits.
PRIORITY_LOW: Final = "LOW"
#: A job's priority: taken before all other jobs of its task.
PRIORITY_HIGH: Final = "HIGH"

#: A job's state: not sent, or its connection was lost and nobody knows how far it got.
JOB_UNKNOWN: Final = "UNKNOWN"
#: A job's state: sent, not yet accepted by a server.
JOB_PENDING: Final = "PENDING"
#: A job's state: accepted by a server.
JOB_CREATED: Final = "CREATED"
#: A job's state: it ended without a result.
JOB_FAILED: Final = "FAILED"
#: A job's state: its result is there; for a background job, a server has accepted it.
JOB_COMPLETE: Final = "COMPLETE"

#: Read by nothing here; kept because programs written for python-gearman may read it.
_DEBUG_MODE_: Final = False
