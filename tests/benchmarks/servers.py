"""The servers that runs are measured on, and the C programs, compiled on the spot."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from typing_extensions import Self

from gearman_pool.testing.gearmand import find_gearmand

from ..support.gearmand import Gearmand
from ..support.raw import SUBMIT_JOB_BG, RawConnection
from ..support.stunnel import Stunnel
from .works import HOST, PAYLOAD, TASK

__all__ = ["ROOT", "InstantServer", "Missing", "Programs", "php", "queue_jobs", "start_servers"]

#: Where ``python -m tests.benchmarks...`` works.
ROOT = Path(__file__).parents[2]

#: Completes no job, ever.
NEVER = -1


class Missing(Exception):
    """Something that is not part of the project is not installed; the text says what."""


class Programs:
    """C programs in a temporary directory, compiled when first asked for. Leave the ``with`` block to remove them."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="gearman-pool-benchmark-")
        self._found: dict[str, Path | str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._directory.cleanup()

    def get(self, name: str, *libraries: str) -> Path:
        """The program made from ``name``.c.

        Raises:
            Missing: there is no compiler, or not what the program needs.
        """
        if name not in self._found:
            self._found[name] = self._compile(name, libraries)
        found = self._found[name]
        if isinstance(found, str):
            raise Missing(found)
        return found

    def _compile(self, name: str, libraries: tuple[str, ...]) -> Path | str:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            return "no C compiler"
        program = Path(self._directory.name, name)
        source = Path(__file__).with_name(f"{name}.c")
        command = [compiler, "-O2", "-o", str(program), str(source), *(f"-l{library}" for library in libraries)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{name}.c does not compile: {(done.stderr.strip().splitlines() or ['?'])[0]}"
        return program


def php() -> str:
    """The PHP interpreter; whether it has the gearman extension its program finds out.

    Raises:
        Missing: there is none.
    """
    found = shutil.which("php")
    if found is None:
        raise Missing("php is not installed")
    return found


class InstantServer:
    """A server that answers at once: the C program, or its asyncio twin where there is no compiler for it.

    ``lag``: 0 completes jobs at once, ``n`` when the n-th job after it has come, `NEVER` not at all.
    """

    def __init__(self, programs: Programs, lag: int = 0) -> None:
        try:
            command = [str(programs.get("instant_server"))]
            self.kind = "C"
        except Missing:
            command = [sys.executable, "-m", f"{__package__}.instant_server"]
            self.kind = "asyncio"
        # It ends when its input does, so it cannot outlive this process.
        self._process = subprocess.Popen(
            [*command, str(lag)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.strip().isdigit():
            self.close()
            raise RuntimeError(f"the instant server ({self.kind}) ended at once: {self._process.returncode}")
        self.port = int(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process. May be called again."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_servers(stack: ExitStack, programs: Programs, kind: str, count: int, lag: int) -> list[int]:
    """Start the servers of a run, to be closed with ``stack``, and return their ports.

    Raises:
        Missing: the server is not installed.
    """
    if kind == "gearmand":
        if find_gearmand() is None:
            raise Missing("gearmand is not installed")
        # As many threads as the published figures were measured with.
        return [stack.enter_context(Gearmand(arguments=("--threads", "2"))).port for _ in range(count)]
    ports = [stack.enter_context(InstantServer(programs, lag)).port for _ in range(count)]
    return [_tls_port(stack, port) for port in ports] if kind == "tls" else ports


def _tls_port(stack: ExitStack, port: int) -> int:
    try:
        import trustme
    except ImportError as error:
        raise Missing(str(error)) from None
    try:
        return stack.enter_context(Stunnel(f"{HOST}:{port}", trustme.CA().issue_cert(HOST))).port
    except FileNotFoundError as error:
        raise Missing(str(error)) from None


def queue_jobs(port: int, count: int) -> None:
    """Leave so many background jobs with a server."""
    with RawConnection((HOST, port)) as connection:
        for first in range(0, count, 1000):
            numbers = range(first, min(first + 1000, count))
            for number in numbers:
                connection.send(SUBMIT_JOB_BG, TASK.encode(), b"%d" % number, PAYLOAD)
            for _ in numbers:
                connection.receive()
