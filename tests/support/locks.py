"""Locks that note which of them is taken while another is held."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

__all__ = ["Locks"]


class Locks:
    """The locks that objects of the named classes make from now on, until the patch is undone.

    A lock that is taken by one thread and released by another, or never, guards nothing: classes that make such ones
    are not for this.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *classes: str) -> None:
        #: (held, taken) for each lock that was taken while another was held, by the classes that made them.
        self.nested: set[tuple[str, str]] = set()
        #: The classes whose locks were taken.
        self.taken: set[str] = set()
        self._held = threading.local()
        real = threading.Lock

        def make() -> Any:
            owner = type(sys._getframe(1).f_locals.get("self")).__name__
            return _Noted(self, real(), owner) if owner in classes else real()

        patch.setattr(threading, "Lock", make)

    def note(self, name: str, taken: bool) -> None:
        """A lock was taken, or released."""
        held = self._held.__dict__.setdefault("names", [])
        if not taken:
            held.remove(name)
            return
        self.taken.add(name)
        self.nested.update((other, name) for other in held)
        held.append(name)


class _Noted:
    def __init__(self, locks: Locks, lock: Any, name: str) -> None:
        self._locks = locks
        self._lock = lock
        self._name = name

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken: bool = self._lock.acquire(blocking, timeout)
        if taken:
            self._locks.note(self._name, True)
        return taken

    def release(self) -> None:
        self._locks.note(self._name, False)
        self._lock.release()

    def locked(self) -> bool:
        locked: bool = self._lock.locked()
        return locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
