"""The pytest plugin, in throw-away projects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gearman_pool.testing.gearmand import Gearmand, find_gearmand

ROOT = Path(__file__).parents[2]

PROJECT = """
from gearman_pool import GearmanClient, GearmanWorker
from gearman_pool.errors import ConnectionLost
import pytest

def reverse(job):
    return job.data[::-1]

def test_client_and_worker(gearman_client, gearman_worker, gearman_server):
    gearman_worker({"reverse": reverse})
    assert gearman_client.submit("reverse", b"abc").result(10) == b"cba"
    assert gearman_server.wait_idle(5)

def test_servers_are_fresh(gearman_server, gearman_url):
    assert gearman_server.jobs == ()
    assert gearman_url == gearman_server.url

@pytest.mark.parametrize("number", [1, 2])
def test_session_server_stays(gearman_session_server, number):
    with GearmanClient([gearman_session_server.address]) as client:
        client.submit_background("left").result(10)
    assert len(gearman_session_server.jobs) == number

def test_own_worker(gearman_worker, gearman_url, gearman_client):
    worker = GearmanWorker(gearman_url, concurrency=2)
    worker.register_task("reverse", reverse)
    assert gearman_worker(worker) is worker
    assert gearman_client.submit("reverse", b"ab").result(10) == b"ba"

def test_faults(gearman_faults, gearman_worker):
    gearman_worker({"reverse": reverse})
    with GearmanClient([gearman_faults.address]) as client:
        assert client.submit("reverse", b"ab").result(10) == b"ba"
        future = client.submit("nobody")
        while not future.job.handle:
            client.ping()
        gearman_faults.cut()
        with pytest.raises(ConnectionLost):
            future.result(10)

def test_eager(eager_client):
    eager_client.register_task("reverse", reverse)
    assert eager_client.submit("reverse", b"ab").result() == b"ba"

def test_tls(gearman_tls):
    with GearmanClient([gearman_tls.address], ssl_context=gearman_tls.client_context) as client:
        assert client.submit_background("x").result(10)

@pytest.mark.gearmand_real
def test_real(gearmand):
    with GearmanClient([gearmand.address]) as client:
        assert client.submit_background("x").result(10).server == gearmand.address
"""


@pytest.fixture
def project(tmp_path):
    """Run pytest on a project of its own, as its user would; returns the finished process."""

    def run(source: str, *arguments: str, plugin: bool = True) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_project.py").write_text(source)
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
        if plugin:
            # By its entry point where the package is installed; by name too, for where it is not.
            command += ["-p", "gearman_pool.testing.pytest_plugin"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
        # The entry point would register the same module twice.
        environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=55, check=False
        )

    return run


def test_all_fixtures_work_in_a_project_of_its_own(project):
    pytest.importorskip("trustme")
    done = project(PROJECT, "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    # The one that wants the real server is left out where that is not installed.
    assert ("9 passed" if find_gearmand() else "8 passed, 1 skipped") in done.stdout


def test_plugin_imports_nothing_before_a_fixture_is_used(project):
    done = project(
        "import sys\n"
        "def test_nothing():\n"
        "    ours = {m for m in sys.modules if m.startswith('gearman_pool')}\n"
        "    assert ours == {'gearman_pool', 'gearman_pool.testing', 'gearman_pool.testing.pytest_plugin'}\n"
    )
    assert done.returncode == 0, done.stdout


def test_without_the_plugin_there_are_no_fixtures(project):
    done = project("def test_it(gearman_server): pass\n", plugin=False)
    assert done.returncode == 1
    assert "fixture 'gearman_server' not found" in done.stdout


def test_missing_gearmand_skips_with_the_reason_or_fails_if_told_to(project):
    source = "def test_it(gearmand): pass\n"
    done = project(source, "-rs", "--gearmand", "no-such-program")
    assert done.returncode == 0
    assert "no-such-program is not installed" in done.stdout
    done = project(source, "--gearmand", "no-such-program", "--gearman-require-real")
    assert done.returncode == 1
    assert "forbids skipping" in done.stdout


def test_what_a_workers_loop_raised_is_raised_at_the_end(project):
    done = project(
        "import threading\n"
        "def test_it(gearman_client, gearman_worker):\n"
        "    begun = threading.Event()\n"
        "    def leave(job):\n"
        "        begun.set()\n"
        "        raise SystemExit('left')\n"
        "    gearman_worker({'leave': leave})\n"
        "    gearman_client.submit_background('leave').result(10)\n"
        "    assert begun.wait(10)\n"
        "def test_fixtures_of_the_first_are_gone():\n"
        "    assert [thread.name for thread in threading.enumerate() if 'gearman' in thread.name] == []\n"
    )
    assert done.returncode == 1
    assert "was ended by SystemExit('left')" in done.stdout
    assert "2 passed, 1 error" in done.stdout


FAILING_TASKS = """
from gearman_pool import GearmanClient, GearmanWorker
from gearman_pool.errors import JobException
import pytest

