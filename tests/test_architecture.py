"""The rules of the house: who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gearman_pool

from .public_interface.walk import MODULES

PACKAGE = Path(gearman_pool.__file__).parent


def _imports(path: Path) -> set[str]:
    """Return the full names of what a module imports, but for what only a type checker imports."""
    package = ["gearman_pool", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found.update({module} if node.module else {f"{module}.{alias.name}" for alias in node.names})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def _modules(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).glob("*.py"))


@pytest.mark.parametrize("path", _modules("protocol"), ids=lambda path: path.name)
def test_protocol_knows_no_io(path):
    forbidden = {"socket", "selectors", "select", "threading", "time", "logging", "ssl", "os", "asyncio"}
    imports = _imports(path)
    assert not {name.partition(".")[0] for name in imports} & forbidden
    allowed = ("gearman_pool.protocol", "gearman_pool.errors")
    assert not {name for name in imports if name.startswith("gearman_pool") and not name.startswith(allowed)}


@pytest.mark.parametrize("path", _modules("transport"), ids=lambda path: path.name)
def test_transport_knows_no_tasks_and_no_encoders(path):
    allowed = tuple(f"gearman_pool.{name}" for name in ("protocol", "transport", "errors", "events", "options"))
    assert not {name for name in _imports(path) if name.startswith("gearman_pool") and not name.startswith(allowed)}


_ABOVE_THE_TRANSPORT = [
    "client.py",
    "python_gearman.py",
    "connection.py",
    "connection_manager.py",
    "python_gearman_worker.py",
    "util.py",
    "admin_client.py",
    "dispatch.py",
    "announcer.py",
    "future.py",
    "job.py",
    "promise.py",
    "worker.py",
    "worker_engine.py",
    "worker_job.py",
    "worker_signals.py",
]


@pytest.mark.parametrize("name", _ABOVE_THE_TRANSPORT)
def test_what_stands_on_the_transport_knows_no_sockets(name):
    assert not _imports(PACKAGE / name) & {"socket", "selectors", "select", "ssl"}


#: Folders that stand on public names, as a user's code does, and what else they may import. The one exception: the
#: embedded server is the protocol's state machine of a server with sockets around it, and the proxy, which cuts and
#: delays single packets, must read them; so ``testing`` may use ``protocol``. What is an engine of its own and not a
#: user of this one, the eager client, stands outside: ``testing`` only names it.
_ON_PUBLIC_NAMES = {"cli": (), "testing": ("gearman_pool.protocol",), "contrib": ()}

#: The modules that users know, beside what the package exports. Of the protocol they know python-gearman's names.
_PUBLIC_MODULES = {*MODULES} - {"protocol"}

_USERS = [(path, folder) for folder in _ON_PUBLIC_NAMES for path in sorted((PACKAGE / folder).rglob("*.py"))]


@pytest.mark.parametrize(("path", "folder"), _USERS, ids=[str(path.relative_to(PACKAGE)) for path, _ in _USERS])
def test_what_a_user_could_have_written_stands_on_public_names(path, folder):
    public = {folder, *_PUBLIC_MODULES, *gearman_pool.__all__}
    private = {
        name
        for name in _imports(path)
        if name.startswith("gearman_pool.")
        and name.split(".")[1] not in public
        and not name.startswith(_ON_PUBLIC_NAMES[folder])
    }
    assert private == set()
    tree = ast.parse(path.read_text())
    own = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_ours(node):
            assert [a.name for a in node.names if a.name.startswith("_") and a.name != "__version__"] == []
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            owner = ast.unparse(node.value)
            assert owner == "os" or node.attr in own, f"{path.name}:{node.lineno} uses {owner}.{node.attr}"


def _is_ours(node: ast.ImportFrom) -> bool:
    return bool(node.level) or (node.module or "").partition(".")[0] == "gearman_pool"


def test_importing_starts_no_thread_opens_no_socket_and_loads_no_framework():
    program = (
        "import sys, threading, os; before = len(os.listdir('/proc/self/fd')); import gearman_pool;"
        "assert threading.active_count() == 1; assert len(os.listdir('/proc/self/fd')) == before;"
        "assert not {'django', 'flask', 'asyncio', 'hypothesis'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_making_a_client_starts_no_thread_and_opens_no_socket():
    program = (
        "import threading, os, gearman_pool; before = len(os.listdir('/proc/self/fd'));"
        "client = gearman_pool.GearmanClient(['127.0.0.1:1']);"
        "assert threading.active_count() == 1; assert len(os.listdir('/proc/self/fd')) == before"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=30)


def test_the_package_runs_without_typing_extensions_and_does_not_load_it():
    # Type checkers need it, and whoever installs the package has it. A fresh clone has not.
    program = (
        "import importlib, pathlib, sys; sys.modules['typing_extensions'] = None;"
        f"folder = pathlib.Path({str(PACKAGE)!r});"
        "names = ['.'.join(p.relative_to(folder.parent).with_suffix('').parts) for p in folder.rglob('*.py')];"
        # The plugin imports pytest, which on some Pythons loads it.
        "[importlib.import_module(name) for name in names if not name.endswith(('pytest_plugin', '__main__'))];"
        "print(len(names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, cwd=PACKAGE.parent
    )
    assert int(done.stdout) == len(list(PACKAGE.rglob("*.py"))) > 50
