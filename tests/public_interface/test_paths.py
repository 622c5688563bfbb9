"""What programs import stays where they import it from, wherever the code lives."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest


def _paths() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (Path(__file__).parent / "paths.txt").read_text().splitlines():
        if line.startswith("    "):
            found[list(found)[-1]].append(line.strip())
        elif not line.startswith("#"):
            found[line] = []
    return found


PATHS = _paths()


@pytest.mark.parametrize("module", PATHS)
def test_every_public_path_can_be_imported(module):
    assert PATHS[module]
    found = import_module(module)
    assert [name for name in PATHS[module] if not hasattr(found, name)] == []


def test_list_has_what_the_package_and_its_modules_export():
    for module in PATHS:
        assert set(getattr(import_module(module), "__all__", ())) <= set(PATHS[module])
