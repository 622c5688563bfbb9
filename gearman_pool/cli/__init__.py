"""The program ``gearman-pool``: submit, work, look and try out from a shell.

It stands on the public names of the package only.
"""

from __future__ import annotations

from .program import main

__all__ = ["main"]
