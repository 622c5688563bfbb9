"""The program as a whole: help, wrong usage, and readers and Pythons that are not what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .running import PATIENCE, REPOSITORY, Running, run


def test_help_names_all_commands_and_exit_codes():
    done = run("--help")
    assert done.returncode == 0
    text = done.stdout.decode()
    for word in ("submit", "status", "workers", "jobs", "cancel", "ping", "maxqueue", "version", "130  interrupted"):
        assert word in text


@pytest.mark.parametrize("command", ["submit", "status", "workers", "jobs", "cancel", "ping", "maxqueue", "version"])
def test_each_command_has_help_with_exit_codes(command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert b"exit codes:" in done.stdout
    assert b"--servers" in done.stdout


def test_help_of_work():
    assert b"SIGHUP" in run("work", "--help").stdout


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["submit"], ["status", "-s", "http://a"], ["ping", "-s", "a:b"]]
)
def test_wrong_usage_is_2_and_says_why(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr


def test_a_reader_that_has_had_enough_ends_it_quietly(gearmand, background_job):
    with Running("status", server=gearmand) as running:
        running.process.stdout.close()
        running.process.stdout = running.process.stderr
        assert running.end() == 0
        assert running.err == ""


@pytest.mark.parametrize("package", ["gearman_pool", "tests"])
def test_an_older_python_is_told_what_is_needed(package):
    program = f"import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_module({package!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "3.10 or later; this is 3.9." in done.stderr
