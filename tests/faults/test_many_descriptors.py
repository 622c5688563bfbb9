"""F12: the process has more descriptors open than select() can count, or none left to open."""

from __future__ import annotations

import ast
import json
import resource
from pathlib import Path

import pytest

import gearman_pool

from ..support.figures import figure
from ..support.processes import run_program

PACKAGE = Path(gearman_pool.__file__).parent


def test_client_worker_and_admin_client_work_beyond_descriptor_1024(gearmand, c_worker):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"this process may have only {hard} descriptors (ulimit -Hn); the test needs 4,096")
    arguments = ["-m", "tests.faults.programs.many_descriptors", gearmand.address, str(gearmand.pid)]
    ended = run_program(arguments, 50)
    assert ended.code == 0, ended.errors
    report = json.loads(ended.output)
    figure(
        f"{report['open']} descriptors opened before; {report['sockets']} sockets and selectors of a client with two "
        f"connections, a worker and an admin client, the lowest of them number {report['lowest']}; "
        f"1600 answers right"
    )
    assert report["open"] == 2000
    assert report["lowest"] > 1024
    # For each of the three a selector, a waker's two ends and a connection; the client has one more.
    assert report["sockets"] >= 13
    assert report["wrong"] == []
    assert report["workers"]["upside-down"] == 1
    assert report["states"] == ["noticed", "UP"]
    assert report["left"] == []
    # What the health checks of the client say of its two connections while the server is stopped, and nothing else.
    lost = [line for line in ended.errors.splitlines() if "no answer to a health check" in line and "0 jobs" in line]
    assert lost == ended.errors.splitlines()
    assert len(lost) == 2


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_uses_select(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert "select" not in {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.module != "select"
        assert not (isinstance(node, ast.Attribute) and node.attr == "SelectSelector")


def test_process_without_descriptors_gets_typed_errors_and_works_as_soon_as_it_has_some(gearmand, c_worker):
    ended = run_program(["-m", "tests.faults.programs.no_descriptors", gearmand.address, str(gearmand.pid)], 50)
    assert ended.code == 0, ended.errors
    report = json.loads(ended.output)
    figure(f"without descriptors: {report['job'][0]} after {report['job'][2]:.2f} s; {report['job'][1]}")
    assert report["time limit"] == "JobTimeout"
    assert report["closed after"] < 3
    for what in ("job", "command"):
        kind, text, elapsed = report[what]
        assert (kind, "Too many open files" in text) == ("ServerUnavailable", True), text
        assert elapsed < 5
    for kind, text, elapsed in report["jobs with few descriptors"]:
        assert kind in ("", "ServerUnavailable"), text
        assert elapsed < 5
    assert report["answers"] == report["again"] == ["cba", "cba"]
    assert report["pid"] == str(gearmand.pid)
    assert "Too many open files" in report["lost"]
    assert (report["threads ended"], report["threads left"], report["loop errors"]) == ([], [], 0)
    assert "Traceback" not in ended.errors
