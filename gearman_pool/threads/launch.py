"""Starting a background thread, and why that can fail."""

from __future__ import annotations

import threading

from ..errors import ClientClosed, ThreadUnavailable
from .uwsgi import obstacle

__all__ = ["launch"]


def launch(thread: threading.Thread) -> None:
    """Start a thread.

    Raises:
        ClientClosed: the interpreter is shutting down and starts no threads any more.
        ThreadUnavailable: uWSGI would not let it run, or the system has no room for it; the text says which.
    """
    if text := obstacle():
        raise ThreadUnavailable(text, retryable=False)
    try:
        thread.start()
    except RuntimeError as error:
        # Before 3.13 the two cases differ in their text alone.
        if "shutdown" in str(error):
            raise ClientClosed("the interpreter is shutting down; no thread can be started") from error
        raise ThreadUnavailable(
            f"no background thread can be started: {error}; the limits of the process or its container for threads "
            "or memory are used up"
        ) from error
