"""``gearman-pool serve`` and ``gearman-pool demo``."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys

import pytest

from gearman_pool import GearmanClient
from tests.support.gearmand import free_port
from tests.support.processes import handler_before_python

from .running import PATIENCE, REPOSITORY, Running, Terminal, run, without_rich


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


@pytest.mark.slow
def test_demo_loses_nothing_while_a_server_goes_down():
    done = run("demo", "--seconds", "2", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["jobs"] == told["right"] > 0
    assert told["wrong"] == told["lost"] == 0
    assert told["errors"] == []
    assert " ".join(told) == (
        "seconds jobs right wrong lost sent_again in_flight_when_killed longest_seconds jobs_per_second errors"
    )


@pytest.mark.slow
def test_demo_is_readable_without_a_terminal():
    done = run("demo", "--seconds", "1.5")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert "\r" not in text
    for words in ("Two job servers", "is killed with", "is back", "all answers right", "jobs/s"):
        assert words in text


@pytest.mark.slow
@pytest.mark.parametrize("rich", [True, False])
def test_demo_is_drawn_on_a_terminal(rich, tmp_path):
    more = {} if rich else without_rich(tmp_path)
    with Terminal("demo", "--seconds", "1.5", **more) as terminal:
        assert terminal.end() == 0
    assert re.search(r"survey.*100%", terminal.text)
    assert "all answers right" in terminal.text


def test_ctrl_c_ends_the_demo():
    with Running("demo", "--seconds", "600") as running:
        running.wait_for("threads count the words")
        running.interrupt()
        assert running.end() == 130
        assert running.err.count("survey") == running.err.count("\n")


def test_the_first_command_of_the_readme_runs_in_a_clone_with_nothing_installed():
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    program, *arguments = shlex.split(blocks[0])
    assert program == "python3"
    # Without site-packages, and in the surroundings of somebody who has set nothing.
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "LANG") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-S", "-s", "-W", "error", *arguments, "--seconds", "2"],
        cwd=REPOSITORY,
        env={**kept, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith(b"survey: ")] == []
    assert b"all answers right" in done.stdout


@pytest.mark.parametrize("package", ["gearman_pool", "tests"])
def test_an_older_python_is_told_what_is_needed(package):
    program = f"import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_module({package!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "3.10 or later; this is 3.9." in done.stderr
