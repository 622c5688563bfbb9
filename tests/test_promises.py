"""The page of promises names each of them, tests that exist, and commands that can be run."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "promises.rst").read_text()
ROWS = [*(f"F{number}" for number in range(1, 18)), *(f"S{number}" for number in range(1, 6))]

#: The tests of each promise: ``{row: ["tests/...::name", ...]}``.
TESTS = {
    row: re.findall(r"``(\S+::\S+)``", tests)
    for row, tests in re.findall(r"^([FS]\d+)\n((?:(?:   .*)?\n)+)", PAGE + "\n", re.MULTILINE)
}
#: What stands in each column of a promise's row.
PROMISES = {
    row: cells for row, *cells in re.findall(r"^   \* - ([FS]\d+)\n     - (.+)\n     - (.+)$", PAGE, re.MULTILINE)
}


@cache
def functions(path: str) -> set[str]:
    """The test functions of a file."""
    module = ast.parse((ROOT / path).read_text())
    return {node.name for node in module.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_promise_has_its_row_and_its_tests():
    assert list(PROMISES) == ROWS
    assert list(TESTS) == ROWS


@pytest.mark.parametrize("row", ROWS)
def test_tests_of_a_promise_exist(row):
    assert TESTS[row], f"{row} names no test"
    for name in TESTS[row]:
        path, _, function = name.partition("::")
        assert (ROOT / path).is_file(), f"{row}: {path} does not exist"
        assert function in functions(path), f"{row}: {path} has no {function}"
        assert function.startswith("test_")


def test_every_test_that_is_named_belongs_to_a_promise():
    assert sorted(re.findall(r"tests/\S+\.py::\w+", PAGE)) == sorted(name for names in TESTS.values() for name in names)


def test_commands_of_the_page_can_be_run():
    commands = [line.strip() for line in PAGE.splitlines() if re.match(r"   (\w+=\d+ )?python -m ", line)]
    assert len(commands) >= 8
    for command in commands:
        *variables, module, arguments = re.fullmatch(r"(?:(\w+)=\d+ )?python -m (\S+) ?(.*)", command).groups()
        if module == "pytest":
            paths = [word for word in arguments.split() if word.startswith("tests/")]
            assert paths
            assert all((ROOT / path).exists() for path in paths), command
            for variable in filter(None, variables):
                assert any(f'"{variable}"' in (ROOT / path).read_text() for path in paths), command
        else:
            path = ROOT / module.replace(".", "/")
            program = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__main__.py"
            for option in re.findall(r"--[\w-]+", arguments):
                assert f'"{option}"' in program.read_text(), command


@pytest.mark.parametrize("path", ["README.md", "docs/index.rst", "docs/delivery.rst"])
def test_page_is_found(path):
    assert re.search(r"\bpromises\b", (ROOT / path).read_text())
