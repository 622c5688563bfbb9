"""F7: the process forks, before and after the client's first use, with its threads inside the client."""

from __future__ import annotations

import json
import os
import statistics
import threading

import pytest

from ..support.figures import figure
from ..support.processes import Ended, run_program
from ..support.scripted import SilentServer
from ..support.waiting import wait_until

#: As many as run in each test run; `FORKS=1000` in the environment shows the figure of the promise.
FORKS = int(os.environ.get("FORKS", "80"))


@pytest.mark.timeout(60 + FORKS * 0.5)
@pytest.mark.parametrize("count", [1, 2])
def test_children_work_at_once_and_the_parent_is_unharmed(gearmands, c_workers, count):
    servers = [gearmands() for _ in range(count)]
    for server in servers:
        c_workers(server)
    forks = max(10, FORKS // 2)
    deadline = 30 + forks * 0.4
    ended = run_program(
        ["-m", "tests.faults.programs.fork_storm", str(forks), str(deadline), *(server.address for server in servers)],
        deadline + 10,
    )
    assert ended.code == 0, ended.errors
    *lines, last = ended.output.splitlines()
    figures = json.loads(last)
    times = [float(line.split()[2]) for line in lines if line.startswith("child")]
    figure(
        f"{figures['forks']} forks beside 8 threads that made {figures['parent_calls']} calls: children "
        f"{statistics.median(times) * 1e3:.0f} ms median, {max(times) * 1e3:.0f} ms longest to an answer; {figures}"
    )
    assert figures["statuses"] == {"0": forks}, ended.errors
    assert figures["forks"] == forks
    assert (figures["parent_wrong"], figures["parent_errors"], figures["parent_hung"]) == (0, [], 0)
    assert figures["held_done"] == 0
    # The parent's connections are those that it opened at first.
    assert (figures["connections_lost"], figures["connections_opened"]) == (0, count)
    assert (figures["loop_errors"], figures["alive"]) == (0, True)
    assert figures["parent_calls"] > 8
    assert statistics.median(times) < 2.0
    # gearmand closed exactly what the children had opened: the workers alone are left.
    for server in servers:
        server.wait_for(lambda text: len(text.splitlines()) <= 3, "workers", message="the children's connections end")


_WAITING = """
import os, sys, time
from gearman_pool import GearmanClient
from gearman_pool.errors import ForkedProcess
client = GearmanClient([sys.argv[1]], submit_timeout=30)
parked = [client.submit("x") for _ in range(20)]
while client.stats().waiting < 20:
    pass
# These may be on their way to the I/O thread at the moment of the fork.
parked += [client.submit("x") for _ in range(50)]
pid = os.fork()
if pid == 0:
    states = [type(future.exception(3)).__name__ for future in parked]
    os._exit(0 if set(states) == {"ForkedProcess"} else 1)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(code, sum(future.done() for future in parked), flush=True)
client.close(0)
"""


def test_copies_of_jobs_that_wait_for_a_server_end_too():
    for _ in range(5):
        ended = run_program(["-W", "ignore", "-c", _WAITING, "127.0.0.1:1"], 25)
        assert (ended.code, ended.output) == (0, "0 0\n"), ended.errors


_DONE = """
import concurrent.futures, os, sys
from gearman_pool import GearmanClient
from gearman_pool.errors import ForkedProcess
client = GearmanClient([sys.argv[1]])
accepted = [client.submit("nobody") for _ in range(10)]
while not all(future.job.handle for future in accepted):
    client.ping(1)
pid = os.fork()
if pid == 0:
    done = concurrent.futures.wait(accepted, 3).done
    os._exit(0 if [type(future.exception(0)) for future in done] == [ForkedProcess] * 10 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), sum(future.done() for future in accepted), flush=True)
client.close(0)
"""


def test_copies_of_accepted_jobs_are_done_for_the_standard_librarys_functions_too(gearmand):
    """Those ask nobody but the future itself."""
    ended = run_program(["-W", "ignore", "-c", _DONE, gearmand.address], 25)
    assert (ended.code, ended.output) == (0, "0 0\n"), ended.errors


_ENDED = """
import os, sys
from gearman_pool import GearmanClient
from gearman_pool.errors import JobTimeout
from tests.support.outcomes import wait_up
client = GearmanClient([sys.argv[1]])
# Connected first: the time of a job runs while it waits for its server, and one that was not sent is owed no answer.
wait_up(client)
future = client.submit("job", timeout=0.5)
assert isinstance(future.exception(10), JobTimeout)
assert client.stats().in_flight == 1
pid = os.fork()
if pid == 0:
    os._exit(0 if isinstance(future.exception(0), JobTimeout) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
client.close(0)
"""


def test_job_that_had_ended_before_the_fork_keeps_its_outcome_though_the_server_owes_an_answer():
    with SilentServer() as server:
        ended = run_program(["-W", "ignore", "-c", _ENDED, server.address], 25)
    assert (ended.code, ended.output) == (0, "0\n"), ended.errors


_IN_HAND = """
import os, sys, threading
from gearman_pool import GearmanClient
from gearman_pool.errors import ForkedProcess
inside, go_on = threading.Event(), threading.Event()
def policy(servers, key):
    if threading.current_thread() is not threading.main_thread():
        inside.set()
        go_on.wait(20)
    return servers[0]
client = GearmanClient(sys.argv[1:], policy=policy, max_retries=1)
while any(server.state != "UP" for server in client.servers()):
    client.ping(1)
future = client.submit("echo", b"p")
while not future.job.handle:
    client.ping(1)
# Its connection is lost, and the I/O thread looks for another server.
client.remove_server(sys.argv[1], drain=False)
assert inside.wait(10)
pid = os.fork()
if pid == 0:
    os._exit(0 if isinstance(future.exception(3), ForkedProcess) else 1)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
go_on.set()
print(code, future.result(10).decode(), flush=True)
client.close()
"""


def test_copy_of_a_job_that_the_io_thread_had_in_hand_ends_when_it_is_waited_for(gearmands, c_workers):
    servers = [gearmands(), gearmands(), gearmands()]
    for server in servers[1:]:
        c_workers(server)
    ended = run_program(["-W", "ignore", "-c", _IN_HAND, *(server.address for server in servers)], 40)
    assert (ended.code, ended.output) == (0, "0 p\n"), ended.errors


_BEFORE_START = """
import os, sys
from gearman_pool import GearmanClient
from gearman_pool.errors import ForkedProcess
client = GearmanClient([sys.argv[1]])
future = client.submit("echo", b"p")
pid = os.fork()
if pid == 0:
    copy = type(future.exception(3)).__name__
    fine = copy == "ForkedProcess" and client.submit("echo", b"c").result(10) == b"c"
    client.close()
    os._exit(0 if fine else 1)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(code, future.result(10).decode(), flush=True)
client.close()
"""


@pytest.mark.slow
def test_fork_right_after_the_first_submit(gearmand, c_worker):
    for _ in range(10):
        ended = run_program(["-W", "ignore", "-c", _BEFORE_START, gearmand.address], 25)
        assert (ended.code, ended.output) == (0, "0 p\n"), ended.errors


_LATE_CONNECTION = """
import os, socket, sys, threading, time
from gearman_pool import GearmanClient
resolve, resolved = socket.getaddrinfo, threading.Event()
def slowly(*arguments, **options):
    resolved.wait(10)
    return resolve(*arguments, **options)
socket.getaddrinfo = slowly
closed, used = GearmanClient([sys.argv[1]], name="closed"), GearmanClient([sys.argv[1]], name="used")
closed.submit("x")
while not any(thread.name.endswith("closed-connect") for thread in threading.enumerate()):
    pass
closed.close(0)
resolved.set()
while any("closed" in thread.name for thread in threading.enumerate()):
    pass
assert used.submit("echo", b"p").result(10) == b"p"
pid = os.fork()
if pid == 0:
    os._exit(0 if used.submit("echo", b"c").result(10) == b"c" else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
used.close()
"""


def test_connection_that_came_after_the_close_disturbs_no_child(gearmand, c_worker):
    ended = run_program(["-W", "ignore", "-c", _LATE_CONNECTION, gearmand.address], 40)
    assert (ended.code, ended.output, ended.errors) == (0, "0\n", "")


_CALLER_INSIDE = """
import os, sys, threading
from gearman_pool import GearmanClient
from gearman_pool.errors import ClientSaturated, ForkedProcess
client = GearmanClient([sys.argv[1]], max_in_flight=4, submit_timeout=20)
held = [client.submit("nobody") for _ in range(4)]
while not all(future.job.handle for future in held):
    client.ping(1)
inside = threading.Event()
outcomes = []
def wait_for_a_result():
    inside.set()
    held[0].exception(20)
def wait_for_room():
    outcomes.append(client.submit("echo", b"room").result(20))
threads = [threading.Thread(target=wait_for_a_result), threading.Thread(target=wait_for_room)]
for thread in threads:
    thread.start()
inside.wait()
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        copies = all(isinstance(future.exception(1), ForkedProcess) for future in held)
        fine = copies and client.submit("echo", b"c").result(10) == b"c"
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
for future in held:
    future.cancel()
for thread in threads:
    thread.join(15)
print(outcomes, [future.cancelled() for future in held], flush=True)
client.close(1)
"""


def test_fork_while_other_threads_wait_for_results_and_for_room(gearmand, c_worker):
    ended = run_program(["-W", "ignore", "-c", _CALLER_INSIDE, gearmand.address], 40)
    assert (ended.code, ended.output) == (0, "[b'room'] [True, True, True, True]\n"), ended.errors


_CLOSED = """
import os, sys
from gearman_pool import GearmanClient
from gearman_pool.errors import ClientClosed
client = GearmanClient([sys.argv[1]])
client.submit_background("x").result(10)
client.close()
pid = os.fork()
if pid == 0:
    try:
        client.submit("x")
    except ClientClosed:
        os._exit(0)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


def test_closed_client_stays_closed_in_a_child(gearmand):
    ended = run_program(["-W", "ignore", "-c", _CLOSED, gearmand.address], 25)
    assert (ended.code, ended.output) == (0, "0\n"), ended.errors


_DESCRIPTORS = """
import gc, os, signal, sys
from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
# Nothing is to be left for the garbage collector, which may never come.
gc.disable()
def descriptors():
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            found.add((number, os.readlink("/proc/self/fd/" + number)))
        except OSError:  # that of the directory itself
            pass
    return found
before = descriptors()
def child_keeps():
    ours = descriptors() - before
    pid = os.fork()
    if pid == 0:
        kept = ours & descriptors()
        if kept:
            os.write(2, b"kept: %a\\n" % sorted(kept))
        if signal.set_wakeup_fd(-1) != -1:
            os.write(2, b"signals are written to a descriptor of the parent's\\n")
            os._exit(2)
        os._exit(1 if kept else 0)
    return len(ours), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

_CLIENTS_DESCRIPTORS = """
with GearmanClient([sys.argv[1]]) as client:
    client.ping()
    print(*child_keeps())
"""

_ADMINS_DESCRIPTORS = """
with GearmanAdminClient([sys.argv[1]]) as admin:
    admin.get_version()
    print(*child_keeps())
"""

_WORKERS_DESCRIPTORS = """
worker = GearmanWorker([sys.argv[1]])
kept = []
@worker.task("fork")
def fork(job):
    kept.extend(child_keeps())
    worker.stop()
with GearmanClient([sys.argv[1]]) as client:
    client.submit_background("fork").result(10)
before = descriptors()
worker.run()
print(*kept)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not list a process's descriptors")
@pytest.mark.parametrize(
    ("program", "least"),
    # Connection, selector and the two ends of the waker; for the worker the two of the pipe for signals as well.
    [(_CLIENTS_DESCRIPTORS, 4), (_ADMINS_DESCRIPTORS, 4), (_WORKERS_DESCRIPTORS, 6)],
    ids=["client", "admin client", "worker"],
)
def test_child_keeps_no_descriptor_of_the_parents(gearmand, program, least):
    ended = run_program(["-W", "ignore", "-c", _DESCRIPTORS + program, gearmand.address], 30)
    assert (ended.code, ended.errors) == (0, "")
    count, code = map(int, ended.output.split())
    assert count >= least, "there was less to be kept than this test looks for"
    assert code == 0


_MULTIPROCESSING = """
import multiprocessing, sys
from gearman_pool import GearmanClient
client = GearmanClient([sys.argv[1]])
def reverse(number):
    return client.submit("reverse", b"%d" % number).result(10)
if __name__ == "__main__":
    assert reverse(12) == b"21"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        results = pool.map(reverse, range(200))
    print([result[::-1] for result in results] == [b"%d" % number for number in range(200)], reverse(34), flush=True)
    client.close()
"""


@pytest.mark.slow
def test_pool_of_multiprocessing_shares_a_client_made_before_it(gearmand, c_worker):
    ended = run_program(["-W", "ignore", "-c", _MULTIPROCESSING, gearmand.address], 40)
    assert (ended.code, ended.output) == (0, "True b'43'\n"), ended.errors


_CALLBACK = """
import os, sys, threading
from gearman_pool import GearmanClient
client = GearmanClient([sys.argv[1]])
codes = []
done = threading.Event()
def fork_in_callback(future):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if client.submit("echo", b"c").result(10) == b"c" else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    done.set()
client.submit("echo", b"x").add_done_callback(fork_in_callback)
assert done.wait(15)
print(codes, client.submit("echo", b"p").result(10), flush=True)
client.close()
"""


def test_fork_inside_a_callback(gearmand, c_worker):
    ended = run_program(["-W", "ignore", "-c", _CALLBACK, gearmand.address], 30)
    assert (ended.code, ended.output) == (0, "[0] b'p'\n"), ended.errors


_UNTOLD = r"""
import ctypes, os, sys
from gearman_pool import GearmanClient
client = GearmanClient([sys.argv[1]])
if sys.argv[2] == "prepared":
    # A unique made here; those that come after must not go on from it in both processes.
    client._engine.uniques.new()
# Python's hooks are not called: so forks uWSGI.
pid = ctypes.PyDLL(None).fork()
name = b"child" if pid == 0 else b"parent"
if sys.argv[2] == "pinged":
    client.ping(10)
futures = [client.submit("late", name) for _ in range(20)]
os.write(1, name + b" %a\n" % sorted({future.result(20) for future in futures}))
client.close(1)
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.parametrize("first", ["submitted", "prepared", "pinged"])
def test_a_fork_that_python_is_not_told_of_does_not_mix_the_jobs_of_both_processes(gearmand, raw_workers, first):
    """Equal uniques would make one job of two at the server."""
    ended: list[Ended] = []
    arguments = ["-W", "ignore", "-c", _UNTOLD, gearmand.address, first]
    program = threading.Thread(target=lambda: ended.append(run_program(arguments, 30)))
    program.start()
    try:
        # All of both are queued before the first one runs: equal ones would have met.
        wait_until(lambda: gearmand.jobs("late") >= 40 or ended, 25, message=lambda: gearmand.text("status"))
        raw_workers(gearmand, "late", lambda job: job.complete(job.data))
    finally:
        program.join()
    assert (ended[0].code, sorted(ended[0].output.splitlines())) == (0, ["child [b'child']", "parent [b'parent']"])
