"""Many threads do at the same time whatever can be done, with the interpreter switching as often as it can."""

from __future__ import annotations

import os

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ClientClosed

from ..support.figures import figure
from ..support.outcomes import wait_up
from ..support.processes import run_program
from ..support.waiting import wait_until

# In a process of its own: it forks, changes the switch interval, and a deadlock must not take the tests with it. A
# deadlock shows the stacks of all threads, because `run_program` sends SIGABRT at its deadline.
_PROGRAM = """
import faulthandler, itertools, logging, os, random, signal, sys, threading, time, warnings
import gearman_pool
from gearman_pool.errors import GearmanError

# A fork beside threads is what is tested.
warnings.simplefilter("ignore", DeprecationWarning)
faulthandler.enable()
logging.disable(logging.WARNING)
scenario, seconds, addresses = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
sys.setswitchinterval(1e-6)
END = time.monotonic() + seconds
# A slow machine gets more time to come to what makes the run worth anything.
LAST_END = END + 15
OPTIONS = {"submit_timeout": 5, "reconnect_backoff": (0.01, 0.05), "max_in_flight": 2000}
wrong, unexpected, counts, lock = [], [], {}, threading.Lock()
payloads = itertools.count()

def count(what):
    with lock:
        counts[what] = counts.get(what, 0) + 1

def enough():
    return all(counts.get(what, 0) >= least for what, least in LEAST[scenario].items())

def until_end(work):
    def run():
        while time.monotonic() < END or (time.monotonic() < LAST_END and not enough()):
            try:
                work()
            except (GearmanError, TimeoutError) as error:
                count(type(error).__name__)
            except BaseException as error:
                unexpected.append(repr(error))
                return
    return run

def run_all(*works):
    threads = [threading.Thread(target=until_end(work), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 40)
    stuck = [thread.name for thread in threads if thread.is_alive()]
    if stuck:
        print("stuck:", stuck, flush=True)
        os.abort()

class Current:
    client = gearman_pool.GearmanClient(addresses, **OPTIONS)

futures = []

# Each outcome is to be told once. `lock` guards both.
told = {}
watched = []

def note(future):
    with lock:
        told[id(future)] = told.get(id(future), 0) + 1

def watch(future):
    with lock:
        watched.append(future)
    future.add_done_callback(note)
    return future

def submit(retries=0):
    payload = b"%d" % next(payloads)
    future = watch(Current.client.submit("echo", payload, max_retries=retries))
    futures.append((payload, future))
    if random.random() < 0.3:
        if future.result(20) != payload:
            wrong.append(payload)
        count("answered")

def background():
    Current.client.submit_background("echo", b"x").result(20)
    count("background")

def cancel():
    future = Current.client.submit("echo" if random.random() < 0.5 else "nobody", b"c", timeout=10)
    watch(future)
    futures.append((b"c", future))
    count("cancelled" if future.cancel() else "not cancelled")

def look():
    client = Current.client
    repr(client), client.stats(), client.servers()
    if futures:
        try:
            client.status(random.choice(futures)[1], timeout=2)
        except ValueError:
            pass  # its server has been removed meanwhile
    count("looked")

def ping():
    Current.client.ping(1)
    count("pinged")

def swap():
    old, Current.client = Current.client, gearman_pool.GearmanClient(addresses, **OPTIONS)
    time.sleep(random.random() * 0.01)
    closers = [threading.Thread(target=old.close, args=(random.choice((0, 0, 0.5)),)) for _ in range(2)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(20)
        if closer.is_alive():
            unexpected.append("close() hangs")
    count("closed")

def servers():
    victim = random.choice(addresses[1:])
    try:
        Current.client.remove_server(victim, drain=random.random() < 0.5)
    except ValueError:
        pass
    time.sleep(random.random() * 0.01)
    Current.client.add_server(victim)
    count("servers changed")

def fork():
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.alarm(20)
            sys.setswitchinterval(0.005)
            client = Current.client
            if client.submit("echo", b"child", max_retries=2).result(15) == b"child":
                client.close(0)
                status = 0
        except gearman_pool.errors.ClientClosed:
            status = 0  # it was closed in the parent at the moment of the fork
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    count("forked")
    if status:
        unexpected.append(f"child ended with {status}")
    time.sleep(0.02)

# Without the GIL a child of a fork may hang in CPython itself. Each object has a lock there, each dict and deque too,
# which is handed to a thread that has waited for it for 1 ms. If the fork stops that thread just then, the child has
# the lock, taken, but not the thread. No library is needed: with four to eight threads that call get() of one dict, 12
# of 778 children hung in that call (3.13.5), and with PYTHON_GIL=1 none of 800. Of nine runs of "all" for 10 s each
# seven had a child that hung; of "fork", in 150 s, none did: that scenario forks everywhere.
HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
SCENARIOS = {
    "submit": [submit] * 10 + [look, ping],
    "cancel": [cancel] * 6 + [submit] * 4 + [look],
    "close": [submit] * 6 + [background, cancel, look, ping, swap],
    "servers": [lambda: submit(3)] * 6 + [background, cancel, look, servers, servers],
    "fork": [submit] * 6 + [cancel, look, fork],
    "all": [lambda: submit(3)] * 5 + [background, cancel, look, ping, swap, servers, *([fork] if HAS_GIL else [])],
}
# The least that must have happened: a run in which nothing got through proves nothing.
LEAST = {
    "submit": {"answered": 300, "looked": 20, "pinged": 20},
    "cancel": {"answered": 100, "cancelled": 30},
    "close": {"answered": 50, "closed": 10},
    "servers": {"answered": 50, "servers changed": 20},
    "fork": {"answered": 50, "forked": 5},
    "all": {"answered": 30, "closed": 5, "servers changed": 5, **({"forked": 3} if HAS_GIL else {})},
}
run_all(*SCENARIOS[scenario])
deadline = time.monotonic() + 20
for payload, future in futures:
    try:
        result = future.result(max(0.01, deadline - time.monotonic()))
        count("right" if result == payload else "wrong")
        if result != payload:
            wrong.append(payload)
    except TimeoutError:
        # A job of its own timeout ends with JobTimeout, which is a TimeoutError too.
        count("ended" if future.done() else "hung")
        if not future.done():
            print("hung:", future, future.request.state, future.connection, flush=True)
    except BaseException as error:
        count(type(error).__name__)
Current.client.close(5)
left = [thread.name for thread in threading.enumerate() if thread.name.startswith("gearman_pool")]
deadline = time.monotonic() + 10
while left and time.monotonic() < deadline:
    time.sleep(0.02)
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("gearman_pool")]
deadline = time.monotonic() + 10
while len(told) < len(watched) and time.monotonic() < deadline:
    time.sleep(0.02)
print("loop errors", Current.client.stats().loop_errors, "left", left)
print(counts, flush=True)
assert enough(), (counts, LEAST[scenario])
assert set(told.values()) == {1}, "a future resolved twice"
assert len(told) == len(watched), "a future never told of its outcome"
assert not wrong, wrong[:5]
assert not unexpected, unexpected[:5]
assert not counts.get("hung"), counts
assert not left
assert not Current.client.stats().loop_errors
"""

