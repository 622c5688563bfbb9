"""Where programs stand. Needs nothing but Python."""

from __future__ import annotations

import os
import shutil

__all__ = ["find_program"]


def find_program(name: str) -> str | None:
    """The path of a program, looked for in the places of system programs too, or None."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/sbin"])
    return shutil.which(name, path=path)
