"""One mutation: a change of the code that a test must notice."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mutation"]


@dataclass(frozen=True)
class Mutation:
    """A change of one file, and the tests that each fail with it.

    Attributes:
        name: Unique among all mutations.
        file: What is changed, from the project's root.
        old: The exact text; it stands once in the file.
        new: What it becomes.
        tests: Each of these fails with the mutation.
        breaks: What a user would see.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    breaks: str
