"""The public interface changes on purpose alone: it is compared with the one that was accepted last."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gearman_pool
from gearman_pool import GearmanClient, errors, util
from gearman_pool.cli import servers

from .__main__ import main
from .snapshot import SNAPSHOT, difference
from .walk import MODULES, text

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = SNAPSHOT.read_text(encoding="utf-8")

ADVICE = """\
The public interface is not what {file} says:

{changes}

If this is on purpose, say what it means for users in CHANGELOG.md, under {version}, and accept it:

    python -m tests.public_interface --write
"""

#: The accepted names by the module that they are imported from: ``{"gearman_pool.errors": ["GearmanError", ...]}``.
NAMES = {
    module: re.findall(rf"^{re.escape(module)}\.(\w+): (?!module)", ACCEPTED, re.MULTILINE)
    for module in re.findall(r"^(\S+): module$", ACCEPTED, re.MULTILINE)
}


def run(program, **options):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        **options,
    )


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def test_public_interface_is_the_one_that_was_accepted():
    changes = difference(ACCEPTED, text())
    file = SNAPSHOT.relative_to(ROOT)
    assert not changes, "\n" + ADVICE.format(file=file, changes="\n".join(changes), version=gearman_pool.__version__)


def test_version_is_the_same_everywhere_and_the_changelog_has_its_section():
    # The version stands in the snapshot too: who raises it is told to look at both.
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest = re.fullmatch(r"(\d+\.\d+\.\d+) \((unreleased|\d{4}-\d{2}-\d{2})\)", sections[0])
    assert newest is not None, f"{sections[0]!r} is not VERSION (unreleased) or VERSION (DATE)"
    (project,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert (newest.group(1), project) == (gearman_pool.__version__, gearman_pool.__version__)


def test_names_of_a_module_can_be_imported_from_it_first():
    # From each module with nothing else of the package imported: they need each other in a circle.
    program = f"""
import importlib, sys
for module, names in {NAMES!r}.items():
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "gearman_pool"]:
        del sys.modules[loaded]
    imported = importlib.import_module(module)
    missing = [name for name in names if not hasattr(imported, name)]
    assert not missing, (module, missing)
"""
    assert {"gearman_pool", "gearman_pool.client", "gearman_pool.testing"} < set(NAMES)
    assert all(NAMES.values())
    done = run(program, env=environment())
    assert (done.returncode, done.stderr) == (0, "")


def test_modules_are_attributes_of_the_package():
    # As with python-gearman: import gearman_pool as gearman, and then gearman.errors.
    modules = [module for module in MODULES if module != "testing"]
    done = run(f"import gearman_pool as gearman; {'; '.join(f'gearman.{name}' for name in modules)}", env=environment())
    assert (done.returncode, done.stderr) == (0, "")


def test_snapshot_depends_on_nothing_around_it(tmp_path):
    optional = ["rich", "trustme", "gevent", "eventlet", "flask", "django"]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({optional}));"
        "from tests.public_interface.walk import text; sys.stdout.write(text())"
    )
    around = environment(GEARMAN_SERVERS="10.0.0.1", COLUMNS="40", PYTHONHASHSEED="1", HOME=str(tmp_path))
    done = run(program, cwd=tmp_path, env=around)
    assert (done.returncode, done.stderr) == (0, "")
    assert difference(text(), done.stdout) == []


def change_a_default(monkeypatch):
    monkeypatch.setattr(GearmanClient.close, "__defaults__", (6.0,))
    return "+gearman_pool.client.GearmanClient.close: method (timeout: float = 6.0) -> None"


def rename_a_parameter(monkeypatch):
    code = util.disambiguate_server_parameter.__code__
    renamed = code.replace(co_varnames=("server", *code.co_varnames[1:]))
    monkeypatch.setattr(util.disambiguate_server_parameter, "__code__", renamed)
    return "-gearman_pool.util.disambiguate_server_parameter: function (hostport_tuple: Any) -> tuple[str, int]"


def add_a_name(monkeypatch):
    monkeypatch.setattr(util, "NOVELTY", 1, raising=False)
    monkeypatch.setattr(util, "__all__", [*util.__all__, "NOVELTY"])
    return "+gearman_pool.util.NOVELTY: constant = 1"


def add_a_method(monkeypatch):
    monkeypatch.setattr(GearmanClient, "novelty", lambda self, value: None, raising=False)
    return "+gearman_pool.client.GearmanClient.novelty: method (value)"


def remove_a_method(monkeypatch):
    # It is inherited from a class that users cannot import, and is missed in all that inherit it.
    (owner,) = (kind for kind in GearmanClient.__mro__ if "get_job_statuses" in vars(kind))
    monkeypatch.delattr(owner, "get_job_statuses")
    return "-gearman_pool.testing.EagerClient.get_job_statuses: "


def change_an_errors_base(monkeypatch):
    monkeypatch.setattr(errors, "JobLost", type("JobLost", (errors.JobFailed,), {"__module__": errors.__name__}))
    return "+gearman_pool.errors.JobLost: class (gearman_pool.errors.JobFailed)"


def change_an_errors_attribute(monkeypatch):
    monkeypatch.setattr(errors.JobLost, "retryable", False)
    return "+gearman_pool.errors.JobLost.retryable: attribute: bool = False"


def change_an_option_of_the_command_line(monkeypatch):
    monkeypatch.setattr(servers, "DEFAULT_ADMIN_CLIENT_TIMEOUT", 20.0)
    return "+gearman-pool jobs --timeout: option = 20.0"


CHANGES = [
    change_a_default,
    rename_a_parameter,
    add_a_name,
    add_a_method,
    remove_a_method,
    change_an_errors_base,
    change_an_errors_attribute,
    change_an_option_of_the_command_line,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_change_is_noticed(monkeypatch, change):
    expected = change(monkeypatch)
    changed = difference(ACCEPTED, text())
    assert [line for line in changed if line.startswith(expected)], changed


def test_program_shows_what_has_changed_and_writes_it_when_told_to(tmp_path, capsys):
    file = tmp_path / "interface.txt"
    line = "gearman_pool.util: module"
    file.write_text(text().replace(f"{line}\n", ""))
    assert main(["--file", str(file)]) == 1
    assert capsys.readouterr().out == f"+{line}\n"
    assert main(["--file", str(file), "--write"]) == 0
    assert file.read_text() == text()
    capsys.readouterr()
    assert main(["--file", str(file)]) == 0
    assert capsys.readouterr().out == "no change\n"
