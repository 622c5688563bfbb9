"""docs/versions.rst says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import gearman_pool

from .snapshot import SNAPSHOT
from .walk import MODULES, OUR_OWN

ROOT = Path(__file__).resolve().parents[2]
PAGE = " ".join((ROOT / "docs" / "versions.rst").read_text().split())
PROJECT = (ROOT / "pyproject.toml").read_text()
INTERFACE = SNAPSHOT.read_text(encoding="utf-8")


def named(pattern):
    """The names in code type within a part of the page."""
    (part,) = re.findall(pattern, PAGE)
    return set(re.findall(r"``([\w.]+)``", part))


def test_version_is_this_one():
    assert f"This is version {gearman_pool.__version__}" in PAGE


def test_public_modules_are_those_that_are_watched():
    assert named(r"lists in its modules (.*?): modules, names") == {*MODULES} - {"protocol"}
    assert SNAPSHOT.relative_to(ROOT).as_posix() in PAGE


def test_methods_that_are_not_for_users_are_those_that_are_left_out():
    methods = named(r"(What the library calls itself.*?) What may change when")
    constructor, eager = {"JobFuture"}, {"EagerClient.cancel"}
    assert methods - constructor == OUR_OWN - {"JobFuture.__init__"} - eager


def test_deprecated_names_are_those_that_warn():
    deprecated = set(re.findall(r"\.(\w+): .*?, deprecated ", INTERFACE))
    assert deprecated == {"status_updates", "server_status"}
    assert named(r"(``GearmanJobRequest\.\w+`` and ``\w+``) warn because") == {
        "GearmanJobRequest.status_updates",
        "server_status",
    }


def test_pythons_are_those_that_the_project_names():
    (listed,) = re.findall(r"\*\*CPython\*\* ([\d., and]+), on POSIX", PAGE)
    pythons = re.findall(r"3\.\d+", listed)
    assert pythons == re.findall(r"Python :: (3\.\d+)", PROJECT)
    assert f'requires-python = ">={pythons[0]}"' in PROJECT
