"""docs/command_line.rst and the program say the same."""

from __future__ import annotations

import argparse
import re

import pytest

from gearman_pool.cli.exits import EXIT_CODES
from gearman_pool.cli.program import make_parser

from .running import REPOSITORY

TEXT = (REPOSITORY / "docs" / "command_line.rst").read_text()


def commands():
    (action,) = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.mark.parametrize("name", commands())
def test_each_command_and_each_option_is_documented(name):
    assert f"gearman-pool {name}" in TEXT
    for action in commands()[name]._actions:
        if action.help is argparse.SUPPRESS or "--help" in action.option_strings:
            continue
        long_names = [option for option in action.option_strings if option.startswith("--")]
        for option in long_names:
            assert option in TEXT, f"{name} {option}"


def test_each_option_that_the_page_names_exists():
    known = {option for parser in commands().values() for action in parser._actions for option in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", TEXT)) <= known


def test_the_exit_codes_are_those_of_the_page():
    documented = re.findall(r"^   \* - (\d+)$", TEXT, re.MULTILINE)
    assert documented == [*re.findall(r"^  (\d+) ", EXIT_CODES, re.MULTILINE), "143"]
