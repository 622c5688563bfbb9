"""Child processes that end with the test run, or by a deadline."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from .programs import find_program

__all__ = [
    "REQUIRE_REAL",
    "ROOT",
    "ChildProcess",
    "Ended",
    "find_program",
    "handler_before_python",
    "run_program",
    "tied_to_us",
]

#: The folder of the whole project.
ROOT = Path(__file__).resolve().parents[2]

#: True when a missing server, tool or compiler must fail the tests that need it, not skip them.
REQUIRE_REAL = os.environ.get("GEARMAN_POOL_REQUIRE_REAL", "") not in ("", "0")

#: Children that still run, and the process that started them: a fork of it must leave them alone.
_running: set[ChildProcess] = set()
_owner = os.getpid()


def handler_before_python(folder: Path) -> dict[str, str]:
    """The environment with which a program has a handler of C code's for SIGTERM before Python starts.

    So it is where Python is embedded. Python says None in place of such a handler, and cannot put it back. Skips the
    test where there is no C compiler.
    """
    compiler = find_program("gcc") or find_program("cc")
    if compiler is None:
        pytest.skip("a C compiler is missing")
    source, library = folder / "early.c", folder / "early.so"
    source.write_text(
        "#include <signal.h>\nstatic void handle(int number) {}\n"
        "__attribute__((constructor)) static void install(void) { signal(SIGTERM, handle); }\n"
    )
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    return {"LD_PRELOAD": str(library)}


def tied_to_us(command: Sequence[str]) -> list[str]:
    """How a program is started that the kernel kills when the thread that starts it dies, by whatever cause.

    It takes util-linux's setpriv. Only the main thread asks for that, because others end earlier.
    """
    setpriv = find_program("setpriv")
    tied = setpriv and threading.current_thread() is threading.main_thread()
    return [*([setpriv, "--pdeathsig", "KILL"] if tied else []), *command]


class ChildProcess:
    """A child process whose output goes to a file, and which dies with this process as far as the system allows.

    At the interpreter's end it is killed, and see `tied_to_us`.
    """

    def __init__(
        self, command: Sequence[str], log: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._own_log = log is None
        if log is None:
            descriptor, name = tempfile.mkstemp(prefix="gearman-pool-test-", suffix=".log")
            os.close(descriptor)
            log = Path(name)
        self.log_path = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                tied_to_us(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                close_fds=True,
                env=environment,
            )
        _running.add(self)

    @property
    def pid(self) -> int:
        """The process's number, also after its end."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def log(self, limit: int = 10_000) -> str:
        """What it has written so far, the last ``limit`` characters of it."""
        return self.log_path.read_text("utf-8", "replace")[-limit:]

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.running:
            self.process.send_signal(number)

    def end(self, number: int = signal.SIGKILL, timeout: float = 5.0) -> None:
        """Send a signal and wait for the end; after ``timeout`` seconds kill it."""
        if self.running:
            self.process.send_signal(number)
            if number != signal.SIGKILL:
                # A stopped process takes no signal but SIGKILL until it goes on.
                self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout)
        _running.discard(self)

    def close(self) -> None:
        """Kill it if it still runs, and remove the file of its output."""
        self.end()
        if self._own_log:
            self.log_path.unlink(missing_ok=True)


@atexit.register
def _end_all() -> None:
    if os.getpid() == _owner:
        for child in list(_running):
            child.close()


class Ended(NamedTuple):
    """How a program ended."""

    code: int
    output: str
    errors: str


def run_program(arguments: Sequence[str], deadline: float) -> Ended:
    """Run this Python with these arguments; after ``deadline`` seconds kill it, and all that it forked, and fail."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=deadline)
    except subprocess.TimeoutExpired:
        # SIGABRT first: it makes faulthandler print where every thread stands.
        process.send_signal(signal.SIGABRT)
        try:
            output, errors = process.communicate(timeout=2.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, errors = process.communicate()
        raise AssertionError(f"no end within {deadline:g} s: {arguments}\n{output}\n{errors}") from None
    finally:
        # What it forked stays in its session; nothing of it may outlive the test.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.stdout.close()
        process.stderr.close()
        process.wait()
    return Ended(process.returncode, output, errors)
