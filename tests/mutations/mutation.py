"""What a mutation is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutation"]


@dataclass(frozen=True)
class Mutation:
    """One small change that breaks a promise.

    Attributes:
        name: Unique among all, in words with hyphens.
        file: The path of the file that is changed, from the project's root.
        old: A text that stands in the file exactly once.
        new: What takes its place.
        tests: Tests by pytest's names; each must fail with the change. Of a parametrized one, at least one case.
        breaks: What a user would see.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    breaks: str
