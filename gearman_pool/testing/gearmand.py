"""`Gearmand`: a real gearmand process on a free loopback port, for tests.

Threads: one at a time may use it. No process is ended but the one that it has started.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..admin_client import GearmanAdminClient
from ..errors import GearmanError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Gearmand", "find_gearmand"]

_HOST = "127.0.0.1"

#: How long a server may take to answer, or to end, in seconds.
_START_TIMEOUT = 20.0
_END_TIMEOUT = 5.0

#: How often another port is tried when somebody else was faster to take one.
_ATTEMPTS = 5


def find_gearmand(path: str | None = None) -> str | None:
    """Return the path of gearmand, or None where it is not installed.

    Args:
        path: Where it is, or its name; looked for among the system's programs if None.
    """
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(path or "gearmand", path=places)


class Gearmand:
    """A real gearmand. Methods may be called from any thread, one at a time.

    Args:
        program: Its path; looked for if None.
        arguments: More of its options, such as ``("--job-retries", "1")``.
        port: The port to listen on; a free one if 0. It stays the same when the server is started again.

    Raises:
        FileNotFoundError: it is not installed.
        RuntimeError: it does not answer; the text has the end of its log.

    Example::

        with Gearmand() as server, GearmanClient([server.address]) as client:
            future = client.submit("nobody")
            server.kill()
    """

    def __init__(self, program: str | None = None, arguments: Sequence[str] = (), port: int = 0) -> None:
        found = find_gearmand(program)
        if found is None:
            raise FileNotFoundError("gearmand is not installed (Debian's package gearman-job-server)")
        self._command = [found, *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="gearman-pool-")
        self._log = Path(self._directory.name, "log")
        self.port: int = port
        try:
            self._start_first()
        except BaseException:  # Ctrl+C too: the folder must not be left behind
            self.close()
            raise

    def _start_first(self) -> None:
        if self.port:
            self.start()
            return
        for attempt in range(_ATTEMPTS):
            self.port = _free_port()
            try:
                self.start()
            except RuntimeError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Gearmand {self.address} {'running' if self.running else 'down'}>"

    @property
    def host(self) -> str:
        """The address it listens on."""
        return _HOST

    @property
    def address(self) -> str:
        """``host:port``, as a client takes it."""
        return f"{_HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The address as a DSN."""
        return f"gearman://{self.address}/"

    @property
    def pid(self) -> int:
        """The number of its process.

        Raises:
            RuntimeError: it is not running.
        """
        if self._process is None:
            raise RuntimeError("gearmand is not running; call start()")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether its process lives; a paused one does."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, after `kill` or `stop`; returns when it answers. Does nothing if it runs.

        Raises:
            RuntimeError: it ended, or did not answer; the text has the end of its log.
        """
        if self.running:
            return
        pid_file = Path(self._directory.name, "pid")
        command = [*self._command, "-L", _HOST, "-p", str(self.port), "-l", "stderr", "-P", str(pid_file)]
        if os.geteuid() == 0:
            command += ["-u", "root"]
        self._process = self._launch(command)
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() >= deadline:
                self.kill()
                raise RuntimeError(f"gearmand does not answer on port {self.port}:\n{self.log()}")

    def _launch(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _answers(self) -> bool:
        # The answer's pid tells it from another server that has taken the port.
        try:
            with GearmanAdminClient([self.address], poll_timeout=1.0, reconnect_backoff=(0.02, 0.05)) as admin:
                return int(admin.get_pid()) == self.pid
        except (GearmanError, ValueError):
            return False

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it with SIGTERM; after some seconds, with SIGKILL."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
            # A stopped process heeds no other signal.
            process.send_signal(signal.SIGCONT)
        try:
            process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pause(self) -> None:
        """Freeze it with SIGSTOP: it still takes connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        # The signal takes a moment, in which it could still answer.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def log(self, limit: int = 4000) -> str:
        """Return the last ``limit`` characters that it has written."""
        return self._log.read_text("utf-8", "replace")[-limit:] if self._log.exists() else ""

    def close(self) -> None:
        """End it for good, and remove its files. May be called again."""
        self.kill()
        self._directory.cleanup()


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as listener:
        return int(listener.getsockname()[1])
