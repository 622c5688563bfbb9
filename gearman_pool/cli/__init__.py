"""The program ``gearman-pool``: submit, work, look and try out from a shell.

``program`` is the whole, with the table of the subcommands. ``commands`` has a module for each of these, ``processes``
what ``work`` runs, and ``terminal`` what a person sees and types. ``servers`` and ``exits`` are what all share: whom to
talk with, and how to end. The program stands on the public names of the package only.
"""

from __future__ import annotations

from .program import main

__all__ = ["main"]
