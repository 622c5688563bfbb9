"""Where connecting hangs: in the network, in the greeting, or in the resolver."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from gearman_pool.testing import FaultProxy

__all__ = ["HANGING", "black_hole", "deaf_port", "let_resolver_hang"]


@contextlib.contextmanager
def deaf_port() -> Iterator[str]:
    """A port whose backlog is full: the kernel drops further packets, and connecting hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.2)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                yield f"127.0.0.1:{listener.getsockname()[1]}"
                return
    pytest.skip("this system's kernel answers though the backlog is full")


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """A port that accepts, reads, and never says a word."""
    with FaultProxy("127.0.0.1:1") as proxy:
        proxy.swallow()
        yield proxy.address


#: What makes a port to which connecting, or the greeting, hangs.
HANGING: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "a full backlog": deaf_port,
    "a black hole": black_hole,
}


def let_resolver_hang(host: str) -> list[str]:
    """Have this process never get an answer to what it asks for this name; return a list that gets each question."""
    real: Callable[..., Any] = socket.getaddrinfo
    asked: list[str] = []

    def getaddrinfo(name: str, *arguments: object, **options: object) -> object:
        if name == host:
            asked.append(name)
            threading.Event().wait()
        return real(name, *arguments, **options)

    socket.getaddrinfo = getaddrinfo  # type: ignore[assignment]
    return asked
