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


#: Who stands on whom: a module imports only from floors below its own. Every module stands here once, by its path.
FLOORS = """
__main__
cli
cli.program
cli.commands.demo cli.commands.serve cli.commands.submit cli.commands.top cli.commands.work
cli.commands.cancel cli.commands.jobs cli.commands.maxqueue cli.commands.ping cli.commands.status cli.commands.workers
cli.commands.completion cli.commands.demo_work cli.commands.submit_lines cli.commands.version    cli.processes.child
cli.processes.health cli.processes.loading
cli.processes.command_task cli.processes.supervisor    cli.servers
cli.processes.worker_process    cli.exits    cli.terminal.progress
cli.processes.reports cli.processes.signals    cli.terminal.keys cli.terminal.output
cli.commands    cli.processes    cli.terminal

testing.pytest_plugin
testing
testing.server    testing.eager
testing.served testing.server_loop    testing.eager_engine
testing.gearmand
testing.proxy
testing.streams

(the package itself: what it exports)
client    worker
python_gearman
python_gearman.client    python_gearman.worker
python_gearman.requests
engine.client.submitting    engine.worker.task_runner    admin_client    future job
engine.asking    jobs.future    engine.worker.runs
engine.client.engine    engine.worker.engine    connection_manager
engine.client.cancelling engine.client.lost_jobs    engine.worker.abilities engine.worker.farewell
engine.client.endings    engine.admin    engine.worker.slots engine.worker.job
engine.client.uniques    engine.base    engine.worker.held_jobs
jobs.flight    engine.announcer    engine.worker.stop_signals    connection options
jobs.job jobs.views    jobs engine engine.client engine.worker    util

transport.pool
transport.health transport.waiting_room
transport.handler
transport.connection
transport.servers
transport.connector
transport.io_thread    transport.tls
transport.leadership transport.syscalls transport.timers    transport

settings.sources
settings.addresses settings.client_options
settings.checks settings.policies    settings

threads.launch threads.outcome
threads.callbacks threads.lifecycle threads.uwsgi threads.waiting    threads

protocol    protocol.server
protocol.server.machine
protocol.client protocol.worker protocol.admin protocol.python_gearman    protocol.server.text
protocol.session
protocol.packets protocol.text protocol.values
protocol.commands protocol.limits protocol.server.queues

encoders
constants errors events
"""

#: A module of more lines is two rooms.
LARGEST = 600


def _name(path: Path) -> str:
    """The name of a module below the package, which is itself the empty one."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """Return the full names of what a module imports, for type checkers and inside functions too."""
    package = ["gearman_pool", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # What is imported can be a module itself.
            found.update(f"{module}.{alias.name}" for alias in node.names)
    return found


def _imported(path: Path) -> set[str]:
    """Return the names of the package's modules that a module imports from."""
    found = set()
    for name in _imports(path):
        if name.partition(".")[0] == "gearman_pool":
            below = name.partition(".")[2]
            found.add(below if below in PATHS else below.rpartition(".")[0])
    return found - {_name(path)}


def _floors() -> dict[str, int]:
    """The height of each module's floor, the lowest being 0."""
    lines = [line for line in reversed(FLOORS.splitlines()) if line]
    return {
        name: height for height, line in enumerate(lines) for name in ([""] if line.startswith("(") else line.split())
    }


def test_every_module_has_a_floor():
    named = [name for line in FLOORS.splitlines() if not line.startswith("(") for name in line.split()]
    assert sorted(["", *named]) == sorted(PATHS)


def test_imports_point_down():
    # Those of type checkers and inside functions too. So there is no circle.
    floors = _floors()
    arrows = {(name, imported) for name, path in PATHS.items() for imported in _imported(path)}
    assert len(arrows) > len(PATHS)
    # The package imports nothing before it is asked for a name: modules above and below it may import it.
    assert sorted(arrow for arrow in arrows if floors[arrow[0]] <= floors[arrow[1]]) == []


def test_rooms_have_a_bearable_size():
    lines = {name: path.read_text().count("\n") for name, path in PATHS.items()}
    assert {name: count for name, count in lines.items() if count > LARGEST} == {}


def test_the_top_holds_what_users_import():
    top = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    # What users do not import stands in folders.
    assert top == {name for name in MODULES if name in top}
    assert {name for name in MODULES if name not in top} == {"testing", "protocol"}


