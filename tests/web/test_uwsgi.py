"""A web application under uWSGI, with one client at module level.

Up to 2.0.26 uWSGI has thread support only where it is asked for, since 2.0.27 always. The extra ``dev`` installs the
older one for Python 3.10 and the newer one for the others, so that both are met.
"""

from __future__ import annotations

import os
import signal

import pytest

from ..support.figures import figure
from ..support.waiting import wait_until
from .applications import PROGRAMS, Load, ask, load_while_a_server_is_away, need, uwsgi


@pytest.fixture(autouse=True)
def _package():
    need("pyuwsgi")


@pytest.mark.parametrize("options", ["--enable-threads", "--threads 4", "--enable-threads --lazy-apps"])
def test_no_request_hangs_and_every_answer_is_right_while_a_server_is_killed_and_comes_back(
    gearmands, c_workers, tmp_path, options
):
    first, second = gearmands(), gearmands()
    c_workers(second)
    servers = [first.address, second.address]
    application = uwsgi(PROGRAMS, "shared_client", servers, tmp_path / "log", *options.split(), MAX_RETRIES="2")
    load, log = load_while_a_server_is_away(application, first, c_workers)
    figure(f"{options}: {dict(load.outcomes)}, longest {load.longest:.2f} s")
    assert set(load.outcomes) == {"right"}, log[-3000:]
    assert load.longest < 10
    assert "Traceback" not in log
    assert "NO MERCY" not in log  # no process had to be killed at the end


@pytest.mark.parametrize(
    ("options", "forked"),
    [
        ("--enable-threads --py-call-uwsgi-fork-hooks", True),
        ("--threads 4 --py-call-uwsgi-fork-hooks", True),
        ("--enable-threads --lazy-apps", False),
    ],
)
def test_client_that_was_used_while_the_application_was_loaded_works_in_every_process(
    gearmand, c_worker, tmp_path, options, forked
):
    servers, log = [gearmand.address], tmp_path / "log"
    application = uwsgi(PROGRAMS, "shared_client", servers, log, *options.split(), USED_WHEN_LOADED="1")
    load = Load(application)
    try:
        wait_until(lambda: len(load.processes) == 2, 30, message=lambda: f"processes: {load.processes}")
        load.stop()
        assert ask(application.port, "POST", "/", b"")[2]["X-Forked"] == str(forked)
        # What the processes hold that have loaded the application still stands.
        assert gearmand.jobs("nobody") == (20 if forked else 40)
        if forked:
            # The master, whose connection lives, forks another worker.
            former = set(load.processes)
            os.kill(int(load.processes.pop()), signal.SIGKILL)
            wait_until(lambda: ask(application.port, "POST", "/", b"")[2]["X-Process"] not in former, 30)
            assert gearmand.jobs("nobody") == 20
    finally:
        written = application.close()
    assert set(load.outcomes) == {"right"}, written[-3000:]
    assert "Traceback" not in written


@pytest.mark.parametrize("options", ["--enable-threads", "--threads 4"])
def test_use_before_a_fork_that_python_is_not_told_of_fails_with_an_error_that_says_what_to_set(
    gearmand, tmp_path, options
):
    with pytest.raises(AssertionError) as caught:
        uwsgi(
            PROGRAMS, "shared_client", [gearmand.address], tmp_path / "log", *options.split(), USED_WHEN_LOADED="1"
        ).close()
    assert "ThreadUnavailable: uWSGI has yet to fork its workers" in str(caught.value)
    assert "--py-call-uwsgi-fork-hooks" in str(caught.value)


def test_without_thread_support_every_request_gets_its_answer_or_an_error_that_says_what_to_set(
    gearmand, c_worker, tmp_path
):
    application = uwsgi(PROGRAMS, "shared_client", [gearmand.address], tmp_path / "log")
    answers = []

    def both_have_answered() -> bool:
        answers.append(ask(application.port, "POST", "/", b"%d" % len(answers), timeout=10))
        return len(answers) >= 10 and len({headers["X-Process"] for _, _, headers in answers}) == 2

    try:
        # Both, because uWSGI 2.0.30 does not end at a SIGTERM that comes before all its workers are ready.
        wait_until(both_have_answered, 40, message="both processes have answered")
    finally:
        log = application.close()
    threads_run = "threads support is disabled" not in log
    figure(f"uWSGI without --enable-threads runs threads: {threads_run}")
    if threads_run:
        assert [(status, body) for status, body, _ in answers] == [
            (200, b"%d" % number) for number in range(len(answers))
        ]
    else:
        assert {(status, body) for status, body, _ in answers} == {(503, b"ThreadUnavailable")}
        assert "--enable-threads" in answers[0][2]["X-Error"]
