"""What ``gearman-pool work`` is given to run, and what it cannot run."""

from __future__ import annotations

import json
import re
import signal

import pytest

from .working import ask, work


def test_a_plain_function_is_given_a_task(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:upper", "--task", "up", "--concurrency", "2", "--json") as running:
        assert ask(client, "up", b"abc") == b"ABC"
        running.wait_for("is ready", "stderr")
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0
        for line in running.err.splitlines():
            assert {"time", "level", "process", "message"} <= set(json.loads(line))


def test_a_worker_of_its_own_servers(folder, gearmand, client):
    with work(folder, None, "jobs_app:own", OWN_SERVER=gearmand.address) as running:
        assert ask(client, "own", b"abc") == b"ABC"
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "MODULE:ATTRIBUTE"),
        (["jobs_app"], "not MODULE:ATTRIBUTE"),
        (["--exec", "cat"], "--task"),
        (["jobs_app:make", "--exec", "cat"], "either"),
        (["no_such_module:x"], "cannot import no_such_module"),
        (["jobs_app:missing"], "has no missing"),
        (["jobs_app:nothing"], "of type int"),
        (["jobs_app:upper"], "--task|failed"),
        (["jobs_app:idle"], "no tasks"),
        (["jobs_app:homeless"], "no servers"),
        (["jobs_app:own", "-s", "127.0.0.1:2"], "servers of its own"),
        (["--exec", "'unbalanced", "--task", "t"], "quotation"),
        (["jobs_app:make", "--health-port", "nonsense"], "HOST"),
    ],
)
def test_wrong_usage_is_2_in_one_line(folder, arguments, words):
    with work(folder, None, *arguments, "--log-level", "warning") as running:
        assert running.end() == 2
        assert re.search(words, running.err)
