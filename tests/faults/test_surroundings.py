"""What happens around a client: clocks, names, finalizers, middleboxes, and errors that nobody thought of."""

from __future__ import annotations

import ast
import logging
import re
import socket
import sys
import threading
from pathlib import Path

import gearman_pool
from gearman_pool import GearmanAdminClient, GearmanClient, GearmanError, GearmanWorker
from gearman_pool.testing import FaultProxy

from ..support.figures import figure
from ..support.outcomes import wait_accepted, wait_up
from ..support.processes import run_program
from ..support.running import running
from ..support.waiting import wait_until

PACKAGE = Path(gearman_pool.__file__).parent

# ---- clocks --------------------------------------------------------------------------------------------------------

_JUMPING_CLOCK = """
import json, random, sys, threading, time
real, real_ns = time.time, time.time_ns
time.time = lambda: real() + random.choice((-3600, 0, 3600))
time.time_ns = lambda: real_ns() + random.choice((-3600, 0, 3600)) * 10**9
from gearman_pool import GearmanClient, GearmanWorker

options = {"health_check_interval": 0.05, "health_check_timeout": 10}
worker = GearmanWorker([sys.argv[1]], concurrency=2, **options)
worker.register_task("task", lambda job: (job.send_status(1, 2), job.data[::-1])[1], timeout=50)
thread = threading.Thread(target=worker.run)
thread.start()
with GearmanClient([sys.argv[1]], lost_job_check=0.1, **options) as client:
    end = time.monotonic() + 1.0
    count = 0
    while time.monotonic() < end or count < 100:
        payload = b"%d" % count
        assert client.submit("task", payload, timeout=50).result(50) == payload[::-1]
        count += 1
    stats = client.stats()
    waiting = client.submit("nobody", timeout=0.2)
    started = time.monotonic()
    error = type(waiting.exception(20)).__name__
    waited = time.monotonic() - started
worker.stop()
thread.join(20)
print(json.dumps([count, stats.connections_lost, stats.jobs_timed_out, stats.jobs_lost, error, 0.1 < waited < 10]))
"""


def test_clock_that_jumps_by_an_hour_changes_nothing(gearmand):
    ended = run_program(["-c", _JUMPING_CLOCK, gearmand.address], 50)
    assert ended.code == 0, ended.errors
    count, *rest = ended.output.strip("[]\n").split(", ")
    assert int(count) >= 100
    assert rest == ["0", "0", "0", '"JobTimeout"', "true"]


#: Who may look at the clock on the wall, by what, and what for.
_WALL_CLOCK = {
    "jobs/job.py": {"time.time"},  # time_received, documented as seconds of time.time
    "cli/commands/submit.py": {"time.time"},  # --at, a moment that a person names
    "cli/commands/top.py": {"datetime.now"},  # the time of day at the head of the table
    "testing/server.py": {"time.time"},  # when a job of SUBMIT_JOB_EPOCH is due
}


def test_durations_are_measured_by_the_monotonic_clock():
    names = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "datetime.now", "datetime.utcnow"}
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            used: set[str] = set()
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = {f"{node.value.id}.{node.attr}"}
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                used = {f"time.{alias.name}" for alias in node.names}
            if used & names:
                found.setdefault(path.relative_to(PACKAGE).as_posix(), set()).update(used & names)
    assert found == _WALL_CLOCK


# ---- names ---------------------------------------------------------------------------------------------------------


