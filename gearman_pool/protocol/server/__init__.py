"""The server's state machine, for the embedded server: bytes in, bytes out, no I/O and no clock."""

from __future__ import annotations

from .machine import JobServer, Peer

__all__ = ["JobServer", "Peer"]
