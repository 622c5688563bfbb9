"""One mutation of the package: a promise broken on purpose, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutation"]


@dataclass(frozen=True)
class Mutation:
    """A text of one file, what it becomes, and the tests that fail with it."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    breaks: str
