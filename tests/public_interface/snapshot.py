"""The public interface as it was accepted last."""

from __future__ import annotations

import difflib
from pathlib import Path

__all__ = ["SNAPSHOT", "difference"]

SNAPSHOT = Path(__file__).with_name("interface.txt")


def difference(before: str, after: str) -> list[str]:
    """Return the lines that went, with a minus before them, and those that came, with a plus."""
    compared = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in compared if not line.startswith(("---", "+++", "@@"))]
