"""python-gearman's module of this name, but for ``select``: waiting for sockets is the I/O thread's work."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any, TypeVar

from .settings.addresses import parse_server

__all__ = ["Stopwatch", "disambiguate_server_parameter", "unlist"]

_T = TypeVar("_T")


class Stopwatch:
    """Tells how much is left of a time limit. It goes by the monotonic clock, which nobody sets.

    Args:
        time_remaining: The limit in seconds from now; none if None.

    Attributes:
        stop_time: When it ends, in seconds of `time.monotonic`; None if it does not.

    Example::

        watch = Stopwatch(5.0)
        while watch.has_time_remaining():
            client.wait_until_jobs_completed(requests, poll_timeout=watch.get_time_remaining())
    """

    def __init__(self, time_remaining: float | None) -> None:
        self.stop_time: float | None = None if time_remaining is None else monotonic() + time_remaining

    def get_time_remaining(self) -> float | None:
        """Return the seconds that are left, 0.0 if none are, or None if there is no limit.

        Example::

            Stopwatch(None).get_time_remaining()  # None
        """
        return None if self.stop_time is None else max(0.0, self.stop_time - monotonic())

    def has_time_remaining(self, time_comparison: float | None = None) -> bool:
        """Return whether the limit lies ahead.

        Args:
            time_comparison: The moment to judge by, in seconds of `time.monotonic`; now if None.

        Example::

            Stopwatch(0).has_time_remaining()  # False
        """
        if self.stop_time is None:
            return True
        return (monotonic() if time_comparison is None else time_comparison) < self.stop_time


def disambiguate_server_parameter(hostport_tuple: Any) -> tuple[str, int]:
    """Return host and port of a server, given in any form that `GearmanClient` takes.

    Raises:
        ValueError, TypeError: it is no server.

    Example::

        disambiguate_server_parameter("[::1]:4731")  # ("::1", 4731)
    """
    address = parse_server(hostport_tuple)
    return address.host, address.port


def unlist(given_list: Sequence[_T]) -> _T | None:
    """Return the only item of a list; None if it is empty.

    Raises:
        ValueError: there are several.

    Example::

        request = unlist(client.submit_multiple_jobs([job]))
    """
    if len(given_list) > 1:
        raise ValueError(f"a list of {len(given_list)} items is no single item")
    return given_list[0] if given_list else None
