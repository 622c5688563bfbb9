"""Requests that wait for a server, and callers that wait for room. More of both stands in tests/faults."""

from __future__ import annotations

import threading
import time

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ClientSaturated

from ..support.waiting import wait_until


def test_job_does_not_overtake_one_that_the_io_thread_is_about_to_send(gearmand):
    with GearmanClient([gearmand.address]) as client:
        client.ping()
        room = client._engine.pool.waiting_room
        park, parking, second = room.park, threading.Event(), threading.Event()

        def slow_park(*arguments: object) -> None:
            parking.set()
            assert second.wait(10)
            park(*arguments)

        room.park = slow_park
        # As for a caller who looked just before the first connection stood.
        room.held_up = True
        first_job = client.submit_background("x")
        room.held_up = False
        assert parking.wait(10)
        second_job = client.submit_background("x")
        second.set()
        numbers = [int(job.result(10).handle.rpartition(":")[2]) for job in (first_job, second_job)]
    assert numbers == sorted(numbers)


def test_threads_that_look_at_the_same_arrival_leave_none_behind():
    """When the loop has ended, each late caller ends what has arrived."""
    with GearmanClient(["127.0.0.1:1"]) as client:
        room = client._engine.pool.waiting_room
        both = threading.Barrier(2)
        parked = []

        def park(entry: object, *_: object) -> None:
            parked.append(entry)
            if entry == "first":
                both.wait(10)

        room.park = park
        for entry in ("first", "second"):
            room.arrive(entry, None, 0.0)
        threads = [threading.Thread(target=room.take_arrivals) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert parked.count("first") == 2
        assert "second" in parked
        assert not len(room)


def test_jobs_that_are_put_in_line_again_use_up_their_room_again(gearmand):
    gearmand.kill()
    limit = 1_000_000
    with GearmanClient([gearmand.address], max_outbound_bytes=limit, submit_timeout=60) as client:
        pool = client._engine.pool
        assert not pool.full(10)  # room for many of its size, without counting
        for _ in range(9):
            pool.park_again((bytes(limit // 10), 0, None), None, client._engine.io.clock() + 60)
        assert not pool.full(limit // 20)
        assert pool.full(limit // 5)
        client.close(0)


def test_caller_that_waits_for_room_costs_no_processor_time(gearmand):
    with GearmanClient([gearmand.address], max_outbound_bytes=3_000_000, submit_timeout=1.0) as client:
        client.ping()
        with gearmand.paused():
            for _ in range(100):  # until the server's buffers are full, and the limit is reached with the next one
                try:
                    client.submit("x", bytes(1_000_000))
                except ClientSaturated:
                    break
            wakeups, used = client.stats().wakeups, time.process_time()
            with pytest.raises(ClientSaturated):
                client.submit("x", bytes(2_900_000))
            assert client.stats().wakeups - wakeups < 100
            assert time.process_time() - used < 0.5
        client.close(timeout=0)


def test_callers_who_found_no_room_leave_nothing_behind(gearmand):
    with GearmanClient([gearmand.address], max_in_flight=1, submit_timeout=0.005) as client:
        client.ping(5)
        blocker = client.submit("nobody does this")
        for _ in range(50):
            with pytest.raises(ClientSaturated):
                client.submit("nobody does this")
        assert not client._engine.pool.budget.callers
        wait_until(lambda: blocker.job.handle, message="acceptance")
        assert blocker.cancel()