def test_name_is_resolved_anew_for_each_connection(gearmands, monkeypatch):
    first, second = gearmands(), gearmands()
    answer = ["127.0.0.1"]
    real = socket.getaddrinfo

    def getaddrinfo(host, *arguments, **options):
        return real(answer[0] if host == "moving.example.org" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with (
        FaultProxy(second.address, host="127.0.0.2", port=first.port),
        GearmanClient([("moving.example.org", first.port)], reconnect_backoff=(0.01, 0.05)) as client,
    ):
        client.submit_background("here").result(10)
        assert (first.jobs("here"), second.jobs("here")) == (1, 0)
        answer[0] = "127.0.0.2"
        first.kill()
        wait_until(lambda: client.stats().connections_lost == 1)
        client.submit_background("here").result(10)
        assert second.jobs("here") == 1


# ---- middleboxes ---------------------------------------------------------------------------------------------------


def test_idle_connection_that_a_middlebox_swallowed_is_replaced_before_it_is_needed(gearmand, c_worker):
    with (
        FaultProxy(gearmand.address) as proxy,
        GearmanClient(
            [proxy.address], health_check_interval=0.2, health_check_timeout=0.5, reconnect_backoff=(0.01, 0.1)
        ) as client,
    ):
        assert client.submit("echo", b"before").result(10) == b"before"
        proxy.swallow()
        wait_until(lambda: client.stats().connections_lost == 1, message="the loss is found though nothing was sent")
        proxy.pass_through()
        wait_up(client)
        future = client.submit("echo", b"after")
        assert future.result(10) == b"after"
        assert future.request.connection_attempts == 1


# ---- finalizers ----------------------------------------------------------------------------------------------------

_FINALIZERS = """
import gc, sys, threading, time, warnings
warnings.simplefilter("ignore", ResourceWarning)
from gearman_pool import GearmanClient
from gearman_pool.errors import GearmanError

client = GearmanClient([sys.argv[1]])
submitted, trouble = [], []

class Finalizer:
    def __init__(self, client=None):
        self.itself = self  # only the garbage collector finds it, on whichever thread it runs
        self.client = client

    def __del__(self):
        try:
            submitted.append(client.submit_background("left", b"x"))
        except BaseException as error:
            trouble.append(repr(error))

gc.set_threshold(20)

def work():
    for number in range(1250):
        Finalizer()
        if number % 5 == 0:
            assert client.submit("echo", b"%d" % number).result(30) == b"%d" % number
        if number % 400 == 0:
            mine = GearmanClient([sys.argv[1]])
            mine.submit("echo", b"x").result(30)
            Finalizer(mine)
            del mine

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
gc.collect()
for future in list(submitted):
    future.result(30)
print(len(submitted), trouble[:3], client.stats().loop_errors)
client.close()
"""


def test_finalizers_may_submit_jobs_and_drop_clients_on_any_thread(gearmand, c_worker):
    ended = run_program(["-c", _FINALIZERS, gearmand.address], 55)
    assert ended.code == 0, ended.errors
    assert ended.output == "10032 [] 0\n"
    assert gearmand.jobs("left") == 10_032
    figure("10,032 jobs were submitted by finalizers, and 32 clients dropped by them: no deadlock")


_FINALIZATION = """
import sys
from gearman_pool import GearmanClient
from gearman_pool.errors import ClientClosed

used, unused = GearmanClient([sys.argv[1]]), GearmanClient([sys.argv[1]])
assert used.submit("echo", b"x").result(10) == b"x"

class Last:
    def __init__(self, client, name):
        self.client, self.name, self.print, self.closed = client, name, print, ClientClosed

    def __del__(self):
        try:
            self.client.submit("echo", b"too late").result(5)
        except self.closed as error:
            self.print(self.name, "refused:", error, flush=True)

# The interpreter takes these two names away at its end, before it empties the modules.
sys.last_type, sys.last_value = Last(used, "used"), Last(unused, "unused")
"""


def test_submitting_while_the_interpreter_ends_is_refused_with_a_clear_error(gearmand, c_worker):
    ended = run_program(["-c", _FINALIZATION, gearmand.address], 25)
    assert (ended.code, ended.errors) == (0, "")
    assert sorted(ended.output.splitlines()) == [
        "unused refused: the interpreter is shutting down",
        "used refused: the interpreter is shutting down",
    ]


def test_submitting_from_the_main_modules_last_objects_ends_too(gearmand, c_worker):
    program = _FINALIZATION.replace("sys.last_type, sys.last_value = ", "first, second = ")
    assert program != _FINALIZATION
    ended = run_program(["-c", program, gearmand.address], 25)
    assert ended.code == 0
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        assert ended.errors == ""
        assert len(ended.output.splitlines()) == 2
    else:
        # Without the GIL they outlive all modules: no code of the package finds a name any more, and nothing can be
        # refused in words. Both attempts end all the same.
        assert ended.output == ""
        assert ended.errors.count("Exception ignored in: <function Last.__del__") == 2
        assert len(re.findall(r"^\w+Error: .*NoneType", ended.errors, re.MULTILINE)) == 2


# ---- errors that nobody thought of ---------------------------------------------------------------------------------


def test_unexpected_error_in_the_clients_loop_fails_what_is_in_flight_and_the_loop_goes_on(gearmand, c_worker, caplog):
    with GearmanClient([gearmand.address], reconnect_backoff=(0.01, 0.05)) as client:
        wait_up(client)
        pending = [client.submit("nobody") for _ in range(100)]
        wait_accepted(*pending)
        client._engine.io.post(lambda: 1 / 0)
        for future in pending:
            error = future.exception(10)
            assert isinstance(error, GearmanError)
            assert "unexpected error" in str(error)
            assert "ZeroDivisionError" in str(error)
            assert error.maybe_sent
        assert client.submit("echo", b"after").result(10) == b"after"
        assert client.stats().loop_errors == 1
        wait_until(lambda: "unexpected error in the I/O thread" in caplog.text, message="the log")
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


def test_unexpected_error_in_a_workers_or_an_admin_clients_loop_is_survived(gearmand):
    worker = GearmanWorker([gearmand.address], reconnect_backoff=(0.01, 0.05))
    worker.register_task("task", lambda job: b"done")
    with running(worker), GearmanClient([gearmand.address]) as client, GearmanAdminClient([gearmand.address]) as admin:
        assert admin.get_pid() == str(gearmand.pid)
        for io in (worker._engine.io, admin._engine.io):
            failed = threading.Event()
            io.post(lambda failed=failed: (failed.set(), 1 / 0))
            assert failed.wait(10)
        assert client.submit("task").result(15) == b"done"
        wait_until(lambda: worker.stats().connections_lost == 1, message="its connections were given up")

        def answers() -> bool:
            try:
                return admin.get_pid() == str(gearmand.pid)
            except GearmanError:
                return False

        wait_until(answers, message="the admin client works again")
