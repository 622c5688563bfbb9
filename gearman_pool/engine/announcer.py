"""What is told to the outside, off the I/O thread: events to listeners, and lines to the log.

Logging counts as a listener: its handlers and their locks are the user's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..events import ConnectionClosed, ConnectionFailed, ConnectionOpened, Event, handled
from ..threads.callbacks import CallbackThreads, Mailbox

__all__ = ["Announcer"]


class Announcer:
    """Tells events to listeners and writes lines to a log, in order. Any thread may call its methods; none blocks."""

    def __init__(self, callbacks: CallbackThreads, listeners: Sequence[Any], log: logging.Logger) -> None:
        #: The kinds of events that somebody handles; no others need be made.
        self.wanted: frozenset[type[Event]] = frozenset().union(*map(handled, listeners))
        self._listeners = listeners
        self._log = log
        self._events = Mailbox(callbacks)
        self._lines = Mailbox(callbacks)
        # Touched by the mailbox's calls alone, which come one after the other.
        self._failed = False

    def log(self, level: int, text: str, *arguments: Any, error: BaseException | None = None) -> None:
        """Write a line to the log, with the error's traceback if there is one."""
        # Not isEnabledFor: it may wait for logging's lock, which a caller that was interrupted can have left taken.
        log = self._log
        if not log.disabled and log.manager.disable < level >= log.getEffectiveLevel():
            self._lines.put(partial(log.log, level, text, *arguments, exc_info=error))

    def connection(self, event: Event) -> None:
        """Log what happened to a connection, and tell the listeners."""
        if isinstance(event, ConnectionOpened):
            self.log(logging.INFO, "connected to %s", event.server)
        elif isinstance(event, ConnectionClosed) and event.error is not None:
            text = "lost the connection to %s (%s; %d jobs affected)"
            self.log(logging.WARNING, text, event.server, event.error, event.jobs_lost)
        elif isinstance(event, ConnectionFailed):
            self.log(logging.WARNING, "%s; next attempt in %.1f s", event.error, event.retry_in)
        self.tell(event)

    def tell(self, event: Event) -> None:
        """Tell the listeners, if any of them handles this kind of event."""
        if type(event) in self.wanted:
            self._events.put(partial(self._tell, event))

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            try:
                listener.handle(event)
            except Exception:  # the user's code; the listeners behind this one must be told
                if not self._failed:
                    self._failed = True
                    self._log.exception("a listener failed; later failures are not logged")
