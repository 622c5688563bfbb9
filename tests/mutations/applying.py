"""Finds the mutations, and tells whether they still fit the code."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import tests.mutations

from .mutation import Mutation

__all__ = ["ROOT", "all_mutations", "mutated", "unfit"]

ROOT: Path = Path(__file__).resolve().parents[2]


def all_mutations() -> dict[str, list[Mutation]]:
    """Return the mutations by area: the modules of this package that have any."""
    names = sorted(info.name for info in pkgutil.iter_modules(tests.mutations.__path__))
    modules = {
        name: importlib.import_module(f"{__package__}.{name}") for name in names if not name.startswith(("__", "test_"))
    }
    return {name: module.MUTATIONS for name, module in modules.items() if hasattr(module, "MUTATIONS")}


def mutated(mutation: Mutation) -> str:
    """Return the text of the file with the mutation in it."""
    return (ROOT / mutation.file).read_text().replace(mutation.old, mutation.new, 1)


def unfit(mutation: Mutation) -> str:
    """Return why the mutation does not fit the code any more, or nothing."""
    path = ROOT / mutation.file
    if not path.is_file():
        return f"{mutation.file} is no file"
    found = path.read_text().count(mutation.old)
    if found != 1:
        return f"its text stands {found} times in {mutation.file}"
    if path.suffix == ".py":
        try:
            compile(mutated(mutation), mutation.file, "exec")
        except SyntaxError as error:
            return f"{mutation.file} would be no Python: {error}"
    for test in mutation.tests:
        name, _, function = test.partition("::")
        function = function.rpartition("::")[2].partition("[")[0]
        place = ROOT / name
        if not place.is_file() or (function and not re.search(rf"\bdef {function}\(", place.read_text())):
            return f"there is no test {test}"
    return ""
