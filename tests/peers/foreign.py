"""Clients and workers of others in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

from ..support.gearmand import RunningServer
from ..support.processes import REQUIRE_REAL, find_program
from ..support.workers import _ProcessWorker, php_program, tool_program

__all__ = ["CLIENTS", "WORKERS", "ForeignWorker", "command", "start_client", "tool"]

PROGRAMS = Path(__file__).parent / "programs"

#: The clients that tell what they saw as JSON, and the workers.
CLIENTS = ["php", "perl", "pygearman", "gear"]
WORKERS = ["perl", "pygearman", "gear"]


@cache
def _perl() -> str | None:
    program = find_program("perl")
    if program is None:
        return None
    check = [program, "-MGearman::Client", "-MGearman::Worker", "-MJSON::PP", "-e", "1"]
    return program if subprocess.run(check, capture_output=True, check=False).returncode == 0 else None


def _missing(reason: str) -> NoReturn:
    if REQUIRE_REAL:
        pytest.fail(f"{reason}, and GEARMAN_POOL_REQUIRE_REAL forbids skipping", pytrace=False)
    pytest.skip(reason)


def command(peer: str, role: str) -> list[str]:
    """How a peer's program is started; skips the test where the peer is missing."""
    if peer == "php":
        if php := php_program():
            return [php, str(PROGRAMS / f"{role}.php")]
        _missing("PHP with the gearman extension is missing (Debian's php-cli and php-gearman)")
    if peer == "perl":
        if perl := _perl():
            return [perl, str(PROGRAMS / f"{role}.pl")]
        _missing("Perl's Gearman::Client is missing (Debian's libgearman-client-perl)")
    module = {"pygearman": "gearman", "gear": "gear"}[peer]
    if importlib.util.find_spec(module) is None:
        _missing(f'{peer} is missing (pip install -e ".[test]")')
    return [sys.executable, str(PROGRAMS / f"{role}_{peer}.py")]


def start_client(peer: str, server: RunningServer, unique: str) -> subprocess.Popen[str]:
    """Start a peer's client; see its program for what it does."""
    return subprocess.Popen(
        [*command(peer, "client"), server.host, str(server.port), unique],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Nothing of this project is to be found by them.
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )


def tool(server: RunningServer, *arguments: str, data: bytes = b"") -> tuple[int, bytes]:
    """Run libgearman's ``gearman`` as a client; return its exit status and output."""
    program = tool_program()
    if program is None:
        _missing("the gearman tool is missing (Debian's gearman-tools)")
    done = subprocess.run(
        [program, "-h", server.host, "-p", str(server.port), *arguments],
        input=data,
        capture_output=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout


class ForeignWorker(_ProcessWorker):
    """A peer's worker: reverse, fail and stream."""

    def __init__(self, peer: str, server: RunningServer, functions: Sequence[str] = ("reverse", "fail", "stream")):
        super().__init__([*command(peer, "worker"), server.host, str(server.port)], [server], functions)