#: Modules that use private names of another one's objects, and why they may.
FRIENDS = {
    ("jobs.flight", "jobs.job"): "a flight keeps the request that it is of up to date; nobody else writes there",
    ("jobs.future", "jobs.job"): "a future reads what its request has kept, and decodes it",
    (
        "engine.asking",
        "jobs.job",
    ): "the answer to a question for a job's status is kept in the request that was asked for",
    (
        "python_gearman.client",
        "jobs.job",
    ): "requests are python-gearman's interface, and what it must remember stands in them",
    ("python_gearman.requests", "jobs.job"): "likewise",
    (
        "testing.eager_engine",
        "python_gearman.worker",
    ): "it stands where a worker's engine does, in the worker's own runs",
    ("client", "python_gearman.client"): "it is the other half of the same object",
}

#: Others' private names without which it cannot be done.
FOREIGN = {"os._exit", "sys._current_frames", "sys._getframe", "asyncio._get_running_loop", "waiter.event._cond"}


def _private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _defined(path: Path) -> set[str]:
    """Return the private names that a module defines: of its own, and of the objects of its classes."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # perhaps in __slots__
    return {name for name in found if _private(name)}


def _used(path: Path) -> dict[str, str]:
    """Return the private names that a module uses of other objects than its own, each with a place."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and _private(node.attr):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls", "super()", "type(self)"):
                found[node.attr] = f"{owner}.{node.attr}"
    return found


def test_private_names_are_used_where_they_are_defined_and_by_friends():
    defined = {name: _defined(path) for name, path in PATHS.items()}
    friends = set()
    for name, path in PATHS.items():
        for attribute, place in _used(path).items():
            if attribute in defined[name] or place in FOREIGN:
                continue
            homes = {home for user, home in FRIENDS if user == name and attribute in defined[home]}
            assert homes, f"{name} uses {place}"
            friends.update((name, home) for home in homes)
    assert friends == set(FRIENDS)


def _modules(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


@pytest.mark.parametrize("path", _modules("protocol"), ids=lambda path: path.name)
def test_protocol_knows_no_io(path):
    forbidden = {"socket", "selectors", "select", "threading", "time", "logging", "ssl", "os", "asyncio"}
    assert not {name.partition(".")[0] for name in _imports(path)} & forbidden
    assert not {name for name in _imported(path) if not name.startswith(("protocol", "errors"))}


@pytest.mark.parametrize("path", _modules("threads"), ids=lambda path: path.name)
def test_threads_know_no_jobs_and_no_sockets(path):
    assert not {name for name in _imported(path) if not name.startswith(("threads", "errors"))}


@pytest.mark.parametrize("path", _modules("transport"), ids=lambda path: path.name)
def test_transport_knows_no_tasks_and_no_encoders(path):
    allowed = ("protocol", "transport", "threads", "settings", "errors", "events")
    assert not {name for name in _imported(path) if not name.startswith(allowed)}


#: Who has sockets of his own, beside the transport. The settings know an IPv6 address when they see one, and hold a TLS
#: context.
_WITH_SOCKETS = ("transport.", "testing.", "cli.", "settings.")


@pytest.mark.parametrize("name", [name for name in PATHS if not name.startswith(_WITH_SOCKETS)])
def test_who_has_no_sockets_of_his_own_knows_none(name):
    assert not {name.partition(".")[0] for name in _imports(PATHS[name])} & {"socket", "selectors", "select", "ssl"}


#: Folders that stand on public names, as a user's code does, and what else they may import. The one exception: the
#: embedded server is the protocol's state machine of a server with sockets around it, and the proxy, which cuts and
#: delays single packets, must read them; so ``testing`` may use ``protocol``.
_ON_PUBLIC_NAMES = {"cli": (), "testing": ("gearman_pool.protocol",), "contrib": ()}

#: A module there that is no user: it stands in the places of the client's and the worker's engine, whose insides it
#: must know, so that all else of both is tested as it is.
_NO_USERS = {"testing.eager_engine"}

#: The modules that users know, beside what the package exports. Of the protocol they know python-gearman's names.
_PUBLIC_MODULES = {*MODULES} - {"protocol"}

_USERS = [
    (path, folder)
    for folder in _ON_PUBLIC_NAMES
    for path in sorted((PACKAGE / folder).rglob("*.py"))
    if _name(path) not in _NO_USERS
]


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
