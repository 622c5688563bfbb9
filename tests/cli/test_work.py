"""``gearman-pool work``: its supervisor and its processes, against real gearmand."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import JobFailed
from tests.support.waiting import wait_until

from .running import PATIENCE, Running, run

APP = """
import os, sys, time
from gearman_pool import GearmanWorker

def make(servers):
    worker = GearmanWorker(servers)
    @worker.task("pid")
    def pid(job):
        return b"%d" % os.getpid()
    @worker.task("nap")
    def nap(job):
        job.send_data(b"begun")
        time.sleep(float(job.data))
        return b"rested"
    return worker

def lingering(servers):
    import threading
    threading.Thread(target=threading.Event().wait, name="of the user").start()
    return make(servers)

def upper(job):
    return job.data.upper()

nothing = 42
own = GearmanWorker([os.environ.get("OWN_SERVER", "127.0.0.1:1")])
own.register_task("own", upper)
idle = GearmanWorker(["127.0.0.1:1"])
homeless = GearmanWorker()
homeless.register_task("own", upper)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "jobs_app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        yield client
        client.close(0)


def work(folder, gearmand, *arguments, **more):
    return Running("work", *arguments, server=gearmand, cwd=folder, **more)


def ask(client, task="pid", data=b"", **options):
    return client.submit(task, data, timeout=PATIENCE, **options).result()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started(running):
    """The numbers of the processes that were started so far."""
    return [int(number) for number in re.findall(r"process (\d+) started", running.err)]


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def fetch(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


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


def test_health_endpoints_follow_the_server(folder, gearmand, client):
    with work(folder, gearmand, "jobs_app:make", "--health-port", "0", "--processes", "2") as running:
        address = running.wait_for(r"health checks at http://(\S+?)/", "stderr")[1]
        wait_until(lambda: fetch(address, "/readyz") == (200, "2 of 2 processes are ready\n"), PATIENCE)
        ask(client)
        wait_until(lambda: 'jobs_total{outcome="done"} 1\n' in fetch(address, "/metrics")[1], PATIENCE)
        for line in fetch(address, "/metrics")[1].splitlines():
            assert re.fullmatch(r'# (HELP|TYPE) \S+ .+|[a-z_]+(\{[a-z_]+="[a-z_]+"\})? \d+', line)
        os.kill(int(ask(client)), signal.SIGKILL)
        wait_until(lambda: "restarts_total 1\n" in fetch(address, "/metrics")[1], PATIENCE)
        gearmand.kill()
        wait_until(lambda: fetch(address, "/readyz")[0] == 503, PATIENCE)
        assert fetch(address, "/livez") == (200, "ok\n")
        gearmand.start()
        wait_until(lambda: fetch(address, "/readyz")[0] == 200, PATIENCE)
        assert fetch(address, "/elsewhere")[0] == 404
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on the loopback interface")
def test_health_endpoints_listen_on_ipv6(folder, gearmand):
    with work(folder, gearmand, "jobs_app:make", "--health-port", "[::1]:0") as running:
        address = running.wait_for(r"health checks at http://(\[::1\]:\d+)/", "stderr")[1]
        assert fetch(address, "/livez") == (200, "ok\n")
        running.interrupt(signal.SIGTERM)
        assert running.end() == 0


def test_a_health_port_that_is_taken_is_2(folder, gearmand):
    with work(folder, gearmand, "jobs_app:make", "--health-port", str(gearmand.port)) as running:
        assert running.end() == 2
        assert f"cannot listen on 127.0.0.1:{gearmand.port} for --health-port" in running.err


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


# ---- a command for each job ------------------------------------------------------------------------------------------


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


def test_help_of_work():
    assert b"SIGHUP" in run("work", "--help").stdout
