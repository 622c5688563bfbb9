"""Fork and the interpreter's exit: who must be told. And which thread is the main one.

Both hooks are registered when the package is imported, and only the hooks: an exit hook that is registered at import
runs after all those of the user's program, which may therefore still use a client.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from typing import Protocol

__all__ = ["Living", "register"]

#: The identifier of the main thread, in which signal handlers raise. In the child of a fork that is the thread that
#: forked, which alone writes this there. To be read through the module, for each look.
main_thread: int | None = threading.main_thread().ident


class Living(Protocol):
    """Something with a thread and sockets of its own."""

    def after_fork_in_child(self) -> None:
        """Drop the parent's threads, sockets and locks. Runs in the child, where no other thread exists."""

    def at_exit(self) -> None:
        """Send what must be sent and stop. Runs at the interpreter's end."""


# Changed and copied by single operations of dict, each of them atomic: a lock here could be held by another thread at
# the moment of a fork.
_living: dict[int, weakref.ref[Living]] = {}


def register(living: Living) -> None:
    """Tell ``living`` of forks and of the interpreter's exit, as long as it exists."""
    key = id(living)

    def remove(_: object, *, pop: object = _living.pop) -> None:
        pop(key, None)  # type: ignore[operator]

    _living[key] = weakref.ref(living, remove)


def _each() -> list[Living]:
    return [living for living in (reference() for reference in list(_living.values())) if living is not None]


def _after_fork_in_child() -> None:
    global main_thread
    main_thread = threading.get_ident()
    trouble: Exception | None = None
    for living in _each():
        try:
            living.after_fork_in_child()
        except Exception as error:  # the others must not be left with the parent's locks
            trouble = error
    if trouble is not None:
        raise trouble


def _at_exit() -> None:
    for living in _each():
        # One client's trouble must not keep the others from sending what they hold; nothing can be reported any more.
        with contextlib.suppress(Exception):
            living.at_exit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
