"""The commands that look into servers, against real gearmand."""

from __future__ import annotations

import json

import pytest

from tests.support.raw import SUBMIT_JOB_BG
from tests.support.scripted import ScriptedServer
from tests.support.waiting import wait_until

from ..running import Running, run


@pytest.mark.slow
def test_status_tells_waiting_jobs_from_running_ones(gearmand, raw_worker, background_job):
    with Running("submit", "raw", "x", server=gearmand) as running:
        job = raw_worker.next_job(30)
        rows = json.loads(run("status", "--json", server=gearmand).stdout)
        job.complete(b"")
        assert running.end() == 0
    assert rows == [
        {"server": gearmand.address, "task": "nobody", "waiting": 1, "running": 0, "workers": 0},
        {"server": gearmand.address, "task": "raw", "waiting": 0, "running": 1, "workers": 1},
    ]


def test_status_of_an_idle_server_prints_no_table(gearmand):
    done = run("status", server=gearmand)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"no worker and no job" in done.stderr


def test_status_of_a_job_by_reference_and_by_unique(gearmand, background_job):
    for name in (background_job, "mine"):
        done = run("status", name, "--json", server=gearmand)
        assert done.returncode == 0
        status = json.loads(done.stdout)
        assert (status["known"], status["running"], status["server"]) == (True, False, gearmand.address)
    assert b"waiting, at " + gearmand.address.encode() in run("status", "mine", server=gearmand).stdout


@pytest.mark.parametrize("unique", ["images/2024/cat.png", "a/b/c", "//", "50%/x/y"])
def test_status_of_a_unique_with_slashes(gearmand, unique):
    assert run("submit", "nobody", "x", "--background", "--unique", unique, server=gearmand).returncode == 0
    done = run("status", unique, server=gearmand)
    assert done.returncode == 0, done.stderr
    assert b"waiting, at" in done.stdout


def test_status_of_an_unknown_unique_with_slashes_is_1(gearmand):
    assert run("status", "a/b/c", server=gearmand).returncode == 1


@pytest.mark.slow
def test_a_unique_that_is_no_utf_8_can_be_asked_for(gearmand):
    with gearmand.connect() as connection:
        connection.request(SUBMIT_JOB_BG, b"nobody", b"\xfd", b"")
    done = run("status", b"\xfd".decode("utf-8", "surrogateescape"), server=gearmand)
    assert b"waiting, at" in done.stdout
    done = run("submit", "nobody", "x", "--background", "--unique", "\udcfe", server=gearmand)
    assert done.returncode == 0
    assert done.stdout.endswith(b"/%FE\n")


def test_status_of_an_unknown_job_is_1(gearmand):
    done = run("status", "no-such-unique", server=gearmand)
    assert done.returncode == 1
    assert b"no server has this job" in done.stdout


def test_cancel_drops_a_waiting_job(gearmand, background_job):
    assert run("cancel", background_job, server=gearmand).returncode == 0
    rows = json.loads(run("jobs", "--json", server=gearmand).stdout)
    assert [row["dropped"] for row in rows] == [True]


def test_cancel_as_json_says_what_was_cancelled(gearmand, background_job):
    told = json.loads(run("cancel", background_job, "--json", server=gearmand).stdout)
    assert told == {"server": gearmand.address, "handle": background_job.split("/")[1], "cancelled": True}


def test_cancel_of_an_unknown_handle_is_1(gearmand):
    done = run("cancel", "H:none:1", server=gearmand)
    assert done.returncode == 1
    assert b"has no job H:none:1" in done.stderr


def test_cancel_of_a_bare_handle_wants_one_server(gearmand, gearmands):
    servers = f"{gearmand.address},{gearmands().address}"
    done = run("cancel", "H:none:1", "-s", servers)
    assert done.returncode == 2
    assert b"-s" in done.stderr


def test_jobs_lists_unfinished_jobs(gearmand, background_job):
    rows = json.loads(run("jobs", "--json", server=gearmand).stdout)
    handle = background_job.split("/")[1]
    assert rows == [{"server": gearmand.address, "handle": handle, "background": True, "retries": 0, "dropped": False}]


def test_workers_lists_those_with_tasks_unless_asked_for_all(gearmand, echo_worker):
    wait_until(lambda: gearmand.workers("echo") == 1)
    rows = json.loads(run("workers", "--json", server=gearmand).stdout)
    assert [sorted(row["tasks"]) for row in rows] == [["echo", "reverse"]]
    everybody = json.loads(run("workers", "--json", "--all", server=gearmand).stdout)
    assert len(everybody) == 2


def test_ping_measures_each_server(gearmand, gearmands):
    other = gearmands()
    rows = json.loads(run("ping", "--json", "-s", f"{gearmand.address},{other.address}").stdout)
    assert [row["server"] for row in rows] == [gearmand.address, other.address]
    assert all(row["milliseconds"] > 0 for row in rows)


@pytest.mark.slow
def test_maxqueue_limits_and_a_refused_job_is_1(gearmand, background_job):
    assert run("maxqueue", "nobody", "1", server=gearmand).returncode == 0
    done = run("submit", "nobody", "y", "--background", server=gearmand)
    assert done.returncode == 1
    assert b"QUEUE_ERROR" in done.stderr
    assert run("maxqueue", "nobody", server=gearmand).returncode == 0
    assert run("submit", "nobody", "y", "--background", server=gearmand).returncode == 0


def test_maxqueue_of_an_unknown_task_is_refused_unless_it_is_created(gearmand):
    done = run("maxqueue", "new", "1", server=gearmand)
    assert done.returncode == 1
    assert b"--create" in done.stderr
    done = run("maxqueue", "new", "1", "2", "3", "--create", "--json", server=gearmand)
    assert json.loads(done.stdout) == [{"server": gearmand.address, "task": "new", "sizes": [1, 2, 3]}]


def test_version_shows_the_program_and_the_servers(gearmand):
    rows = json.loads(run("version", "--json", server=gearmand).stdout)
    assert rows[0]["server"] == "gearman-pool"
    assert rows[1] == {"server": gearmand.address, "version": rows[1]["version"], "pid": str(gearmand.pid)}


def test_version_of_a_server_that_was_built_without_it_is_shown_as_unknown():
    with ScriptedServer(texts={b"version": b"OK \n", b"getpid": b"OK 7\n"}) as server:
        rows = json.loads(run("version", "--json", server=server).stdout)
        table = run("version", server=server).stdout.decode().splitlines()
    assert rows[1] == {"server": server.address, "version": None, "pid": "7"}
    assert table[2].split() == [server.address, "-", "7"]
