"""A mutation: a small change of the package that some tests must notice."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutation"]


@dataclass(frozen=True)
class Mutation:
    """A change of one file, the tests that must fail with it, and what a user would see."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    breaks: str
