"""The programs that the tests talk to and that pip cannot install: which are missing, and Debian's packages of them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .programs import find_program

__all__ = ["Need", "install", "install_line", "missing"]


@dataclass(frozen=True)
class Need:
    """Something that tests need from outside Python.

    Attributes:
        package: Debian's and Ubuntu's package of it.
        what: Its name for people.
        is_here: Tells whether it is there.
    """

    package: str
    what: str
    is_here: Callable[[], bool]


def _program(*names: str) -> Callable[[], bool]:
    return lambda: any(map(find_program, names))


def _succeeds(*command: str, stdin: str = "", says: str = "") -> bool:
    """Whether a command can be run, ends with 0, and says what matches a pattern."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and re.search(says, done.stdout, re.MULTILINE) is not None


def _header(name: str) -> Callable[[], bool]:
    return lambda: _succeeds("gcc", "-E", "-x", "c", "-", stdin=f"#include <{name}>\n")


def _environments() -> bool:
    return find_spec("venv") is not None and find_spec("ensurepip") is not None


_NEEDS = [
    Need("gearman-job-server", "gearmand", _program("gearmand")),
    Need("gearman-tools", "libgearman's programs gearman and gearadmin", _program("gearman")),
    Need("gcc", "a C compiler", _program("gcc")),
    Need("libc6-dev", "the C library's headers", _header("stdio.h")),
    Need("libgearman-dev", "libgearman's headers", _header("libgearman/gearman.h")),
    Need("stunnel4", "stunnel, a TLS server of its own kind", _program("stunnel4", "stunnel")),
    Need("php-cli", "PHP", _program("php")),
    Need("php-gearman", "PHP's gearman extension", lambda: _succeeds("php", "-m", says="^gearman$")),
    Need(
        "libgearman-client-perl",
        "Perl's Gearman::Client and Gearman::Worker",
        lambda: _succeeds("perl", "-MGearman::Client", "-MGearman::Worker", "-e", "1"),
    ),
    Need("zsh", "zsh, for its completion", _program("zsh")),
    Need("fish", "fish, for its completion", _program("fish")),
]

# Debian's Python comes without the means to make environments. Each minor version has a package of its own for that.
if sys.executable.startswith("/usr/bin/"):
    _NEEDS.append(Need(f"python3.{sys.version_info[1]}-venv", "what a virtual environment is made with", _environments))


def missing() -> list[Need]:
    """Return what is not there."""
    return [need for need in _NEEDS if not need.is_here()]


def install_line(needs: list[Need]) -> str:
    """Return the one line that installs them, for people to run."""
    return "sudo apt-get update && sudo apt-get install -y " + " ".join(need.package for need in needs)


def install() -> None:
    """Install what is missing, if this is a Debian or Ubuntu and its root. Whatever fails is told, and left missing."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return
    # Two runs at once, for two interpreters, must not both install.
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if needs := missing():
            _install([need.package for need in needs])


def _install(packages: list[str]) -> None:
    print(f"Installing Debian's packages {' '.join(packages)} ...", flush=True)
    if not _apt_get("update"):
        return
    if not _apt_get("install", *packages) and len(packages) > 1:
        # One that this distribution does not have must not keep the others away.
        for package in packages:
            _apt_get("install", package)


def _apt_get(action: str, *packages: str) -> bool:
    command = ["apt-get", "-q", "-y", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=120", action]
    if packages:
        command += ["--no-install-recommends", *packages]
    # Run level 1 keeps the packages from starting their services: the tests start servers of their own.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode:
        print(done.stdout.decode(errors="replace"))
        print(f"apt-get {action} {' '.join(packages)} failed", flush=True)
    return done.returncode == 0
