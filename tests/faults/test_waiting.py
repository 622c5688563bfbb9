"""F9 and F17 where the standard library waits: `wait`, `as_completed` and `await` depend on nobody's callbacks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections import Counter

import pytest

from gearman_pool import GearmanClient, JSONEncoder, callbacks
from gearman_pool.callbacks import MAX_THREADS, CallbackThreads
from gearman_pool.errors import ClientSaturated, DecodeError

from ..support.waiting import wait_until
from .support import wait_up


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
        client._dispatcher.cancel(future, _Nobody())  # type: ignore[arg-type]


class _Nobody:
    def set(self, value: object) -> None:
        pass


def test_call_that_no_thread_could_be_started_for_is_made_when_one_can(monkeypatch):
    made, wanted = [], []
    threads = CallbackThreads("gearman_pool-test", lambda delay, call: wanted.append(call))
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    threads.submit(lambda: made.append(1))
    threads.submit(lambda: made.append(2))
    assert not made
    assert wanted
    monkeypatch.setattr(threading.Thread, "start", start)
    wanted[0]()
    wait_until(lambda: made == [1, 2], message="both calls")
    threads.stop()
    threads.join(5)


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


def test_call_that_comes_while_its_last_thread_times_out_is_made(monkeypatch):
    monkeypatch.setattr(callbacks, "IDLE_TIME", 0.02)
    monkeypatch.setattr(callbacks, "MAX_THREADS", 1)
    made = []
    threads = CallbackThreads("gearman_pool-test", lambda delay, call: None)
    for number in range(100):
        threads.submit(lambda number=number: made.append(number))
        threading.Event().wait(0.018 + number % 5 * 0.001)
    wait_until(lambda: len(made) == 100, 5, message=lambda: f"all calls: {len(made)}")
    threads.stop()
    threads.join(5)


def test_waits_that_time_out_leave_nothing_behind(client):
    future = client.submit("nobody does this")
    for _ in range(50):
        with pytest.raises(TimeoutError):
            next(future.updates(timeout=0.001))
    assert not future._watchers
    assert future.cancel()
