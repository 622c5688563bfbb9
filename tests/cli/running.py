"""Runs the program as users do: a process of its own, on pipes or on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from typing_extensions import Self

from tests.support.waiting import wait_until

__all__ = ["PATIENCE", "REPOSITORY", "Running", "Terminal", "environment", "run", "without_rich"]

REPOSITORY = Path(__file__).parents[2]

#: Seconds. The machine may be busy with much else.
PATIENCE = 40.0


def environment(server=None, **more):
    """The environment for the program, with the server that it is to use."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GEARMAN", "COV"))}
    path = os.pathsep.join(filter(None, [more.pop("path", None), str(REPOSITORY), kept.get("PYTHONPATH")]))
    kept.update(PYTHONPATH=path, PYTHONWARNINGS="error", **more)
    if server is not None:
        kept["GEARMAN_SERVERS"] = server if isinstance(server, str) else server.address
    return kept


def without_rich(folder):
    """Return options for `run` and its like that have the program find no rich."""
    (folder / "sitecustomize.py").write_text("import sys; sys.modules['rich'] = None\n")
    return {"path": str(folder)}


def command(*arguments):
    return [sys.executable, "-m", "gearman_pool", *map(str, arguments)]


def run(*arguments, server=None, stdin=b"", timeout=PATIENCE, **more):
    """Run the program to its end and return what `subprocess.run` does."""
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        timeout=timeout,
        env=environment(server, **more),
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


class Running:
    """The program while it runs, its output in pipes. Ended at the end of the ``with`` block if need be."""

    def __init__(self, *arguments, server=None, cwd=None, **more):
        self.process = subprocess.Popen(
            command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(server, **more),
            cwd=cwd,
            # Ctrl-C on a terminal reaches a group, and must not reach the tests.
            start_new_session=True,
        )
        self._collected = {"stdout": b"", "stderr": b""}
        for stream in (self.process.stdout, self.process.stderr):
            os.set_blocking(stream.fileno(), False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_):
        # Those that it has started are in its group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _read(self, name):
        stream = getattr(self.process, name)
        with contextlib.suppress(ValueError):
            self._collected[name] += stream.read() or b""
        return self._collected[name].decode()

    @property
    def out(self):
        return self._read("stdout")

    @property
    def err(self):
        return self._read("stderr")

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait_for(self, text, stream="stdout"):
        """Wait until the output matches a pattern, and return the match."""
        message = lambda: f"{text!r} in\n{self._read(stream)}\nstdout: {self.out}\nstderr: {self.err}"  # noqa: E731
        return wait_until(lambda: re.search(text, self._read(stream)), PATIENCE, message=message)

    def interrupt(self, number=signal.SIGINT):
        self.process.send_signal(number)

    def end(self):
        """Wait for the end and return the exit code."""

        def ended():
            self._read("stdout")
            self._read("stderr")
            return self.process.poll() is not None

        wait_until(ended, PATIENCE, message=lambda: f"the program ends; stdout: {self.out}\nstderr: {self.err}")
        self._read("stdout")
        self._read("stderr")
        assert "Traceback" not in self.err, self.err
        return self.process.returncode


def start_in_the_background():
    """Go on in a child in a group of its own, as a shell has it; wait here for its end, and hand signals on."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        return
    signal.signal(signal.SIGTERM, lambda number, _: os.kill(child, number))
    os.closerange(3, 1024)
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]) & 255)


class Terminal:
    """The program on a terminal of its own, in the foreground unless told otherwise."""

    def __init__(self, *arguments, server=None, rows=40, columns=120, background=False, **more):
        self.text = ""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._master = master

        def take_the_terminal():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            if background:
                start_in_the_background()

        self.process = subprocess.Popen(
            command(*arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(server, TERM="xterm-256color", **more),
            preexec_fn=take_the_terminal,  # noqa: PLW1509 - this process has no threads that hold locks it needs
        )
        # Kept open, so that the terminal can be asked for its state after the program's end.
        self._slave = slave

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        os.close(self._slave)
        os.close(self._master)

    def type(self, text):
        os.write(self._master, text.encode())

    def echoes(self):
        """Whether the terminal is as it was: it shows what is typed, and waits for Enter."""
        flags = termios.tcgetattr(self._slave)[3]
        return bool(flags & termios.ECHO and flags & termios.ICANON)

    def read(self, timeout=0.05):
        """Take what was printed, and return all that was printed so far."""
        while select.select([self._master], [], [], timeout)[0]:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            self.text += data.decode("utf-8", "replace")
            timeout = 0
        return self.text

    def wait_for(self, pattern):
        return wait_until(
            lambda: re.search(pattern, self.read()), PATIENCE, message=lambda: f"{pattern!r} in {self.text}"
        )

    def end(self):
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the program ends; {self.text}"
            self.read()
        self.read()
        assert "Traceback" not in self.text, self.text
        return self.process.returncode
