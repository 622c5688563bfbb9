"""``gearman-pool serve``."""

from __future__ import annotations

import json
import signal
import socket

import pytest

from gearman_pool import GearmanClient
from tests.support.gearmand import free_port
from tests.support.processes import handler_before_python

from ..running import Running, run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_serves_until_it_is_told_to_stop(number):
    port = free_port()
    with Running("serve", "--port", port) as running:
        running.wait_for(rf"listening on 127\.0\.0\.1:{port}\n")
        with GearmanClient([f"127.0.0.1:{port}"]) as client:
            assert client.submit_background("x", b"y").result(30).server == f"127.0.0.1:{port}"
            client.close(0)
        running.interrupt(number)
        assert running.end() == 0


def test_serve_bears_handlers_that_were_there_before_python(tmp_path):
    with Running("serve", "--port", "0", **handler_before_python(tmp_path)) as running:
        running.wait_for("listening")
        running.interrupt()
        assert running.end() == 0


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_serve_says_what_it_is_for(arguments):
    with Running("serve", "--port", "0", *arguments) as running:
        running.wait_for("for development and tests", "stderr")
        running.wait_for("\n")
        assert "warning" not in running.err
        running.interrupt()
        assert running.end() == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_serve_warns_when_others_than_this_machine_can_reach_it(host):
    # The warning comes before it listens. The port is taken, so that it never does.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--host", host, "--port", taken.getsockname()[1])
    assert done.returncode == 2
    warning = done.stderr.decode().splitlines()[0]
    assert "warning" in warning
    assert host in warning


def test_serve_on_a_free_port_says_which():
    with Running("serve", "--port", "0", "--json") as running:
        line = running.wait_for(r"\{.*\}\n")[0]
        told = json.loads(line)
        assert told["host"] == "127.0.0.1"
        assert run("ping", "-s", told["url"]).returncode == 0
        running.interrupt()
        assert running.end() == 0


def test_serve_on_a_port_that_is_taken_is_2(gearmand):
    done = run("serve", "--port", gearmand.port)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"--port 0" in done.stderr
