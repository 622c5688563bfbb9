"""What tests need to run against Gearman: for this package's own tests and for those of its users."""

from __future__ import annotations

from .proxy import FaultProxy
from .server import EmbeddedServer, ServedJob, ServerStats

__all__ = ["EmbeddedServer", "FaultProxy", "ServedJob", "ServerStats"]
