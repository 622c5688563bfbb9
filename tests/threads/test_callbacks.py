"""The threads for callbacks: every call is made, in order where order is promised, and none holds up another."""

from __future__ import annotations

import contextlib
import gc
import itertools
import queue
import threading
import weakref
from functools import partial

import pytest

from gearman_pool.threads import callbacks
from gearman_pool.threads.callbacks import CallbackThreads, Mailbox

from ..support.steps import Steps
from ..support.waiting import wait_until

NAME = "gearman_pool-test"


def running():
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture
def threads():
    threads = CallbackThreads(NAME, lambda delay, call: None)
    yield threads
    threads.stop()
    threads.join(10)


@pytest.fixture
def release():
    """What calls that block wait for."""
    release = threading.Event()
    yield release
    release.set()


@pytest.fixture
def block(release):
    """A function that gives a call that blocks, and that adds ``what`` to the list before."""

    def make(ran: list[object], what: object):
        def call() -> None:
            ran.append(what)
            release.wait(30)

        return call

    return make


def test_calls_are_made_on_daemon_threads_of_that_name(threads):
    made = []
    threads.submit(lambda: made.append(threading.current_thread()))
    wait_until(lambda: made, message="the call")
    assert (made[0].name, made[0].daemon) == (NAME, True)


def test_idle_thread_takes_the_next_call_and_keeps_nothing_of_the_last_one(threads):
    class Kept:
        def call(self) -> None:
            made.append(threading.get_ident())

    made, kept = [], Kept()
    seen = weakref.ref(kept)
    for count in range(1, 4):
        threads.submit(kept.call)
        wait_until(lambda count=count: len(made) == count and threads._idle, message="the thread is idle")
    assert len(set(made)) == 1
    del kept
    gc.collect()
    assert seen() is None


def test_further_threads_start_while_others_are_blocked(threads, release, block):
    ran = []
    for number in range(5):
        threads.submit(block(ran, number))
    wait_until(lambda: sorted(ran) == list(range(5)), message="the calls that block")
    threads.submit(partial(ran.append, "beside them"))
    wait_until(lambda: "beside them" in ran, message="a call beside them")


def test_calls_beyond_the_limit_of_threads_wait_in_order(monkeypatch, threads, release, block):
    monkeypatch.setattr(callbacks, "MAX_THREADS", 2)
    ran = []
    for number in (1, 2):
        threads.submit(block(ran, number))
    wait_until(lambda: len(ran) == 2, message="both threads are blocked")
    behind = Mailbox(threads)
    for number in (3, 4, 5):
        behind.put(partial(ran.append, number))
    assert len(running()) == 2
    assert sorted(ran) == [1, 2]
    release.set()
    wait_until(lambda: ran[2:] == [3, 4, 5], message=lambda: f"those that had to wait: {ran}")


def test_threads_without_work_end_and_the_next_call_starts_one(monkeypatch, threads, block, release):
    monkeypatch.setattr(callbacks, "IDLE_TIME", 0.01)
    ran = []
    for number in range(3):
        threads.submit(block(ran, number))
    wait_until(lambda: len(ran) == 3, message="three threads")
    release.set()
    wait_until(lambda: not running(), message="the threads end")
    threads.submit(partial(ran.append, "next"))
    wait_until(lambda: ran[-1] == "next", message="the next call")


def test_calls_of_a_mailbox_are_made_one_after_the_other_in_order(threads):
    mailbox, made, at_once, most = Mailbox(threads), [], [], []

    def call(number: int) -> None:
        at_once.append(number)
        most.append(len(at_once))
        made.append(number)
        at_once.remove(number)

    for number in range(1000):
        mailbox.put(partial(call, number))
    wait_until(lambda: len(made) == 1000, message="the calls")
    assert made == list(range(1000))
    assert max(most) == 1


def test_mailbox_that_was_empty_takes_calls_again(threads):
    mailbox, made = Mailbox(threads), []
    for number in range(20):
        mailbox.put(partial(made.append, number))
        wait_until(lambda number=number: made == list(range(number + 1)), message="the call")


def test_call_of_a_mailbox_may_put_another_one_there(threads):
    mailbox, made = Mailbox(threads), []

    def call() -> None:
        mailbox.put(partial(made.append, "inner"))
        made.append("outer")

    mailbox.put(call)
    wait_until(lambda: made == ["outer", "inner"], message=lambda: f"both calls: {made}")


def test_mailbox_whose_call_blocks_holds_up_its_own_calls_and_no_other_mailbox(threads, release, block):
    blocked, other, ran = Mailbox(threads), Mailbox(threads), []
    blocked.put(block(ran, "blocks"))
    blocked.put(partial(ran.append, "behind it"))
    wait_until(lambda: ran == ["blocks"], message="the call that blocks")
    other.put(partial(ran.append, "beside it"))
    wait_until(lambda: ran == ["blocks", "beside it"], message="the other mailbox")
    release.set()
    wait_until(lambda: ran == ["blocks", "beside it", "behind it"], message="the call behind it")


@pytest.mark.parametrize("through_mailbox", [False, True])
def test_threads_for_callbacks_outlive_whatever_a_call_raises(caplog, through_mailbox):
    threads = CallbackThreads("gearman_pool-test", lambda delay, call: None)
    mailbox = Mailbox(threads)
    put = mailbox.put if through_mailbox else threads.submit
    ran = []

    def leave() -> None:
        raise SystemExit("from a call")

    for number in range(50):
        put(leave)
        put(partial(ran.append, number))
    wait_until(lambda: sorted(ran) == list(range(50)), message="the other calls")
    wait_until(lambda: caplog.text.count("SystemExit: from a call") == 50, message="the log")
    threads.stop()
    threads.join(10)


def test_threads_that_are_stopped_do_first_what_they_were_given(monkeypatch, threads, release, block):
    monkeypatch.setattr(callbacks, "MAX_THREADS", 1)
    ran = []
    threads.submit(block(ran, "blocks"))
    for number in range(3):
        threads.submit(partial(ran.append, number))
    wait_until(lambda: ran, message="the call that blocks")
    threads.stop()
    release.set()
    threads.join(10)
    assert ran == ["blocks", 0, 1, 2]
    assert not running()


def test_idle_threads_that_are_stopped_end_at_once(monkeypatch, threads):
    monkeypatch.setattr(callbacks, "IDLE_TIME", 600.0)
    threads.submit(lambda: None)
    wait_until(lambda: threads._idle, message="the thread is idle")
    threads.stop()
    threads.join(10)
    assert not running()


def test_call_that_comes_after_the_end_is_made_and_its_thread_ends(monkeypatch, threads):
    monkeypatch.setattr(callbacks, "IDLE_TIME", 600.0)
    made = []
    threads.stop()
    threads.submit(partial(made.append, "late"))
    wait_until(lambda: made == ["late"] and not running(), message="the late call, and the end of its thread")


def test_join_waits_no_longer_than_it_is_told_and_not_for_its_own_thread(threads, release, block):
    ran, joined = [], threading.Event()
    threads.submit(block(ran, "blocks"))
    wait_until(lambda: ran, message="the call that blocks")
    threads.stop()
    threads.join(0.01)
    assert len(running()) == 1
    release.set()
    threads.join(10)

    def join() -> None:
        threads.join(600)
        joined.set()

    threads.submit(join)
    assert joined.wait(10)


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
