"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutation"]


@dataclass(frozen=True)
class Mutation:
    """A change of one place that a test must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    breaks: str
