"""Threads that cannot be started: why, and what comes of it."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
from gearman_pool.errors import ConnectionError, ThreadUnavailable  # noqa: A004
from gearman_pool.options import parse_server
from gearman_pool.threads.launch import launch
from gearman_pool.threads.uwsgi import obstacle
from gearman_pool.transport.connector import Attempt

from ..support.limits import no_room_for_threads


def test_first_use_without_room_for_a_thread_says_so_and_the_next_one_works(gearmand, c_worker):
    with GearmanClient([gearmand.address]) as client:
        with (
            no_room_for_threads(),
            pytest.raises(ThreadUnavailable, match="can't start new thread; the limits") as caught,
        ):
            client.submit("echo", b"x")
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert caught.value.retryable
        assert not caught.value.maybe_sent
        assert client.submit("echo", b"x").result(10) == b"x"


def test_admin_client_and_worker_say_so_too(gearmand):
    with GearmanAdminClient([gearmand.address]) as admin:
        with no_room_for_threads(), pytest.raises(ThreadUnavailable, match="can't start new thread"):
            admin.get_version()
        assert admin.get_pid() == str(gearmand.pid)
    worker = GearmanWorker([gearmand.address])
    worker.register_task("echo", lambda job: job.data)
    with no_room_for_threads(), pytest.raises(ThreadUnavailable, match="can't start new thread"):
        worker.work(0.01)


def test_attempt_to_connect_without_room_for_a_thread_fails_at_once_and_does_not_run_on_its_callers(gearmand):
    outcomes = []
    attempt = Attempt(parse_server(gearmand.address), 5.0, lambda attempt, outcome: outcomes.append(outcome))
    with no_room_for_threads():
        attempt.start("gearman_pool-test-connect")
    assert isinstance(outcomes[0], ConnectionError)
    assert "can't start new thread" in str(outcomes[0])
    assert attempt.finished


@pytest.fixture
def uwsgi(monkeypatch):
    """What uWSGI shows to Python in a worker of a master's; a test changes it."""
    module = SimpleNamespace(
        has_threads=1,
        opt={"master": True},
        numproc=2,
        worker_id=lambda: 1,
        mule_id=lambda: 0,
        masterpid=lambda: 1000,
        i_am_the_spooler=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    return module


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, None),
        ({"has_threads": 0}, "--enable-threads"),
        ({"has_threads": 0, "worker_id": 0}, "--enable-threads"),
        # The process that loads the application and then forks.
        ({"worker_id": 0}, "--py-call-uwsgi-fork-hooks or --lazy-apps"),
        ({"worker_id": 0, "masterpid": 0}, "--py-call-uwsgi-fork-hooks or --lazy-apps"),
        ({"worker_id": 0, "opt": {"py-call-uwsgi-fork-hooks": True}}, None),
        # The one process there is; a mule; a spooler.
        ({"worker_id": 0, "masterpid": 0, "numproc": 1}, None),
        ({"worker_id": 0, "mule_id": 2}, None),
        ({"worker_id": 0, "i_am_the_spooler": True}, None),
    ],
)
def test_under_uwsgi_a_thread_is_started_only_where_it_runs_and_harms_no_fork(uwsgi, changes, text):
    for name, value in changes.items():
        setattr(uwsgi, name, (lambda value=value: value) if callable(getattr(uwsgi, name)) else value)
    thread = threading.Thread(target=lambda: None)
    if text is None:
        launch(thread)
        thread.join()
    else:
        with pytest.raises(ThreadUnavailable, match=text) as caught:
            launch(thread)
        assert not caught.value.retryable


def test_module_of_that_name_that_is_not_uwsgis_is_no_obstacle(uwsgi, monkeypatch):
    del uwsgi.i_am_the_spooler  # built without spoolers
    assert obstacle() is None
    for stand_in in (None, SimpleNamespace()):
        monkeypatch.setitem(sys.modules, "uwsgi", stand_in)
        assert obstacle() is None
