"""What the owner of the requests is asked and told: `Handler` for all of them, `Query` for a single one.

All calls are made on the I/O thread, and must not block. Nothing here does anything: engines implement it.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import GearmanError
from ..events import Event
from ..protocol.session import Entry
from ..protocol.session import Event as SessionEvent
from .connection import Connection, LostEntries, S

__all__ = ["Handler", "Query"]


class Query:
    """Base for what stands as a token behind requests that are no jobs. Called on the I/O thread; must not block."""

    def answered(self, connection: Connection, value: Any) -> None:
        """The reply came."""

    def refused(self, connection: Connection, code: str, text: str) -> None:
        """ERROR came in place of the reply."""

    def lost(self, error: GearmanError) -> None:
        """The connection was lost before the reply came, or no server could be had."""


class Handler(Protocol[S]):
    """Who owns the requests. Called on the I/O thread; must not block."""

    def on_events(self, connection: Connection[S], events: list[SessionEvent]) -> None:
        """The session has understood these."""

    def on_lost(self, connection: Connection[S], error: GearmanError, entries: LostEntries) -> None:
        """A connection is gone; these are what it held."""

    def on_unroutable(self, entry: Entry, error: GearmanError) -> None:
        """No server could be had for this entry in time."""

    def emit(self, event: Event) -> None:
        """Tell the listeners, elsewhere."""
