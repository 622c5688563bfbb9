"""The Gearman protocol without I/O: bytes in, events out. Also python-gearman's names for it."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # python-gearman's names, which nobody else pays for; see `gearman_pool.protocol.python_gearman`.
    if name.isupper() or name.endswith(("_command", "_command_name", "_priority")):
        from . import python_gearman

        if name in python_gearman.__all__:
            return getattr(python_gearman, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
