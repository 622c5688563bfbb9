"""Running the documents' programs as a user would: whole, in a process of their own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from typing_extensions import Self

from ..support.gearmand import RunningServer

__all__ = ["Program"]

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).resolve().parents[2]


class Program:
    """One of ``programs``, running. The addresses in it become those of the test's servers; nothing else changes.

    ``tail`` is run behind it: the documents define classes, and read answers, that they do not use. With
    ``clock=True`` its sleeps last as long as the test says: `asleep_until` and `wake`.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        server: RunningServer,
        other: RunningServer | None = None,
        *,
        tail: str = "",
        clock: bool = False,
    ) -> None:
        text = (PROGRAMS / f"{name}.py").read_text()
        assert "localhost:4730" in text or tail
        text = text.replace("localhost:4730", server.address)
        if other is not None:
            assert "otherhost:4730" in text
            text = text.replace("otherhost:4730", other.address)
        script = directory / f"{name}.py"
        script.write_text(f"{text}\n{tail}")
        self._socket: socket.socket | None = None
        theirs: socket.socket | None = None
        # Whatever it warns of is an error: a user would see it.
        command = [sys.executable, "-W", "error", "-u"]
        if clock:
            self._socket, theirs = socket.socketpair()
            self._socket.settimeout(20)
            self._stream = self._socket.makefile("rw", encoding="ascii")
            command += ["-m", "tests.seeds.run_with_clock", str(theirs.fileno())]
        self.process = subprocess.Popen(
            [*command, str(script)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            pass_fds=[theirs.fileno()] if theirs else [],
        )
        if theirs:
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        if self._socket is not None:
            self._stream.close()
            self._socket.close()

    def asleep_until(self) -> float:
        """Wait until it sleeps, and return when, by its clock, it wants to wake."""
        line = self._stream.readline()
        assert line, f"the program has ended:\n{self.process.communicate(timeout=20)[1]}"
        return float(line)

    def wake(self, now: float) -> None:
        """Wake it, and tell it how late it is."""
        print(now, file=self._stream, flush=True)

    def output(self, logged: str = "", timeout: float = 30.0) -> list[str]:
        """Wait until it has ended of itself, and return the lines that it printed.

        Nothing may stand on its standard error but lines of the log that match ``logged``.
        """
        output, errors = self.process.communicate(timeout=timeout)
        complaints = [line for line in errors.splitlines() if not logged or not re.search(logged, line)]
        assert (self.process.returncode, complaints) == (0, []), f"{output}\n{errors}"
        return output.splitlines()

    def interrupt(self, timeout: float = 30.0) -> list[str]:
        """End it as Ctrl-C does, and return the lines that it printed."""
        self.process.send_signal(signal.SIGINT)
        output, errors = self.process.communicate(timeout=timeout)
        assert "KeyboardInterrupt" in errors.splitlines()[-1], errors
        return output.splitlines()
