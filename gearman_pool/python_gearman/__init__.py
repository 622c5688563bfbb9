"""python-gearman's interface, on the same engines as this package's own.

Its clients' methods stand in `client`, its workers' in `worker`; `GearmanClient` and `GearmanWorker` inherit them.
"""

from __future__ import annotations

from .client import GearmanConnection, PythonGearmanClient

__all__ = ["GearmanConnection", "PythonGearmanClient"]
