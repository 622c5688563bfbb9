"""``gearman-pool work``: its supervisor and its processes, against real gearmand."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.waiting import wait_until

from ..running import PATIENCE
from .working import APP, alive, ask, started, work


def test_processes_do_jobs_and_sigterm_ends_all_of_them(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make", "--processes", "3") as running:
        wait_until(lambda: gearmand.workers("pid") == 3, PATIENCE, message=lambda: running.err)
        pids = started(running)
        assert int(ask(client)) in pids
        assert len(set(pids)) == 3
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0
        assert not any(map(alive, pids))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_jobs_finish(folder, gearmand, client, number):
    with work(folder, gearmand, "jobs_app:make") as running:
        future = client.submit("nap", b"1.0")
        assert next(future.updates(PATIENCE)).data == b"begun"
        running.interrupt(number)
        assert future.result(PATIENCE) == b"rested"
        assert running.end() == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_kills(folder, gearmand, client, number, code):
    # Longer than the test waits, and not so long that a process is left behind for long if it fails.
    with work(folder, gearmand, "jobs_app:make", "--shutdown-timeout", "60") as running:
        future = client.submit("nap", b"600")
        assert next(future.updates(PATIENCE)).data == b"begun"
        running.interrupt(number)
        running.wait_for("waiting for the jobs", "stderr")
        running.interrupt(number)
        assert running.end() == code
        assert not any(map(alive, started(running)))


def begun_nap(client, seconds):
    future = client.submit("nap", seconds)
    assert next(future.updates(PATIENCE)).data == b"begun"
    return future


def test_a_signal_for_all_processes_at_once_counts_once(folder, gearmand, client):
    """As systemd sends it, unless told otherwise: to the supervisor and to its processes."""
    with work(folder, gearmand, "jobs_app:make") as running:
        future = begun_nap(client, b"1.0")
        os.kill(*started(running), signal.SIGTERM)
        running.interrupt(signal.SIGTERM)
        assert future.result(PATIENCE) == b"rested"
        assert running.end() == 0


def test_a_signal_for_all_processes_before_they_have_begun_is_0(folder, gearmand):
    (folder / "slow_app.py").write_text("import time; time.sleep(600)")
    with work(folder, gearmand, "slow_app:make") as running:
        running.wait_for("started", "stderr")
        os.kill(*started(running), signal.SIGTERM)
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


def test_a_process_that_still_imports_is_stopped_at_once(folder, gearmand):
    (folder / "slow_app.py").write_text("import pathlib, time; pathlib.Path('begun').touch(); time.sleep(600)")
    with work(folder, gearmand, "slow_app:make") as running:
        wait_until((folder / "begun").exists, PATIENCE)
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0
        assert "killing" not in running.err


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGINT), (signal.SIGKILL,)])
def test_a_job_that_is_killed_while_it_is_waited_for_is_1(folder, gearmand, client, numbers):
    with work(folder, gearmand, "jobs_app:make") as running:
        begun_nap(client, b"600")
        running.interrupt(signal.SIGTERM)
        running.wait_for("waiting for the jobs", "stderr")
        for number in numbers:
            os.kill(*started(running), number)
        assert running.end() == 1


def test_a_job_that_takes_longer_than_the_shutdown_timeout_is_1(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make", "--shutdown-timeout", "0.2") as running:
        begun_nap(client, b"600")
        running.interrupt(signal.SIGTERM)
        assert running.end() == 1
        assert not any(map(alive, started(running)))


def test_a_thread_that_does_not_end_keeps_no_process(folder, gearmand, client):
    arguments = ["--max-jobs", "1", "--shutdown-timeout", "0.2"]
    with work(folder, gearmand, "jobs_app:lingering", *arguments) as running:
        pids = [int(ask(client)) for _ in range(2)]
        assert pids[0] != pids[1]
        running.wait_for(f"{pids[0]}.*does not exit.*of the user", "stderr")
        wait_until(lambda: gearmand.workers("pid") == 1, PATIENCE)
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


def test_a_process_that_does_not_react_is_killed_in_the_end(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make", "--shutdown-timeout", "0.2") as running:
        begun_nap(client, b"600")
        os.kill(*started(running), signal.SIGSTOP)
        running.interrupt(signal.SIGTERM)
        assert running.end() == 1
        assert "has not ended in time: killing it" in running.err


def test_a_killed_process_is_replaced(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make") as running:
        first = int(ask(client))
        os.kill(first, signal.SIGKILL)
        second = int(ask(client))
        assert second != first
        running.wait_for(f"process {first} ended unasked \\(SIGKILL\\)", "stderr")
        assert started(running) == [first, second]
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


def test_a_killed_supervisor_takes_its_processes_along(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make") as running:
        pid = int(ask(client))
        running.interrupt(signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
        wait_until(lambda: not alive(pid), PATIENCE)


def test_a_killed_supervisors_processes_wait_for_no_job_beyond_the_shutdown_timeout(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make", "--shutdown-timeout", "0.2") as running:
        begun_nap(client, b"600")
        (pid,) = started(running)
        running.interrupt(signal.SIGKILL)
        assert running.end() == -signal.SIGKILL
        wait_until(lambda: not alive(pid), PATIENCE)


def test_a_process_is_replaced_after_max_jobs(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make", "--max-jobs", "2") as running:
        pids = [int(ask(client)) for _ in range(6)]
        assert sorted(set(map(pids.count, pids))) == [2]
        running.wait_for("ended after 2 jobs", "stderr")
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0
        assert "unasked" not in running.err


def test_a_process_that_dies_at_once_is_replaced_more_and_more_slowly(folder, gearmand):
    (folder / "dying.py").write_text("import os\nos._exit(7)\n")
    with work(folder, gearmand, "dying:worker") as running:
        running.wait_for(r"(?s)exit code 7.*replaced in 0\.5 s.*exit code 7.*replaced in 1\.0 s", "stderr")
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


@pytest.mark.slow
def test_a_changed_file_replaces_the_processes(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:upper", "--task", "up", "--reload") as running:
        assert ask(client, "up", b"a") == b"A"
        running.wait_for("is ready", "stderr")
        path = folder / "jobs_app.py"
        path.write_text(APP.replace("job.data.upper()", "job.data * 2"))
        running.wait_for("jobs_app.py has changed", "stderr")
        wait_until(lambda: ask(client, "up", b"a") == b"aa", PATIENCE)
        path.write_text("this is no Python")
        running.wait_for("cannot work: cannot import jobs_app: SyntaxError", "stderr")
        path.write_text(APP)
        assert ask(client, "up", b"a") == b"A"
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


def test_a_file_that_could_never_be_imported_is_watched_too(folder, gearmand, client):
    broken = folder / "helper.py"
    broken.write_text("this is no Python")
    (folder / "good.py").write_text("import helper\n\ndef upper(job):\n    return job.data.upper()\n")
    arguments = ["good:upper", "--task", "up", "--reload"]
    with work(folder, gearmand, *arguments) as running:
        running.wait_for("cannot work", "stderr")
        broken.write_text("")
        running.wait_for("helper.py has changed", "stderr")
        assert ask(client, "up", b"a") == b"A"
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


def test_sighup_replaces_the_processes(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make") as running:
        first = int(ask(client))
        running.wait_for("is ready", "stderr")
        running.interrupt(signal.SIGHUP)
        wait_until(lambda: int(ask(client)) != first, PATIENCE)
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0
        assert "unasked" not in running.err
