"""Many threads, large payloads, many jobs, and no work at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient

from ..support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

MiB = 1024 * 1024


def start_worker(kind, request, server):
    """Start a worker of a kind and return the task of it that the threads use, and what that makes of a payload."""
    if kind == "raw":
        request.getfixturevalue("echo_worker")
        return "reverse", lambda data: data[::-1]
    if kind == "libgearman":
        request.getfixturevalue("c_workers")(server)
        return "reverse", lambda data: data[::-1]
    if kind == "php":
        request.getfixturevalue("php_workers")(server)
        return "reverse", lambda data: data[::-1]
    # A process for each job: two of them are twice as fast.
    for _ in range(2):
        request.getfixturevalue("tool_workers")(server, "tool", "cat")
    return "tool", lambda data: data


@pytest.mark.parametrize("kind", ["raw", "libgearman", "gearman -w", "php"])
def test_sixteen_threads_of_one_client_get_their_own_results(server, client, request, kind):
    task, expected = start_worker(kind, request, server)
    jobs = 40 if kind == "gearman -w" else 200  # it starts a process for each
    wrong, errors, right = [], [], []

    def work(thread):
        for number in range(jobs):
            payload = f"{thread}-{number}-{os.urandom(4).hex()}".encode()
            try:
                result = client.submit(task, payload).result(50)
            except Exception as error:
                errors.append(error)
                continue
            if result == expected(payload):
                right.append(1)
            else:
                wrong.append((payload, result))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(58)
    assert not wrong
    assert not errors
    assert len(right) == 16 * jobs
    assert client.stats().connections_opened == 1


def test_sixteen_threads_with_python_gearmans_calls_get_their_own_results(client, c_worker):
    wrong = []

    def work(thread):
        for number in range(40):
            jobs = [{"task": "reverse", "data": f"{thread}-{number}-{part}"} for part in range(3)]
            requests = client.submit_multiple_jobs(jobs, poll_timeout=50)
            for job, done in zip(jobs, requests, strict=True):
                if done.result != job["data"][::-1].encode():
                    wrong.append((job, done))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(58)
    assert not wrong
    assert client.stats().jobs_completed == 16 * 40 * 3


def test_sixty_four_mebibytes_of_zeros_there_and_back(client, echo_worker):
    # Nothing but NULs, the separator: gear took 1.6 GB and 8.9 s for a quarter of it.
    payload = bytes(64 * MiB)
    assert client.submit("echo", payload).result(50) == payload
    job = echo_worker.taken.pop()
    assert job.data == payload


def test_large_result_does_not_mix_with_small_ones(client, echo_worker):
    large = [client.submit("reverse", b"%d" % number + bytes(8 * MiB)) for number in range(3)]
    small = [client.submit("echo", b"%d" % number) for number in range(300)]
    assert [future.result(50) for future in small] == [b"%d" % number for number in range(300)]
    assert [future.result(50) for future in large] == [bytes(8 * MiB) + b"%d" % number for number in range(3)]


BACKGROUND_JOBS = """
import gc, os, sys, time
from gearman_pool import GearmanClient

def resident():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

# How soon a busy machine's server answers a health check is not asked here.
with GearmanClient([sys.argv[1]], health_check_timeout=30) as client:
    def submit(count):
        for _ in range(count // 1000):
            futures = [client.submit_background("echo", b"x" * 20) for _ in range(1000)]
            for future in futures:
                future.result(30)
    submit(20_000)
    before = resident()
    submit(80_000)
    grown = resident() - before
    deadline = time.monotonic() + 20
    # A health check counts as in flight, too.
    while client.stats().in_flight and time.monotonic() < deadline:
        time.sleep(0.01)
    stats = client.stats()
    print(grown, stats.jobs_accepted, stats.in_flight, len(gc.get_objects()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_hundred_thousand_background_jobs_leave_nothing_behind(server, c_worker):
    # python-gearman keeps something for each of them for ever.
    program = subprocess.run(
        [sys.executable, "-c", BACKGROUND_JOBS, server.address],
        capture_output=True,
        text=True,
        timeout=55,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert program.returncode == 0, program.stderr
    grown, jobs, in_flight, objects = map(int, program.stdout.split())
    print(f"measured: {grown / 1024:.0f} KiB more after another 80,000 jobs, {objects} objects")
    assert (jobs, in_flight) == (100_000, 0)
    # 40 bytes for each job would be 3 MiB.
    assert grown < 2 * MiB


def rest(seconds):
    """Do nothing for so long, and return the part of a processor that this process took meanwhile."""
    started, before = time.monotonic(), time.process_time()
    wait_until(lambda: time.monotonic() - started >= seconds, timeout=seconds + 10, interval=seconds, message="rest")
    return (time.process_time() - before) / (time.monotonic() - started)


def processor_time():
    """The part of a processor that waiting takes: the least of three rests, for what spins does so in all of them.

    What earlier tests left for the garbage collector may fall into one.
    """
    return min(rest(0.7) for _ in range(3))


@pytest.mark.parametrize("doing", ["nothing", "waiting for a result", "waiting for its server"])
def test_client_that_waits_takes_no_processor_time(server, client, raw_worker, doing):
    # python-gearman takes a whole processor in each of these cases.
    client.ping()
    if doing == "waiting for a result":
        future = client.submit("raw")
        raw_worker.next_job()
        assert not future.done()
    elif doing == "waiting for its server":
        raw_worker.close()
        server.kill()
        client.submit("raw")
    used = processor_time()
    print(f"measured: {used:.2%} of a processor while {doing}")
    assert used < 0.05


def test_admin_client_that_waits_takes_no_processor_time(server):
    with GearmanAdminClient([server.address]) as admin:
        admin.ping_server()
        assert processor_time() < 0.05


@pytest.mark.slow
def test_first_job_after_a_long_rest_is_as_fast_as_any(server, c_worker):
    # python-gearman took 5.2 s here: what it had to send waited for the end of its poll.
    with GearmanClient([server.address], health_check_interval=1.0) as client:
        client.submit("echo", b"warm").result(10)
        wakeups = client.stats().wakeups
        for _ in range(2):
            rest(3.5)
            started = time.monotonic()
            assert client.submit("echo", b"after the rest").result(10) == b"after the rest"
            took = time.monotonic() - started
            print(f"measured: {took * 1000:.1f} ms after 3.5 s of rest")
            assert took < 1.5
        assert client.stats().wakeups - wakeups < 50
        assert client.stats().connections_opened == 1
