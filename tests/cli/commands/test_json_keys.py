"""The keys of what ``--json`` prints are public: what has come to have a name keeps it."""

from __future__ import annotations

import json

import pytest

from gearman_pool.cli import main
from tests.support.waiting import wait_until

from ..running import Running, run


def keys(value):
    """The keys of a value, those of an object in a list behind the list's."""
    if isinstance(value, list):
        return sorted({key for item in value for key in keys(item)})
    if not isinstance(value, dict):
        return []
    return sorted([*value, *(f"{name}.{key}" for name, inner in value.items() for key in keys(inner))])


@pytest.fixture
def told(capsys, gearmand):
    """The keys that a command prints. It is run in this process, for it is about what is printed alone."""

    def tell(*arguments):
        assert main([*arguments, "--json", "-s", gearmand.address]) == 0
        done = capsys.readouterr()
        assert done.err == ""
        return " ".join(keys(json.loads(done.out)))

    return tell


def test_keys_of_submitted_jobs(told, raw_workers, gearmand, tmp_path):
    def script(job):
        job.send_data(b"part")
        job.send_data(b"\xff")
        job.complete(job.data)

    raw_workers(gearmand, "able", script)
    plain = "data data.data data.data_base64 handle result server task unique warnings"
    assert told("submit", "able", "x") == plain
    payload = tmp_path / "payload"
    payload.write_bytes(b"\xff")
    assert told("submit", "able", f"@{payload}") == plain.replace("result", "result_base64")
    assert told("submit", "able", "x", "--background") == "handle reference server unique"


def test_keys_of_submitted_lines(raw_workers, gearmand):
    raw_workers(gearmand, "able", lambda job: job.fail() if job.data == b"bad" else job.complete(job.data))
    done = run("submit", "able", "--lines", "--json", server=gearmand, stdin=b"good\n\xff\nbad\n")
    lines = [" ".join(keys(json.loads(line))) for line in done.stdout.splitlines()]
    assert lines == ["line result", "line result_base64", "error line"]
    done = run("submit", "able", "--lines", "--background", "--json", server=gearmand, stdin=b"x\n")
    assert " ".join(keys(json.loads(done.stdout))) == "line reference"


#: Of commands that look at a server with a job of the task "nobody", which waits, and a worker for the task "able".
LOOKED_AT = {
    "status": "running server task waiting workers",
    "status JOB": "denominator known numerator running server waiting_clients",
    "workers": "client_id file_descriptor ip server tasks",
    "jobs": "background dropped handle retries server",
    "ping": "milliseconds server",
    "version": "pid server version",
    "top --once": (
        "servers servers.error servers.running servers.server servers.state servers.waiting servers.workers "
        "tasks tasks.running tasks.server tasks.task tasks.waiting tasks.workers time "
        "workers workers.client_id workers.file_descriptor workers.ip workers.server workers.tasks"
    ),
    "maxqueue nobody 5": "server sizes task",
    "cancel JOB": "cancelled handle server",
}


@pytest.mark.parametrize("command", LOOKED_AT)
def test_keys_of_what_is_looked_at(told, raw_workers, gearmand, capsys, command):
    raw_workers(gearmand, "able")
    wait_until(lambda: gearmand.workers("able") == 1)
    assert main(["submit", "nobody", "x", "--background", "-s", gearmand.address]) == 0
    reference = capsys.readouterr().out.strip()
    arguments = [reference if word == "JOB" else word for word in command.split()]
    assert told(*arguments) == LOOKED_AT[command]


def test_keys_of_a_server_that_starts():
    with Running("serve", "--port", "0", "--json") as running:
        line = running.wait_for(r"\{.*\}\n")[0]
        assert " ".join(keys(json.loads(line))) == "host port url"
        running.interrupt()
        assert running.end() == 0
