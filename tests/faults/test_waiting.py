"""F9 and F17 where the standard library waits: `wait`, `as_completed` and `await` depend on nobody's callbacks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import threading
import time
from collections import Counter
from functools import partial

import pytest

from gearman_pool import GearmanClient, JSONEncoder
from gearman_pool.errors import ClientSaturated, DecodeError
from gearman_pool.future import JobFuture
from gearman_pool.threads.callbacks import MAX_THREADS

from ..support.outcomes import wait_accepted, wait_up
from ..support.steps import wakes_at_step
from ..support.waiting import wait_until
from ..support.workers import RawJob


@pytest.fixture
def client(gearmand, c_worker):
    with GearmanClient([gearmand.address]) as client:
        wait_up(client)
        yield client


@pytest.fixture
def blocked(client, gearmand):
    """More callbacks block than there are threads for callbacks."""
    release, count = threading.Event(), []

    def block(_: object) -> None:
        count.append(True)
        release.wait(30)

    with gearmand.paused():  # a callback for a job that is done would run, and block, here
        for _ in range(2 * MAX_THREADS):
            client.submit("echo").add_done_callback(block)
    wait_until(lambda: len(count) == MAX_THREADS, message="all threads for callbacks are taken")
    yield release
    release.set()


def _await(client: GearmanClient, payload: bytes) -> bytes:
    async def call() -> bytes:
        return await asyncio.wait_for(client.submit("echo", payload), 15)

    return asyncio.run(call())


def test_wait_as_completed_and_await_do_not_depend_on_callbacks_that_block(client, blocked):
    futures = [client.submit("echo", b"%d" % number) for number in range(20)]
    done, pending = concurrent.futures.wait(futures, timeout=15)
    assert len(done) == 20
    assert not pending
    futures = [client.submit("echo", b"%d" % number) for number in range(20)]
    found = {future.result() for future in concurrent.futures.as_completed(futures, timeout=15)}
    assert found == {b"%d" % number for number in range(20)}
    assert _await(client, b"hello") == b"hello"
    assert not blocked.is_set()


def test_callbacks_may_all_wait_for_other_jobs_with_the_standard_librarys_functions(client, gearmand):
    finished = []

    def wait_for_another(_: object) -> None:
        concurrent.futures.wait([client.submit("echo", b"again")])
        finished.append(True)

    with gearmand.paused():
        for _ in range(2 * MAX_THREADS):
            client.submit("echo").add_done_callback(wait_for_another)
    wait_until(lambda: len(finished) == 2 * MAX_THREADS, 15, message="the callbacks that wait")


def test_as_completed_yields_each_future_once_though_some_are_done_and_have_callbacks(client):
    for _ in range(20):
        futures = [client.submit("echo", b"%d" % number) for number in range(40)]
        for future in futures:
            future.add_done_callback(lambda _: time.sleep(0))
        seen = Counter(future.result() for future in concurrent.futures.as_completed(futures, timeout=15))
        assert seen == Counter(b"%d" % number for number in range(40))


def test_loop_that_is_closed_while_it_is_told_keeps_no_other_loop_from_its_result(client, gearmand, monkeypatch):
    def closed_by_now(*_: object) -> None:
        raise RuntimeError("Event loop is closed")

    async def wrap() -> None:
        asyncio.wrap_future(future)

    async def call() -> bytes:
        waiting = asyncio.wrap_future(future)
        gearmand.resume()
        return await asyncio.wait_for(waiting, 10)

    given_up = asyncio.new_event_loop()
    gearmand.pause()
    future = client.submit("echo", b"x")
    given_up.run_until_complete(wrap())
    # It looks open still; the moment between that look and the call is too short for chance.
    monkeypatch.setattr(given_up, "call_soon_threadsafe", closed_by_now)
    try:
        assert asyncio.run(call()) == b"x"
    finally:
        given_up.close()


def test_await_of_a_result_that_cannot_be_decoded_raises_and_does_not_hang(gearmand, c_worker):
    with GearmanClient([gearmand.address], data_encoder=_OneWay) as client:

        async def call() -> object:
            return await asyncio.wait_for(client.submit("echo", b"not json"), 10)

        with pytest.raises(DecodeError, match="echo"):
            asyncio.run(call())


class _OneWay(JSONEncoder):
    """Takes bytes as they are, and gives back only JSON."""

    @classmethod
    def encode(cls, encodable_object: object) -> bytes:
        assert isinstance(encodable_object, bytes)
        return encodable_object


def test_result_that_cannot_be_decoded_is_an_error_of_ours_with_the_encoders_as_its_cause(gearmand, c_worker):
    with GearmanClient([gearmand.address], data_encoder=_OneWay) as client:
        future = client.submit("echo", b"not json", unique="mine")
        with pytest.raises(DecodeError) as found:
            future.result(10)
        error = found.value
        assert isinstance(error, ValueError)
        assert (error.task, error.unique, error.maybe_sent) == ("echo", "mine", True)
        assert error.server == gearmand.address
        assert type(error.__cause__).__name__ == "JSONDecodeError"
        assert "not json" not in str(error)
        assert future.exception() is error
        assert future.request.result_data == b"not json"
        done, _ = concurrent.futures.wait([future], timeout=5)
        assert done == {future}


def test_request_that_met_a_full_client_can_be_submitted_again(gearmand, c_worker):
    with GearmanClient([gearmand.address], max_in_flight=1, submit_timeout=0.2) as client:
        wait_up(client)
        blocker = client.submit("nobody does this")
        request = client.job_request_class(client.job_class(None, None, "echo", "u1", b"x"))
        with pytest.raises(ClientSaturated):
            client.submit_multiple_requests([request])
        assert blocker.cancel()
        (again,) = client.submit_multiple_requests([request], poll_timeout=10)
        assert (again.state, again.result) == ("COMPLETE", b"x")


def test_locks_that_interrupted_callers_left_taken_hold_up_nobody(client):
    """As `concurrent.futures.wait` leaves them when an exception strikes it: all its futures' locks taken."""
    futures = [client.submit("nobody does this") for _ in range(300)]
    wait_until(lambda: all(future.job.handle for future in futures), message="the jobs are accepted")
    for future in futures:
        future._condition.acquire()
    took = []
    dropped = threading.Thread(target=_drop, args=(client, futures))
    dropped.start()
    for number in range(200):
        before = time.monotonic()
        assert client.submit("echo", b"%d" % number).result(20) == b"%d" % number
        took.append(time.monotonic() - before)
    dropped.join(30)
    called = threading.Event()
    before = time.monotonic()
    client.submit("echo").add_done_callback(lambda _: called.set())
    assert called.wait(10)
    assert time.monotonic() - before < 3
    assert max(took) < 2
    wait_until(lambda: all(future.done() for future in futures), 10, message="the futures whose locks were left taken")


