"""Single keys from a terminal, without Enter.

For one thread. Nothing is read but from a terminal in the foreground, which is left as it was.
"""

from __future__ import annotations

import os
import selectors
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Keys"]


class Keys:
    """Reads keys from stdin while it is a terminal in the foreground; elsewhere it only waits."""

    def __init__(self) -> None:
        self._before: list[object] | None = None

    def __enter__(self) -> Self:
        if sys.stdin is not None and sys.stdin.isatty() and _in_the_foreground(sys.stdin.fileno()):
            import termios
            import tty

            number = sys.stdin.fileno()
            self._before = termios.tcgetattr(number)
            tty.setcbreak(number)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, self._before)  # type: ignore[arg-type]

    def wait(self, seconds: float) -> str:
        """Return the key that is pressed within so many seconds, or an empty text."""
        if self._before is None:
            time.sleep(seconds)
            return ""
        number = sys.stdin.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(number, selectors.EVENT_READ)
            if not selector.select(seconds):
                return ""
        return os.read(number, 1).decode("ascii", "replace")


def _in_the_foreground(terminal: int) -> bool:
    """Whether the shell has this process there. The kernel stops one that changes the terminal from elsewhere."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # not this process's terminal
        return False
