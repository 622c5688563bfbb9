"""One server that is dead, one that is frozen and one that lives, in all orders and from the start or in mid-load."""

from __future__ import annotations

import itertools
import os
import threading
import time

import pytest

from gearman_pool import GearmanAdminClient, GearmanClient, GearmanWorker
from gearman_pool.errors import GearmanError

from ..support.running import running
from ..support.waiting import wait_until

HEALTH = {"health_check_interval": 0.3, "health_check_timeout": 1.5, "reconnect_backoff": (0.05, 0.5)}


@pytest.fixture
def three(servers):
    """Three servers; a frozen one goes on before its end, so that it can end."""
    three = [servers() for _ in range(3)]
    yield three
    for server in three:
        if server.running:
            server.resume()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_jobs_go_to_the_one_server_that_lives(three, c_workers, order):
    dead, frozen, live = three
    c_workers(live)
    dead.kill()
    frozen.pause()
    addresses = [three[number].address for number in order]
    for policy in ("failover", "random"):
        with GearmanClient(addresses, policy=policy, **HEALTH) as client:
            started = time.monotonic()
            for number in range(20):
                assert client.submit("echo", b"%d" % number).result(20) == b"%d" % number
            print(f"measured: {time.monotonic() - started:.2f} s for 20 jobs, policy {policy}")
            states = {server.address: server.state for server in client.servers()}
            assert states[live.address] == "UP"
            assert "UP" not in (states[dead.address], states[frozen.address])


def test_one_server_dies_and_one_freezes_under_load_and_every_job_is_right(three, c_workers):
    for server in three:
        c_workers(server)
    dead, frozen, _ = three
    wrong, errors, right = [], [], []
    go_on = threading.Event()
    with GearmanClient([server.address for server in three], max_retries=3, submit_timeout=30.0, **HEALTH) as client:
        wait_until(lambda: None not in client.ping().values(), message="all are up")

        def work(thread):
            for number in range(150):
                payload = f"{thread}-{number}-{os.urandom(4).hex()}".encode()
                try:
                    result = client.submit("reverse", payload).result(50)
                except GearmanError as error:
                    errors.append(error)
                    continue
                (right if result == payload[::-1] else wrong).append(payload)
                if len(right) > 300:
                    go_on.set()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        assert go_on.wait(30)
        frozen.pause()
        dead.kill()
        for thread in threads:
            thread.join(55)
        stats = client.stats()
    assert not wrong
    assert not errors
    assert len(right) == 8 * 150
    assert stats.loop_errors == 0
    print(f"measured: {stats.jobs_retried} jobs were sent again")


def test_worker_serves_the_one_that_lives_and_the_others_when_they_come_back(three):
    dead, frozen, live = three
    worker = GearmanWorker([server.address for server in three], **HEALTH)
    worker.register_task("reverse", lambda job: job.data[::-1])
    dead.kill()
    frozen.pause()
    with running(worker):
        with GearmanClient([live.address]) as client:
            assert client.submit("reverse", b"abc").result(20) == b"cba"
        frozen.resume()
        dead.start()
        for server in three:
            with GearmanClient([server.address]) as client:
                assert client.submit("reverse", b"def").result(30) == b"fed"
    with GearmanAdminClient([live.address]) as admin:
        wait_until(lambda: [row["workers"] for row in admin.get_status()] == [0], message="the worker has gone")


def test_results_go_to_the_servers_that_gave_the_jobs(servers):
    first, second = servers(), servers()
    worker = GearmanWorker([first.address, second.address])
    worker.register_task("reverse", lambda job: job.data[::-1])
    with running(worker), GearmanClient([first.address]) as one, GearmanClient([second.address]) as two:
        wait_until(lambda: all(server.state == "UP" for server in worker.stats().servers), message="both are up")
        payloads = [b"%d" % number for number in range(100)]
        futures = [(payload, client.submit("reverse", payload)) for payload in payloads for client in (one, two)]
        for payload, future in futures:
            assert future.result(10) == payload[::-1]
        assert worker.stats().refused == 0
