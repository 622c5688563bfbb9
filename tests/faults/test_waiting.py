"""F9 and F17 where the standard library waits: `wait`, `as_completed` and `await` depend on nobody's callbacks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from gearman_pool import GearmanClient, JSONEncoder
from gearman_pool.errors import ClientSaturated, DecodeError, ServerUnavailable
from gearman_pool.future import JobFuture
from gearman_pool.threads import callbacks
from gearman_pool.threads.callbacks import MAX_THREADS, CallbackThreads
from gearman_pool.threads.waiting import Promise

from ..support.outcomes import wait_accepted, wait_up
from ..support.steps import Steps
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


def _wakes_at_step(step: int, wait: Callable[[], object], happen: Callable[[], object]) -> bool:
    """Have a caller wait for what happens at this step of its way; return whether it waits before it comes so far.

    A machine that is too busy for a step in a second is no reason to leave out the next ones, so the first few do not
    count as that.
    """
    steps, came = Steps(step, happen), threading.Event()
    caller = threading.Thread(target=lambda: (steps.run(wait), came.set()), daemon=True)
    caller.start()
    reached = steps.reached.wait(1)
    if not reached:
        happen()
    assert came.wait(5), f"what happens at step {step} of the caller's way does not wake it"
    caller.join(5)
    return step > 5 and not reached


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

            if _wakes_at_step(step, partial(WAITS[how], future), end):
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

            waits = _wakes_at_step(step, lambda future=future: next(future.updates()), send)
            job.complete()
            assert future.result(10) == b""
            if waits:
                break


def test_first_answer_is_the_one_that_counts():
    answered, failed = Promise(), Promise()
    answered.set("first")
    answered.fail(ServerUnavailable("second"))
    assert answered.wait(0) == "first"
    failed.fail(ServerUnavailable("first"))
    failed.set("second")
    with pytest.raises(ServerUnavailable, match="first"):
        failed.wait(0)


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("outcome", ["value", "error"])
def test_caller_who_waits_for_an_answer_is_woken_at_whatever_step_of_its_way_it_comes(timeout, outcome):
    for step in itertools.count(1):
        promise = Promise()

        def wait(promise: Promise = promise) -> None:
            if outcome == "value":
                assert promise.wait(timeout) == "answer"
            else:
                with pytest.raises(ServerUnavailable):
                    promise.wait(timeout)

        end = partial(promise.set, "answer") if outcome == "value" else partial(promise.fail, ServerUnavailable())
        if _wakes_at_step(step, wait, end):
            break


def _made_when_it_comes_at_step(step: int, calls: int, stops: bool) -> tuple[list[object], bool]:
    """Let a thread idle and end, and these calls come at this step of its life; return what was made, and whether it
    came so far.
    """
    threads = CallbackThreads("gearman_pool-test", lambda delay, call: None)
    made: queue.SimpleQueue[object] = queue.SimpleQueue()

    def come() -> None:
        steps.reached.wait(1)
        # A thread that is started from here on is another one.
        threading.settrace(before)
        if stops:
            threads.stop()
        for number in range(calls):
            threads.submit(partial(made.put, number))

    # What comes has a thread of its own: at some steps the idle thread holds the lock, and the other waits for it.
    coming = threading.Thread(target=come)
    steps = Steps(step, lambda: coming.join(0.1))
    before = threading.gettrace()
    coming.start()
    threading.settrace(steps.trace)
    threads.submit(partial(made.put, "first"))
    coming.join(10)
    threading.settrace(before)
    found = []
    with contextlib.suppress(queue.Empty):
        found.extend(made.get(timeout=5) for _ in range(1 + calls))
    threads.stop()
    threads.join(5)
    return found, steps.reached.is_set()


COMES = {"a call": (1, False), "two calls": (2, False), "the end and a call": (1, True)}


@pytest.mark.parametrize("what", COMES)
def test_call_that_comes_at_whatever_step_of_an_idle_threads_end_is_made(monkeypatch, what):
    monkeypatch.setattr(callbacks, "IDLE_TIME", 0.01)
    monkeypatch.setattr(callbacks, "MAX_THREADS", 1)
    calls, stops = COMES[what]
    for step in itertools.count(1):
        found, reached = _made_when_it_comes_at_step(step, calls, stops)
        assert found == ["first", *range(calls)], f"what comes at step {step} is not made"
        if step > 20 and not reached:
            break


def test_waits_that_time_out_leave_nothing_behind(client):
    future = client.submit("nobody does this")
    for _ in range(50):
        with pytest.raises(TimeoutError):
            next(future.updates(timeout=0.001))
    assert not future._watchers
    assert future.cancel()
