"""What an argument may be: one rule for each kind, whoever is given it.

A value of the wrong type is a TypeError, and so is a bool where a number is wanted; a wrong value of the right type is
a ValueError. The text names the argument and says what to write. Any thread may call these; they change nothing.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = ["LONGEST_DURATION", "check_count", "check_duration", "check_ssl_context", "check_timeout", "shown"]

#: Seconds. The system takes at most 2**31 ms where it waits for sockets; this is eleven days, and a round number.
LONGEST_DURATION = 1_000_000.0


def check_count(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number from ``least`` to ``most``.

    Raises:
        TypeError, ValueError: ``value`` is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if most is not None and not least <= value <= most:
        raise ValueError(f"{name} is {value!r}; it must be a whole number from {least} to {most}")
    if value < least:
        raise ValueError(f"{name} is {value!r}; it must be {least} or more")
    return value


def check_duration(name: str, value: Any) -> float:
    """Return a number of seconds above 0, at most `LONGEST_DURATION`.

    Raises:
        TypeError, ValueError: ``value`` is none.
    """
    _check_seconds(name, value)
    # NaN compares as neither.
    if not 0 < value <= LONGEST_DURATION:
        raise ValueError(f"{name} is {value!r}; it must be a number of seconds above 0, at most {LONGEST_DURATION:g}")
    return value  # type: ignore[no-any-return]


def check_timeout(name: str, value: Any, zero: bool = False) -> float:
    """Return a finite number of seconds above 0, or of 0 where ``zero`` says so, however long.

    Raises:
        TypeError, ValueError: ``value`` is none.
    """
    _check_seconds(name, value)
    if not (value > 0 or (zero and value == 0)) or math.isinf(value):
        least = "of 0 or more" if zero else "above 0"
        raise ValueError(f"{name} is {value!r}; it must be a finite number of seconds {least}")
    return value  # type: ignore[no-any-return]


def _check_seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {value!r}; it must be a number of seconds")


def check_ssl_context(context: Any) -> None:
    """Let through an `ssl.SSLContext`, or None.

    Raises:
        TypeError: ``context`` is something else.
    """
    if context is None:
        return
    import ssl

    if not isinstance(context, ssl.SSLContext):
        raise TypeError(f"ssl_context is of type {type(context).__name__}; it must be an ssl.SSLContext")


def shown(text: str) -> str:
    """Return text that a user gave, for an error: in quotes, and not the whole of it where it is long."""
    return repr(text if len(text) <= 60 else text[:60] + "...")
