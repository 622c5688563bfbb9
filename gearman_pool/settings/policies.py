"""How a server is chosen for a job.

A policy is called with the servers that can take the job now (at least two; one needs no choice), in the order of the
configuration, and the job's key: its unique if the user gave one, else None. It returns one of the servers. It runs in
the caller's thread or, for a job that had to wait for a server or is sent again, on the I/O thread: it must be
thread-safe and quick, and must not block.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Protocol

__all__ = ["POLICIES", "STICKY", "Choosable", "Policy", "make_policy"]


class Choosable(Protocol):
    """What a policy sees of a server."""

    @property
    def key(self) -> bytes:
        """The server's address, as bytes."""

    @property
    def pending(self) -> int:
        """How many requests and jobs are in flight there."""


Policy = Callable[[Sequence[Any], "bytes | None"], Any]


def _random() -> Callable[[Sequence[Choosable], bytes | None], Choosable]:
    # A generator of its own: the module's is the program's, whose numbers would depend on the jobs it submits, and
    # without a GIL it has one lock for all threads.
    number = random.Random().random

    def anyone(servers: Sequence[Choosable], key: bytes | None) -> Choosable:
        # Not Random.choice: half the time, and the bias of a float is of no matter here.
        return servers[int(number() * len(servers))]

    return anyone


def _round_robin() -> Policy:
    count = itertools.count()

    def round_robin(servers: Sequence[Choosable], key: bytes | None) -> Choosable:
        return servers[next(count) % len(servers)]

    return round_robin


def _failover(servers: Sequence[Choosable], key: bytes | None) -> Choosable:
    return servers[0]


def _least_pending(servers: Sequence[Choosable], key: bytes | None) -> Choosable:
    return min(servers, key=lambda server: server.pending)


def _unique() -> Policy:
    anyone = _random()

    def unique(servers: Sequence[Choosable], key: bytes | None) -> Choosable:
        """Rendezvous hashing: equal keys meet on one server, and a lost server moves only its own keys."""
        if key is None:
            return anyone(servers, key)
        return max(servers, key=lambda server: blake2b(server.key + b"\0" + key, digest_size=8).digest())

    return unique


#: The policies by name; each value makes a fresh one, because some have a state.
POLICIES: dict[str, Callable[[], Policy]] = {
    "random": _random,
    "round_robin": _round_robin,
    "failover": lambda: _failover,
    "least_pending": lambda: _least_pending,
    "unique": _unique,
}

#: Policies under which equal keys go to the same server, so that the server can coalesce them.
STICKY = frozenset(("failover", "unique"))


def make_policy(policy: str | Policy) -> Policy:
    """Return the policy of that name, or the callable itself."""
    return POLICIES[policy]() if isinstance(policy, str) else policy