def divide(job):
    return str(1 // int(job.data))

def test_background(gearman_client, gearman_worker, gearman_server):
    gearman_worker({"divide": divide})
    gearman_client.submit_background("divide", b"0").result(10)
    assert gearman_server.wait_idle(10)

def test_background_of_own_worker(gearman_client, gearman_worker, gearman_server, gearman_url):
    worker = GearmanWorker(gearman_url)
    worker.register_task("divide", divide)
    gearman_worker(worker)
    gearman_client.submit_background("divide", b"none").result(10)
    assert gearman_server.wait_idle(10)

def test_background_through_a_proxy(gearman_client, gearman_worker, gearman_server, gearman_faults):
    gearman_worker({"divide": divide}, host_list=gearman_faults.address)
    gearman_client.submit_background("divide", b"0").result(10)
    assert gearman_server.wait_idle(10)

def test_client_was_told(gearman_client, gearman_worker, gearman_session_server, gearman_faults):
    gearman_worker({"divide": divide})
    gearman_worker({"divide": divide}, host_list=gearman_session_server.url)
    with GearmanClient([gearman_session_server.address]) as session, GearmanClient([gearman_faults.address]) as faults:
        for client in (gearman_client, session, faults):
            with pytest.raises(JobException):
                client.submit("divide", b"0").result(10)

def test_failures_are_expected(gearman_client, gearman_worker, gearman_server):
    gearman_worker({"divide": divide}, raise_exceptions=False)
    gearman_client.submit_background("divide", b"0").result(10)
    assert gearman_server.wait_idle(10)
    assert b"ZeroDivisionError" in gearman_server.finished[0].exception

def test_own_worker_is_left_as_it_was(gearman_worker, gearman_url):
    global own, hooked, hook
    own, hooked = GearmanWorker(gearman_url), GearmanWorker(gearman_url)
    hook = hooked.on_job_exception = lambda job, exc_info: False
    for worker in (own, hooked):
        gearman_worker(worker)
        assert vars(worker)["on_job_exception"] is not hook

def test_own_worker_was_left_as_it_was():
    assert "on_job_exception" not in vars(own)
    assert hooked.on_job_exception is hook
"""


def test_what_a_task_raised_and_no_client_was_told_is_raised_at_the_end(project):
    done = project(FAILING_TASKS, "-v", "-rE")
    assert done.returncode == 1
    assert "7 passed, 3 errors" in done.stdout, done.stdout
    for error in (
        "test_background - ZeroDivisionError",
        "test_background_of_own_worker - ValueError",
        "test_background_through_a_proxy - ZeroDivisionError",
    ):
        assert f"ERROR test_project.py::{error}" in done.stdout
    # The traceback leads to the task.
    assert "return str(1 // int(job.data))" in done.stdout


def test_plugin_is_found_by_its_entry_point():
    from importlib.metadata import entry_points

    found = [point.value for point in entry_points(group="pytest11") if point.name == "gearman_pool"]
    if not found:
        pytest.skip("the package is not installed, only on the path")
    assert set(found) == {"gearman_pool.testing.pytest_plugin"}


# ---- the real server -----------------------------------------------------------------------------------------------


@pytest.fixture
def real():
    if find_gearmand() is None:
        pytest.skip("gearmand is missing")
    with Gearmand() as server:
        yield server


def test_real_server_is_killed_and_started_on_the_same_port(real):
    from gearman_pool import GearmanClient

    port, pid = real.port, real.pid
    assert real.running
    assert real.url == f"gearman://127.0.0.1:{port}/"
    real.kill()
    assert not real.running
    with pytest.raises(RuntimeError, match="start"):
        _ = real.pid
    real.start()
    real.start()
    assert (real.port, real.pid != pid) == (port, True)
    with GearmanClient([real.address]) as client:
        assert client.submit_background("x").result(10)


def test_real_server_is_paused_and_goes_on(real):
    from gearman_pool import GearmanClient

    with GearmanClient([real.address]) as client:
        client.ping()
        real.pause()
        future = client.submit_background("x")
        with pytest.raises(TimeoutError):
            future.result(0.3)
        real.resume()
        assert future.result(10)
        real.pause()
    real.stop()


def test_server_that_cannot_start_says_why(real):
    with pytest.raises(RuntimeError, match="does not answer"):
        Gearmand(arguments=("--no-such-option",), port=real.port)
    with pytest.raises(FileNotFoundError, match="gearman-job-server"):
        Gearmand("no-such-program")
