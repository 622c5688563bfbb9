"""``gearman-pool work --exec``: a command for each job, against real gearmand."""

from __future__ import annotations

import signal

import pytest

from gearman_pool.errors import JobFailed
from tests.support.waiting import wait_until

from ..running import PATIENCE
from .working import alive, ask, work


def test_a_command_gets_the_payload_and_its_output_is_the_result(folder, gearmand, client):
    with work(folder, gearmand, "--exec", "cat", "--task", "cat") as running:
        payload = bytes(range(256)) * 1000
        assert ask(client, "cat", payload) == payload
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


def test_a_command_that_fails_fails_the_job(folder, gearmand, client):
    with work(folder, gearmand, "--exec", "sh -c 'exit 3'", "--task", "bad") as running:
        with pytest.raises(JobFailed):
            ask(client, "bad")
        running.wait_for("sh ended with 3", "stderr")
    with work(folder, gearmand, "--exec", "/no/such/program", "--task", "missing") as running:
        with pytest.raises(JobFailed):
            ask(client, "missing")
        running.wait_for("cannot run /no/such/program: No such file", "stderr")


def test_a_command_knows_its_job(folder, gearmand, client):
    command = "sh -c 'echo $GEARMAN_JOB_TASK $GEARMAN_JOB_UNIQUE $GEARMAN_JOB_HANDLE'"
    with work(folder, gearmand, "--exec", command, "--task", "who"):
        future = client.submit("who", b"", unique="u-1")
        assert future.result(PATIENCE).decode().split() == ["who", "u-1", future.job.handle]


def test_a_command_that_takes_too_long_is_killed(folder, gearmand, client):
    command = "sh -c 'echo $$ > pid; exec sleep 600'"
    with work(folder, gearmand, "--exec", command, "--task", "slow", "--task-timeout", "1"):
        with pytest.raises(JobFailed):
            ask(client, "slow")
        wait_until(lambda: not alive(int((folder / "pid").read_text())), PATIENCE)


def test_a_command_that_takes_too_long_is_killed_with_what_it_has_started(folder, gearmand, client):
    command = "sh -c 'sleep 600 & echo $! > pid.new; mv pid.new pid; wait; echo never'"
    with work(folder, gearmand, "--exec", command, "--task", "slow", "--task-timeout", "1"):
        with pytest.raises(JobFailed):
            ask(client, "slow")
        wait_until(lambda: not alive(int((folder / "pid").read_text())), PATIENCE)


def test_killing_ends_the_commands_too(folder, gearmand, client):
    command = "sh -c 'echo $$ > pid.new; mv pid.new pid; exec sleep 600'"
    with work(folder, gearmand, "--exec", command, "--task", "slow") as running:
        future = client.submit("slow", b"")
        wait_until((folder / "pid").exists, PATIENCE)
        for _ in range(2):
            running.interrupt(signal.SIGTERM)
            running.wait_for("SIGTERM", "stderr")
        running.end()
        pid = int((folder / "pid").read_text())
        wait_until(lambda: not alive(pid), PATIENCE)
        future.cancel()
