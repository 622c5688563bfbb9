"""A listener that keeps what it hears, for facts that a look at the client's state may come too late for."""

from __future__ import annotations

from typing import TypeVar

from gearman_pool import Listener
from gearman_pool.events import Event

__all__ = ["Keeping"]

E = TypeVar("E", bound=Event)


class Keeping(Listener):
    """Keeps each event, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def handle(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return what was heard of this kind so far."""
        return [event for event in self.events if isinstance(event, kind)]
