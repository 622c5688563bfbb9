"""``python3 -m tests``: what it says of a run, what it installs, and what it does where something cannot be had."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from .support import debian, environment, whole_run

TESTS = """
import pytest

@pytest.fixture
def broken_end():
    yield
    raise OSError("clean-up")

def test_right(): pass
def test_right_as_well(): pass
def test_wrong(): assert 0
def test_wrong_at_its_end_too(broken_end): assert 0
def test_that_ends_badly(broken_end): pass
def test_without_a_server(): pytest.skip("gearmand is missing")
@pytest.mark.parametrize("n", [1, 2])
def test_without_a_shell(n): pytest.skip("fish is not installed")
"""


@pytest.fixture
def report(tmp_path):
    """What pytest leaves of a run in which everything happens."""
    (tmp_path / "test_all_sorts.py").write_text(TESTS)
    path = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={path}", str(tmp_path)]
    # What the run around this one is told is not for it.
    around = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    done = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return path


def test_last_lines_count_each_test_once_and_name_what_was_left_out(report):
    counts, reasons = whole_run.summary(report)
    assert counts == "2 passed, 3 failed, 3 skipped"
    needs = [debian.Need("gearman-job-server", "gearmand", lambda: False)]
    lines = whole_run.left_out(reasons, needs, ["gevent>=24"])
    assert lines[0] == "Left out:"
    assert lines[1].split(": ") == ["  2 tests", "fish is not installed"]
    assert lines[2].split(": ") == ["  1 test", "gearmand is missing"]
    assert "gearmand" in lines[3]
    assert "gevent>=24" in lines[4]
    assert lines[-1].strip() == "sudo apt-get update && sudo apt-get install -y gearman-job-server"


def test_a_run_without_anything_left_out_says_so(report):
    assert whole_run.left_out(whole_run.summary(report)[1], [], []) != ["Nothing was left out."]
    assert whole_run.left_out({}, [], []) == ["Nothing was left out."]


def test_pytest_that_left_no_report_is_told(tmp_path):
    assert whole_run.summary(tmp_path / "none.xml") == ("pytest left no report.", {})


def test_a_program_that_is_not_installed_is_missing_with_its_package(monkeypatch, tmp_path):
    # Nothing of the system's own places is a shell for a C compiler.
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "fish" in {need.package for need in debian.missing()}
    (tmp_path / "fish").write_text("#!/bin/sh\n")
    (tmp_path / "fish").chmod(0o755)
    assert "fish" not in {need.package for need in debian.missing()}


@pytest.fixture
def requirements():
    """The single requirements of the tests, as pip takes them."""
    found = environment.Environment()
    found.python = sys.executable
    return found.requirements()


def test_requirements_of_the_tests_include_those_of_the_extras_that_they_name(requirements):
    names = [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]
    assert {"pytest", "pytest-timeout", "gevent", "pygearman", "sphinx"} <= set(names)
    assert "gearman_pool" not in names
    assert "ruff" not in names


class Pip:
    """In place of pip: notes what it is to install, and cannot have some of it."""

    def __init__(self, *unavailable):
        self.unavailable = unavailable
        self.asked = []

    def __call__(self, *arguments, quiet=False):
        self.asked.append(arguments[-1])
        return not arguments[-1].startswith(self.unavailable) and not arguments[-1].endswith(self.unavailable)


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """A factory of stand-ins for pip, for a new environment that has the core of what is needed."""
    folder = tmp_path / "environment"

    def make_empty(_environment):
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "python").symlink_to(sys.executable)
        return True

    def put(*unavailable):
        stand_in = Pip(*unavailable)
        monkeypatch.setattr(environment.Environment, "_pip", stand_in)
        return stand_in

    monkeypatch.setenv("GEARMAN_POOL_TESTS_ENVIRONMENT", str(folder))
    monkeypatch.setattr(environment.Environment, "_make_empty", make_empty)
    monkeypatch.setattr(environment.Environment, "_has", lambda self, module: True)
    return put


def test_an_environment_is_made_once(pip):
    stand_in = pip()
    for _ in range(2):
        made = environment.Environment()
        made.make()
        assert made.left_out == []
    assert [text for text in stand_in.asked if text.endswith("[test]")] == [f"{environment.ROOT}[test]"]


def test_one_package_that_cannot_be_had_does_not_keep_the_others_away_and_is_named(pip, requirements):
    stand_in = pip("[test]", "gevent")
    gevent = [requirement for requirement in requirements if requirement.startswith("gevent")]
    for _ in range(2):
        made = environment.Environment()
        made.make()
        assert made.left_out == gevent
    assert set(requirements) <= set(stand_in.asked)


def test_where_pytest_cannot_be_had_no_test_is_run_and_the_reason_is_told(monkeypatch, pip):
    pip("[test]", "pytest")
    monkeypatch.setattr(environment.Environment, "_has", lambda self, module: module != "pytest")
    with pytest.raises(environment.SetupFailed, match="Without pytest"):
        environment.Environment().make()
