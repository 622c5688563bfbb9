"""Runs a program whose clock is held by somebody else.

Usage: ``python -m tests.seeds.run_with_clock DESCRIPTOR PROGRAM``. What the program imports as ``time`` has a ``sleep``
that asks over the descriptor, a socket, how late it is when it wakes. All other modules have the real time.
"""

from __future__ import annotations

import builtins
import socket
import sys
import types
from pathlib import Path
from typing import Any


def main() -> None:
    """Run the program."""
    with socket.socket(fileno=int(sys.argv[1])) as sock, sock.makefile("rw", encoding="ascii") as stream:
        clock: Any = types.ModuleType("time")
        now = 0.0

        def sleep(seconds: float) -> None:
            nonlocal now
            print(now + seconds, file=stream, flush=True)
            now = float(stream.readline())

        clock.sleep = sleep
        clock.time = lambda: now

        def import_with_clock(name: str, *arguments: Any, **keywords: Any) -> Any:
            return clock if name == "time" else builtins.__import__(name, *arguments, **keywords)

        program = Path(sys.argv[2])
        own_builtins = {**vars(builtins), "__import__": import_with_clock}
        names = {"__name__": "__main__", "__builtins__": own_builtins}
        exec(compile(program.read_text(), program.name, "exec"), names)


if __name__ == "__main__":
    main()