#: For each scenario; `RACE_SECONDS` in the environment looks for longer.
SECONDS = float(os.environ.get("RACE_SECONDS", "2.5"))
_SHORT = float(os.environ.get("RACE_SECONDS", "1.2"))


def _race(scenario: str, addresses: list[str]) -> None:
    _run_race(scenario, ["-c", _PROGRAM, scenario, str(SECONDS), *addresses])


def _run_race(name: str, program: list[str]) -> None:
    ended = run_program(program, SECONDS + 90)
    figure(f"{name}: {ended.output.strip()}")
    assert ended.code == 0, f"{ended.output}\n{ended.errors[-6000:]}"
    assert "Traceback" not in ended.errors, ended.errors[-6000:]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("scenario", ["submit", "cancel", "close", "servers", "fork", "all"])
def test_every_future_ends_and_none_with_anothers_answer(gearmands, c_workers, scenario):
    servers = [gearmands(), gearmands()]
    for server in servers:
        c_workers(server)
    _race(scenario, [server.address for server in servers])


def test_job_that_reaches_a_connection_just_after_its_end_goes_to_another_server(gearmands, c_workers, monkeypatch):
    """The moment between a caller's look and its append is too short for chance, so the look is made to be late."""
    dead, live = gearmands(), gearmands()
    c_workers(live)
    with GearmanClient([dead.address, live.address], policy="failover") as client:
        wait_up(client)
        pool = client._engine.pool
        connection = pool.choose(None)
        assert connection.server.name == dead.address
        dead.kill()
        wait_until(lambda: connection.closed)
        real = pool.choose

        def choose_late(key):
            if client._engine.io.is_current():
                return real(key)
            monkeypatch.undo()
            return connection

        monkeypatch.setattr(pool, "choose", choose_late)
        future = client.submit("echo", b"straggler")
        assert future.result(10) == b"straggler"
        assert future.request.connection_attempts == 1


@pytest.mark.parametrize("where", ["the waiting line", "a connection"])
def test_job_that_is_put_in_line_just_after_the_end_of_the_loop_ends_too(gearmand, monkeypatch, where):
    """The client is closed between a caller's look, which found it open, and the moment its job is in line."""
    with GearmanClient([gearmand.address]) as client:
        wait_up(client)
        pool = client._engine.pool
        connection = pool.choose(None)

        def choose_late(key):
            monkeypatch.undo()
            client.close(1)
            return connection if where == "a connection" else None

        monkeypatch.setattr(pool, "choose", choose_late)
        future = client.submit("echo", b"late")
        with pytest.raises(ClientClosed):
            future.result(2)


@pytest.mark.parametrize(("scenario", "concurrency"), [("tasks", 4), ("stop", 1), ("all", 3)])
def test_worker_runs_each_job_once_whatever_other_threads_do_to_it(gearmands, scenario, concurrency):
    servers = [gearmands().address, gearmands().address]
    program = ["-m", "tests.faults.programs.worker_races", scenario, str(concurrency)]
    _run_race(f"worker, {scenario}", [*program, str(_SHORT), *servers])


@pytest.mark.parametrize("scenario", ["share", "cut", "close"])
def test_threads_that_share_an_admin_client_get_the_answers_to_their_own_questions(gearmand, scenario):
    program = ["-m", "tests.faults.programs.admin_races", scenario]
    _run_race(f"admin client, {scenario}", [*program, str(_SHORT), gearmand.address, str(gearmand.pid)])
