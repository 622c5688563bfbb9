"""Which servers are asked, and those that do not answer, against real gearmand."""

from __future__ import annotations

import contextlib
import json
import os

import pytest

from tests.support.gearmand import free_port
from tests.support.waiting import wait_until

from .running import Running, run


@pytest.mark.slow
def test_a_reference_brings_its_server_along(gearmand, gearmands, background_job):
    other = gearmands()
    assert run("status", background_job, server=other).returncode == 0
    assert run("cancel", background_job, server=other).returncode == 0


def test_a_server_that_is_down_is_told_and_the_others_are_shown(gearmand, background_job):
    down = f"127.0.0.1:{free_port()}"
    done = run("status", "--json", "-s", f"{down},{gearmand.address}")
    assert done.returncode == 3
    assert [row["task"] for row in json.loads(done.stdout)] == ["nobody"]
    assert len(done.stderr.decode().splitlines()) == 1
    assert down in done.stderr.decode()


def test_a_frozen_server_is_3_within_the_timeout(gearmand):
    gearmand.pause()
    done = run("ping", "--timeout", "0.5", server=gearmand)
    gearmand.resume()
    assert done.returncode == 3
    assert gearmand.address in done.stderr.decode()


def test_ctrl_c_does_not_wait_for_a_frozen_server(gearmand):
    with Running("ping", "--timeout", "600", server=gearmand) as running:
        assert running.end() == 0
    gearmand.pause()
    with Running("ping", "--timeout", "600", server=gearmand) as running:
        wait_until(lambda: gearmand_is_asked(running.process.pid), 30)
        running.interrupt()
        assert running.end() == 130
        assert running.err == ""
    gearmand.resume()


def gearmand_is_asked(pid):
    """Whether the program has a thread that asks: besides the main one, that of the pool and that of the client."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task")) >= 3
    return False
