"""F9: a user's callback raises, blocks, submits more jobs, or waits on another future; nobody else notices."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from gearman_pool import GearmanClient, Listener
from gearman_pool.events import JobFinished
from gearman_pool.threads.callbacks import MAX_THREADS

from ..support.figures import assert_p99_is_unharmed
from ..support.listening import Keeping
from ..support.outcomes import wait_up
from ..support.waiting import wait_until


@pytest.fixture
def client(gearmand, c_worker):
    with GearmanClient([gearmand.address]) as client:
        wait_up(client)
        yield client


#: More than there are threads for callbacks.
BLOCKERS = 40
assert BLOCKERS > 2 * MAX_THREADS


@contextlib.contextmanager
def _blocked(client, gearmand):
    """Callbacks block on every thread there is for them, and others wait for a thread, until the block ends."""
    release, ran, blockers = threading.Event(), [], []

    def block(_: object) -> None:
        ran.append(True)
        release.wait(30)

    with gearmand.paused():  # a callback for a job that is done would run, and block, here
        for _ in range(BLOCKERS):
            blockers.append(client.submit("echo"))
            blockers[-1].add_done_callback(block)
    try:
        wait_until(lambda: len(ran) == MAX_THREADS, message="a callback blocks on every thread")
        wait_until(lambda: all(future.done() for future in blockers), message="the others wait for a thread")
        yield
        assert len(ran) == MAX_THREADS
    finally:
        release.set()
    wait_until(lambda: len(ran) == BLOCKERS, message="the callbacks that had to wait")


def test_callbacks_that_block_delay_no_other_job(client, gearmand):
    # Who waited for a callback would wait until this test lets it go.
    what = f"{BLOCKERS} callbacks that block"
    assert_p99_is_unharmed(client, what, lambda: _blocked(client, gearmand), longest=2.0)


def test_other_callbacks_run_beside_one_that_blocks(client, gearmand):
    release, ran = threading.Event(), []
    with gearmand.paused():
        client.submit("echo").add_done_callback(lambda _: release.wait(20))
    try:
        for number in range(50):
            client.submit("echo", b"%d" % number).add_done_callback(lambda future: ran.append(future.result()))
        wait_until(lambda: len(ran) == 50, message="the other callbacks")
    finally:
        release.set()


@pytest.mark.parametrize("kind", ["done", "status", "data", "warning"])
def test_callback_that_raises_is_logged_and_the_job_has_its_result(gearmand, raw_worker, caplog, kind):
    def fail(*_: object) -> None:
        raise ZeroDivisionError(f"in the {kind} callback")

    with GearmanClient([gearmand.address]) as client:
        callbacks = {} if kind == "done" else {f"on_{kind}": fail}
        future = client.submit("raw", **callbacks)
        if kind == "done":
            future.add_done_callback(fail)
        job = raw_worker.next_job()
        job.send_status(1, 2)
        job.send_data(b"d")
        job.send_warning(b"w")
        job.complete(b"result")
        assert future.result(15) == b"result"
        wait_until(lambda: f"in the {kind} callback" in caplog.text, message="the log")
        again = client.submit("raw")
        raw_worker.next_job().complete(b"again")
        assert again.result(15) == b"again"


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit])
def test_callback_that_raises_keeps_no_other_callback_of_its_job_from_its_turn(gearmand, raw_worker, kind):
    ran = []

    def fail(_: object) -> None:
        ran.append("fails")
        raise kind

    with GearmanClient([gearmand.address]) as client:
        future = client.submit("raw")
        future.add_done_callback(fail)
        future.add_done_callback(lambda _: ran.append("next"))
        raw_worker.next_job().complete(b"")
        wait_until(lambda: ran == ["fails", "next"], 5, message=lambda: f"the next callback: {ran}")


def test_callback_that_would_end_its_thread_is_logged_as_any_other(client, gearmand, caplog):
    """SystemExit is no Exception, and ends the thread that it is raised in."""
    ran = []

    def leave(_: object) -> None:
        raise SystemExit

    for number in range(40):
        with gearmand.paused():
            client.submit("echo").add_done_callback(leave)
        client.submit("echo", b"%d" % number).add_done_callback(lambda future: ran.append(future.result()))
    wait_until(lambda: len(ran) == 40, message="the other callbacks")
    wait_until(lambda: caplog.text.count("SystemExit") >= 40, message="the log")


def test_callbacks_submit_more_jobs_and_wait_for_them(client):
    """Each callback submits a job and waits for its result in the callback: a chain, and more of them than threads."""
    ends = []

    def go_on(future, left: int) -> None:
        if left:
            inner = client.submit("echo", b"%d" % left)
            assert inner.result(15) == b"%d" % left
            inner.add_done_callback(lambda done: go_on(done, left - 1))
        else:
            ends.append(future.result())

    for _ in range(40):
        client.submit("echo", b"start").add_done_callback(lambda done: go_on(done, 5))
    wait_until(lambda: len(ends) == 40, message="the chains")
    assert set(ends) == {b"1"}


def test_callback_that_waits_on_another_future_that_ends_in_time(client, gearmand, raw_worker):
    waited = []
    slow = client.submit("raw")
    with gearmand.paused():
        client.submit("echo").add_done_callback(lambda _: waited.append(slow.result(15)))
    assert client.submit("echo", b"x").result(15) == b"x"
    raw_worker.next_job().complete(b"slow")
    wait_until(lambda: waited == [b"slow"], message="the waiting callback")


def test_callback_may_cancel_jobs_and_ask_their_status(client, gearmand):
    found = []
    queued = client.submit("nobody")

    def look(_: object) -> None:
        found.append(client.status(queued).known)
        found.append(queued.cancel())

    wait_until(lambda: queued.job.handle)
    client.submit("echo").add_done_callback(look)
    wait_until(lambda: len(found) == 2, message="the callback")
    assert found == [True, True]
    assert queued.cancelled()


def test_callback_may_close_the_client(gearmand, c_worker):
    client = GearmanClient([gearmand.address])
    closed = threading.Event()

    def close(_: object) -> None:
        client.close(1)
        closed.set()

    client.submit("echo").add_done_callback(close)
    assert closed.wait(15)
    wait_until(lambda: not any(thread.name.startswith("gearman_pool") for thread in threading.enumerate()))


def test_listener_that_raises_keeps_no_other_from_hearing(gearmand, c_worker):
    class Failing(Listener):
        def handle(self, event: object) -> None:
            raise ZeroDivisionError

    keeping = Keeping()
    with GearmanClient([gearmand.address], listeners=[Failing(), keeping]) as client:
        assert client.submit("echo", b"x").result(15) == b"x"
        wait_until(lambda: keeping.of(JobFinished), 5, message=lambda: f"the event: {keeping.events}")


def test_listener_that_blocks_or_raises_delays_no_job(gearmand, c_worker, caplog):
    release = threading.Event()

    class Blocking(Listener):
        def handle(self, event: object) -> None:
            release.wait(20)
            raise ZeroDivisionError("in the listener")

    with GearmanClient([gearmand.address], listeners=[Blocking()]) as client:
        started = time.monotonic()
        assert [client.submit("echo", b"x").result(15) for _ in range(200)] == [b"x"] * 200
        assert time.monotonic() - started < 15
        release.set()
    wait_until(lambda: "in the listener" in caplog.text, message="the log")
