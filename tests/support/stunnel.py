"""stunnel in front of a server: Debian's gearmand is built without TLS."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import Self

from .gearmand import HOST, free_port
from .processes import ChildProcess, find_program
from .waiting import wait_until

if TYPE_CHECKING:
    import trustme

__all__ = ["Stunnel", "stunnel_program"]


def stunnel_program() -> str | None:
    """The path of stunnel, or None where it is not installed."""
    return find_program("stunnel4") or find_program("stunnel")


class Stunnel:
    """A TLS port on loopback that passes everything on to ``target``, a ``host:port``.

    The constructor returns once it listens. ``client_ca`` makes it ask for a certificate and refuse those that another
    authority has issued; ``version`` is the one TLS version that it speaks (``"TLSv1.2"``).
    """

    def __init__(
        self,
        target: str,
        certificate: trustme.LeafCert,
        *,
        client_ca: trustme.CA | None = None,
        version: str | None = None,
    ) -> None:
        program = stunnel_program()
        if program is None:
            raise FileNotFoundError("stunnel is not installed: install Debian's package stunnel4")
        self._program = program
        self._directory = tempfile.TemporaryDirectory(prefix="gearman-pool-test-")
        self._child: ChildProcess | None = None
        folder = Path(self._directory.name)
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        lines = ["foreground = yes", "syslog = no", "pid =", "debug = 5", "[gearman]", f"connect = {target}"]
        lines += [f"cert = {folder}/server.pem"]
        if client_ca is not None:
            client_ca.cert_pem.write_to_path(folder / "client_ca.pem")
            lines += ["verifyChain = yes", f"CAfile = {folder}/client_ca.pem"]
        if version is not None:
            lines += [f"sslVersionMin = {version}", f"sslVersionMax = {version}"]
        if version in ("TLSv1", "TLSv1.1"):
            # OpenSSL counts their signatures as broken, and serves them at no other level.
            lines += ["securityLevel = 0"]
        try:
            self._start(folder / "stunnel.conf", lines)
        except BaseException:
            self.close()
            raise

    def _start(self, path: Path, lines: list[str]) -> None:
        for attempt in range(10):
            self.port = free_port()
            path.write_text("\n".join([*lines, f"accept = {HOST}:{self.port}", ""]))
            path.chmod(0o600)
            self._child = ChildProcess([self._program, str(path)])
            wait_until(lambda: self._listens() or not self.running, message=lambda: f"stunnel listens:\n{self.log()}")
            if self.running:
                return
            if attempt == 9:
                raise AssertionError(f"stunnel does not start:\n{self.log()}")
            # Another process took the port between the look and the launch.
            self._child.close()

    def _listens(self) -> bool:
        if "Configuration successful" not in self.log():
            return False
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """``host:port`` of the TLS port."""
        return f"{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._child is not None and self._child.running

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._child is not None
        self._child.end()

    def log(self) -> str:
        """What it has logged."""
        return self._child.log() if self._child is not None else ""

    def close(self) -> None:
        """End it and remove its files. May be called again."""
        if self._child is not None:
            self._child.close()
            self._child = None
        self._directory.cleanup()
