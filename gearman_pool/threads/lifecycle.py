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
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["register"]

T = TypeVar("T")

#: The identifier of the main thread, in which signal handlers raise. In the child of a fork that is the thread that
#: forked, which alone writes this there. To be read through the module, for each look.
main_thread: int | None = threading.main_thread().ident


# Who exists, and what is to be called with it in the child of a fork and at the exit. Changed and copied by single
# operations of dict, each of them atomic: a lock here could be held by another thread at the moment of a fork.
_living: dict[int, tuple[weakref.ref[Any], Callable[[Any], object], Callable[[Any], object]]] = {}


def register(living: T, after_fork_in_child: Callable[[T], object], at_exit: Callable[[T], object]) -> None:
    """Have two functions called with ``living``, as long as it exists. Any thread may call this.

    Args:
        living: Something with a thread and sockets of its own; this keeps no reference that would keep it alive.
        after_fork_in_child: Drops the parent's threads, sockets and locks. Runs in the child, where no other thread is.
        at_exit: Sends what must be sent, and stops. Runs at the interpreter's end.
    """
    key = id(living)

    def remove(_: object, *, pop: Callable[..., object] = _living.pop) -> None:
        pop(key, None)

    _living[key] = weakref.ref(living, remove), after_fork_in_child, at_exit


def _after_fork_in_child() -> None:
    global main_thread
    main_thread = threading.get_ident()
    trouble: Exception | None = None
    for reference, after_fork_in_child, _ in list(_living.values()):
        living = reference()
        try:
            if living is not None:
                after_fork_in_child(living)
        except Exception as error:  # the others must not be left with the parent's locks
            trouble = error
    if trouble is not None:
        raise trouble


def _at_exit() -> None:
    for reference, _, at_exit in list(_living.values()):
        living = reference()
        # One client's trouble must not keep the others from sending what they hold; nothing can be reported any more.
        with contextlib.suppress(Exception):
            if living is not None:
                at_exit(living)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
