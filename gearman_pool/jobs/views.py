"""What is told of a job: its updates, its status, and the reference that a program keeps.

These never change once they are made, so any thread may use them. Nothing here asks a server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["JobReference", "JobStatus", "JobUpdate", "as_text", "fraction"]


@dataclass(frozen=True, slots=True)
class JobUpdate:
    """What a worker sends while it works.

    Attributes:
        kind: ``"data"``, ``"warning"`` or ``"status"``.
        data: The decoded payload of data and warnings.
        numerator, denominator: The numbers of a status.

    Example::

        for update in future.updates(timeout=60):
            print(update.kind, update.data)
    """

    kind: str
    data: Any = None
    numerator: int = 0
    denominator: int = 0


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How a job stands at its server.

    Attributes:
        known: The server has it. One that has finished is not known, nor is one that never was.
        running: A worker has it.
        numerator, denominator: What the worker said last of its progress; 0 and 0 before.
        waiting_clients: How many clients wait for its result; None where the server was asked by handle.
        server: The server that answered; None where none was asked.

    Example::

        status = client.status(future)
        print("at a worker" if status.running else "in line" if status.known else "not there")
    """

    known: bool
    running: bool
    numerator: int = 0
    denominator: int = 0
    waiting_clients: int | None = None
    server: str | None = None

    @property
    def fraction(self) -> float | None:
        """The progress from 0.0 to 1.0, or None if the worker has said nothing of it."""
        return fraction(self.numerator, self.denominator)


def as_text(name: Any) -> str:
    """Return a task's name, or a unique, as text, however it was given."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def fraction(numerator: int, denominator: int) -> float | None:
    """Return a worker's numbers as a part of 1, or None if they say nothing."""
    if denominator <= 0:
        return None
    return min(1.0, max(0.0, numerator / denominator))


@dataclass(frozen=True, slots=True)
class JobReference:
    """Where an accepted job is: what a web application keeps in its session or database.

    ``str(reference)`` and `parse` turn it into text and back, in any process.

    Attributes:
        server: The server's address, such as ``"10.0.0.1:4730"``.
        handle: The server's name for the job.
        unique: The job's unique.

    Example::

        reference = client.submit_background("resize", image).result(timeout=5)
        session["job"] = str(reference)
        ...
        client.status(JobReference.parse(session["job"])).running
    """

    server: str
    handle: str
    unique: str

    def __str__(self) -> str:
        return "/".join(
            quote(part, safe=":[].-_", errors="surrogateescape") for part in (self.server, self.handle, self.unique)
        )

    @classmethod
    def parse(cls, text: str) -> JobReference:
        """Return the reference that `str` made this text of.

        Raises:
            ValueError: it is not such a text.

        Example::

            client.status(JobReference.parse(session["job"])).running
        """
        parts = text.split("/") if isinstance(text, str) else []
        if len(parts) != 3 or not parts[0] or not parts[1]:
            raise ValueError("not a job reference: it has the form SERVER/HANDLE/UNIQUE, as str(JobReference) gives it")
        return cls(*(unquote(part, errors="surrogateescape") for part in parts))


# Where users know these classes, and where pickles look for them, those of older versions and those that they read.
for _class in (JobReference, JobStatus, JobUpdate):
    _class.__module__ = "gearman_pool.job"