def _drop(client: GearmanClient, futures: list[object]) -> None:
    for future in futures:
        client._engine.begin_cancel(future, _Nobody())  # type: ignore[arg-type]


class _Nobody:
    def set(self, value: object) -> None:
        pass


class _LeftTaken:
    """A future's lock that nobody will ever give back; notes on which thread somebody waits for it, and how long."""

    def __init__(self, waits: list[tuple[str, float]]) -> None:
        self._waits = waits

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if blocking:
            self._waits.append((threading.current_thread().name, timeout))
            threading.Event().wait(timeout)
        return False


def test_loop_waits_for_one_of_the_locks_that_were_left_taken_and_not_for_each(gearmand, echo_worker):
    with GearmanClient([gearmand.address], name="stuck", reconnect_backoff=(0.01, 0.05)) as client:
        wait_up(client)
        futures = [client.submit("nobody does this") for _ in range(100)]
        wait_accepted(*futures)
        waits: list[tuple[str, float]] = []
        for future in futures:
            future._condition = _LeftTaken(waits)
        # All of them end in one go, with their connection.
        gearmand.restart()
        wait_until(lambda: all(future.done() for future in futures), 20, message="all end, on another thread")
        assert client.submit("echo", b"x", max_retries=5).result(15) == b"x"
    in_the_loop = [seconds for thread, seconds in waits if thread == "gearman_pool-stuck"]
    # The first; and one more for each second that passed, if the machine is very busy.
    assert 1 <= len(in_the_loop) <= 10
    assert max(in_the_loop) < 1


def test_asyncio_of_later_pythons_gets_decoded_results(gearmand, c_worker):
    with GearmanClient([gearmand.address], data_encoder=JSONEncoder) as client:
        done = client.submit("echo", {"a": 1})
        assert done.result(10) == {"a": 1}
        fresh = client.submit("echo", [1])
        wait_until(fresh.done, message="the result")
        assert fresh._get_snapshot() == (True, False, [1], None)
        waiting = client.submit("nobody does this")
        assert waiting._get_snapshot() == (False, False, None, None)
        wait_until(lambda: waiting.job.handle, message="acceptance")
        assert waiting.cancel()
        assert waiting._get_snapshot() == (True, True, None, None)
    with GearmanClient([gearmand.address], data_encoder=_OneWay) as client:
        broken = client.submit("echo", b"not json")
        wait_until(broken.done, message="the result")
        assert isinstance(broken._get_snapshot()[3], DecodeError)


WAITS = {
    "result": lambda future: future.result(),
    "result with a time limit": lambda future: future.result(60),
    "exception": lambda future: future.exception(),
    "updates": lambda future: list(future.updates()),
    "updates with a time limit": lambda future: list(future.updates(60)),
}


@pytest.mark.parametrize("how", WAITS)
def test_caller_who_begins_to_wait_is_woken_at_whatever_step_of_that_its_job_ends(gearmand, raw_worker, how):
    with GearmanClient([gearmand.address]) as client:
        for step in itertools.count(1):
            future = client.submit("raw")
            job = raw_worker.next_job()
            wait_accepted(future)

            def end(future: JobFuture = future, job: RawJob = job) -> None:
                job.complete()
                wait_until(future.done)
                # The loop has let go of the future when it has done something else.
                client.ping()

            if wakes_at_step(step, partial(WAITS[how], future), end):
                break


def test_consumer_of_updates_is_woken_at_whatever_step_of_its_way_one_comes(gearmand, raw_worker):
    with GearmanClient([gearmand.address]) as client:
        for step in itertools.count(1):
            future = client.submit("raw")
            job = raw_worker.next_job()
            wait_accepted(future)

            def send(future: JobFuture = future, job: RawJob = job) -> None:
                job.send_data(b"d")
                wait_until(future.running)
                client.ping()

            waits = wakes_at_step(step, lambda future=future: next(future.updates()), send)
            job.complete()
            assert future.result(10) == b""
            if waits:
                break


def test_waits_that_time_out_leave_nothing_behind(client):
    future = client.submit("nobody does this")
    for _ in range(50):
        with pytest.raises(TimeoutError):
            next(future.updates(timeout=0.001))
    assert not future._watchers
    assert future.cancel()
