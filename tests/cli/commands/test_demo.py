"""``gearman-pool demo``."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from ..running import PATIENCE, REPOSITORY, Running, Terminal, run, without_rich


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
