"""F1: a server is killed with jobs in flight."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost

from ..support.figures import figure
from ..support.outcomes import OutcomeCounter, account, wait_accepted, wait_up
from ..support.waiting import wait_until

JOBS = 9_990  # with the health checks, within max_in_flight


def _submit_evenly(client, count, outcomes):
    """Submit echo jobs whose payloads tell them apart, and wait until the servers have accepted all."""
    payloads = [b"job %d" % number for number in range(count)]
    futures = [(payload, outcomes.watch(client.submit("echo", payload))) for payload in payloads]
    wait_accepted(*(future for _, future in futures), timeout=30)
    return futures


def test_jobs_of_the_dead_server_alone_raise_connection_lost_without_retries(gearmands, c_workers):
    servers = [gearmands(), gearmands(), gearmands()]
    dead, *live = servers
    with GearmanClient([server.address for server in servers], policy="round_robin") as client:
        wait_up(client)
        outcomes = OutcomeCounter()
        futures = _submit_evenly(client, JOBS, outcomes)
        at_dead = {payload for payload, future in futures if str(future.job.connection) == dead.address}
        assert len(at_dead) == pytest.approx(JOBS / 3, abs=1000)
        assert client.stats().in_flight >= JOBS
        dead.kill()
        for server in live:
            c_workers(server)
        right = 0
        for payload, future in futures:
            error = future.exception(30)
            if payload in at_dead:
                assert isinstance(error, ConnectionLost)
                assert (error.maybe_sent, error.server, error.task) == (True, dead.address, "echo")
                assert "may have run" in str(error)
                assert future.request.connection_failed
            else:
                assert error is None
                assert future.result() == payload
                right += 1
        assert right + len(at_dead) == JOBS
        outcomes.assert_one_each()
        stats = client.stats()
        assert (stats.jobs_completed, stats.jobs_lost) == (right, len(at_dead))
        figure(f"{JOBS} of {JOBS} accounted for: {right} results, {len(at_dead)} ConnectionLost")


def test_every_job_gives_its_right_result_with_retries(gearmands, c_workers):
    servers = [gearmands(), gearmands(), gearmands()]
    dead, *live = servers
    with GearmanClient([s.address for s in servers], policy="round_robin", max_retries=2) as client:
        wait_up(client)
        outcomes = OutcomeCounter()
        futures = _submit_evenly(client, JOBS, outcomes)
        lost = sum(str(future.job.connection) == dead.address for _, future in futures)
        dead.kill()
        for server in live:
            c_workers(server)
        assert account(futures) == {"right": JOBS}
        outcomes.assert_one_each()
        stats = client.stats()
        assert stats.jobs_retried == lost
        assert stats.jobs_lost == 0
        figure(f"{JOBS} of {JOBS} right results, {lost} of them sent again")


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("max_retries", [0, 2])
def test_every_job_is_accounted_for_when_a_server_dies_while_threads_submit(gearmands, c_workers, count, max_retries):
    servers = [gearmands() for _ in range(count)]
    workers = [c_workers(server) for server in servers]
    assert all(worker.running for worker in workers)
    with GearmanClient([server.address for server in servers], max_retries=max_retries) as client:
        wait_up(client)
        collected: list[list] = [[] for _ in range(4)]
        outcomes = OutcomeCounter()

        def submit(thread: int) -> None:
            for number in range(1500):
                payload = b"%d/%d" % (thread, number)
                collected[thread].append((payload, outcomes.watch(client.submit("echo", payload))))

        threads = [threading.Thread(target=submit, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: sum(map(len, collected)) > 1500, interval=0.0005, message="the load is on")
        servers[0].kill()
        for thread in threads:
            thread.join(30)
        counts = account(pair for futures in collected for pair in futures)
        figure(f"{count} servers, max_retries={max_retries}: {dict(counts)}")
        assert counts.total() == 6000
        outcomes.assert_one_each()
        if max_retries:
            assert counts == {"right": 6000}
        else:
            assert set(counts) <= {"right", "ConnectionLost"}
        assert client.stats().jobs_lost == counts["ConnectionLost"]
        assert client.submit("echo", b"after").result(10) == b"after"


def test_lost_connection_is_noticed_at_once(gearmands):
    mortal, live = gearmands(), gearmands()
    with GearmanClient([mortal.address, live.address], reconnect_backoff=(0.01, 0.1), policy="failover") as client:
        first, last = [], []
        # Promised are 100 ms, and that in four rounds: a busy machine spoils some.
        while len(first) < 5 or (sorted(first)[3] >= 0.1 and len(first) < 15):
            wait_up(client)
            futures = [client.submit("nobody", b"x" * 100) for _ in range(500)]
            wait_accepted(*futures)
            noticed: list[float] = []
            futures[0].add_done_callback(lambda _, noticed=noticed: noticed.append(time.monotonic()))
            started = time.monotonic()
            os.kill(mortal.pid, signal.SIGKILL)
            for future in futures:
                assert isinstance(future.exception(10), ConnectionLost)
            last.append(time.monotonic() - started)
            wait_until(lambda noticed=noticed: noticed)
            first.append(noticed[0] - started)
            mortal.kill()
            mortal.start()
        figure(
            f"kill -9 to the first ConnectionLost: median {statistics.median(first) * 1e3:.1f} ms, longest "
            f"{max(first) * 1e3:.1f} ms; to the last of 500: median {statistics.median(last) * 1e3:.1f} ms, longest "
            f"{max(last) * 1e3:.1f} ms (promised: under 100 ms)"
        )
        assert sorted(first)[3] < 0.1
        assert sorted(last)[3] < 1.0


def test_unsent_jobs_of_a_dead_server_cost_no_attempt_and_run_elsewhere(gearmands, c_workers):
    frozen, live = gearmands(), gearmands()
    addresses = [frozen.address, live.address]
    with GearmanClient(addresses, policy="failover", health_check_interval=60, max_in_flight=1000) as client:
        wait_up(client)
        frozen.pause()
        # The kernel takes some megabytes of these; the others wait in this process.
        payloads = [b"%08d" % number + bytes(100_000) for number in range(300)]
        futures = [(payload, client.submit("echo", payload)) for payload in payloads]
        c_workers(live)
        frozen.kill()
        counts = account(futures)
        figure(f"300 jobs of 100 kB at a frozen and then killed server, no retries: {dict(counts)}")
        assert set(counts) == {"right", "ConnectionLost"}
        assert counts["right"] >= 100
        for _, future in futures:
            if future.exception() is None:
                assert future.request.connection_attempts == 1
                assert str(future.job.connection) == live.address


def test_background_job_keeps_its_unique_and_a_foreground_job_gets_a_new_one_when_sent_again(gearmands):
    frozen, live = gearmands(), gearmands()
    addresses = [frozen.address, live.address]
    with GearmanClient(addresses, policy="failover", max_retries=1, health_check_interval=60) as client:
        wait_up(client)
        frozen.pause()
        background = client.submit_background("nobody", b"b")
        foreground = client.submit("nobody", b"f")
        named = client.submit("nobody", b"n", unique="mine")
        uniques = background.job.unique, foreground.job.unique
        # What has not left yet goes to the other server as it is.
        wait_until(lambda: not any(connection.queue for connection in client._engine.pool.connections))
        frozen.kill()
        assert background.result(10).server == live.address
        wait_accepted(foreground, named)
        assert background.job.unique == uniques[0]
        assert foreground.job.unique != uniques[1]
        assert named.job.unique == "mine"
        assert [f.request.connection_attempts for f in (background, foreground, named)] == [2, 2, 2]
        live.wait_for(lambda text: "nobody\t3\t" in text, message="three jobs on the live server")
        client.close(0)
