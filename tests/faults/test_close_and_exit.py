"""F8: `close`, ``with``, the interpreter's exit, and clients that nobody refers to any more."""

from __future__ import annotations

import gc
import threading
import time
import warnings
import weakref

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ClientClosed

from ..support.figures import figure
from ..support.outcomes import wait_accepted, wait_up
from ..support.processes import run_program
from ..support.waiting import wait_until


def threads_of_the_library():
    return {thread for thread in threading.enumerate() if thread.name.startswith("gearman_pool")}


# ---- close ---------------------------------------------------------------------------------------------------------


def test_close_sends_what_is_queued_and_waits_for_what_is_in_flight(gearmand, c_worker):
    client = GearmanClient([gearmand.address])
    futures = [client.submit("echo", b"%d" % number) for number in range(3000)]
    background = [client.submit_background("nobody", b"%d" % number) for number in range(3000)]
    client.close(20)
    assert [future.result(0) for future in futures] == [b"%d" % number for number in range(3000)]
    assert all(future.done() for future in background)
    assert gearmand.jobs("nobody") == 3000
    wait_until(lambda: not threads_of_the_library())


def test_close_fails_what_is_left_at_its_timeout(gearmand):
    client = GearmanClient([gearmand.address])
    futures = [client.submit("nobody") for _ in range(1000)]
    wait_accepted(*futures)
    started = time.monotonic()
    client.close(0.3)
    took = time.monotonic() - started
    figure(f"close(0.3) with 1,000 jobs in flight took {took:.3f} s")
    # Nobody does these jobs: a close that waited for them would take as long as the test may.
    assert 0.25 < took < 10
    for future in futures:
        assert isinstance(future.exception(0), ClientClosed)
        assert future.exception(0).maybe_sent
    with pytest.raises(ClientClosed):
        client.submit("nobody")


@pytest.mark.parametrize("timeout", [0, 0.5])
def test_close_is_bounded_when_the_server_is_frozen(gearmand, timeout):
    client = GearmanClient([gearmand.address])
    wait_up(client)
    gearmand.pause()
    payload = bytes(100_000)
    futures = [client.submit("nobody", payload) for _ in range(300)]
    started = time.monotonic()
    client.close(timeout)
    took = time.monotonic() - started
    # What is queued is not sent before the server goes on, which is after this.
    assert took < timeout + 8
    assert all(isinstance(future.exception(0), ClientClosed) for future in futures)
    wait_until(lambda: not threads_of_the_library())
    gearmand.resume()


@pytest.mark.slow
def test_close_in_several_threads_while_others_submit(gearmand, c_worker):
    for _ in range(10):
        client = GearmanClient([gearmand.address])
        client.ping()
        futures: list = []

        def submit(client=client, futures=futures):
            try:
                while True:
                    futures.append(client.submit("echo", b"x"))
            except ClientClosed:
                pass

        threads = [threading.Thread(target=submit) for _ in range(4)]
        threads += [threading.Thread(target=client.close, args=(5,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        for future in futures:
            error = future.exception(5)
            assert error is None or isinstance(error, ClientClosed)


def test_close_from_a_callback_does_not_wait_for_itself(gearmand, c_worker):
    client = GearmanClient([gearmand.address])
    closed = threading.Event()

    def close(_):
        client.close(5)
        closed.set()

    client.submit("echo", b"x").add_done_callback(close)
    assert closed.wait(10)
    wait_until(lambda: not threads_of_the_library())


def test_close_before_first_use_and_twice_does_nothing(gearmand):
    client = GearmanClient([gearmand.address])
    started = time.monotonic()
    client.close()
    client.close()
    assert time.monotonic() - started < 5
    wait_until(lambda: not threads_of_the_library())


def test_leaving_the_with_block_by_an_exception_closes(gearmand, c_worker):
    futures = []

    def leave() -> None:
        with GearmanClient([gearmand.address]) as client:
            futures.append(client.submit("echo", b"x"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    assert futures[0].result(0) == b"x"
    wait_until(lambda: not threads_of_the_library())


# ---- clients that are forgotten ------------------------------------------------------------------------------------


def test_client_that_nobody_refers_to_warns_and_stops_its_thread(gearmand):
    client = GearmanClient([gearmand.address])
    client.submit_background("nobody").result(10)
    reference = weakref.ref(client)
    with pytest.warns(ResourceWarning, match="not closed"):
        del client
    assert reference() is None
    wait_until(lambda: not threads_of_the_library())


def test_client_that_was_never_used_goes_without_a_word(gearmand):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client = GearmanClient([gearmand.address])
        reference = weakref.ref(client)
        del client
        gc.collect()
    assert reference() is None


def test_future_keeps_its_client_until_it_is_done(gearmand, c_worker):
    # It goes on whichever thread lets go of it last, so the warning may come from any.
    with pytest.warns(ResourceWarning, match="not closed"):  # noqa: PT031
        future = GearmanClient([gearmand.address]).submit("echo", b"x")
        assert future.result(10) == b"x"
        wait_until(lambda: gc.collect() is not None and not threads_of_the_library())


# ---- the interpreter's exit ----------------------------------------------------------------------------------------

_HEAD = """
import sys, threading, time, os
from gearman_pool import GearmanClient
client = GearmanClient([sys.argv[1]])
"""

#: Says when the program is about to end, on the clock that all processes share.
_LEAVING = "print(time.monotonic(), flush=True)"

#: How long the end may take when nothing holds it up, in seconds: less than the second for which the acceptance of jobs
#: is waited for.
_QUICK = 0.8

#: What is done before the exit, the exit status, and whether the background job of it must have reached the server.
_EXITS = {
    "end of the program": ("client.submit_background('left')", 0),
    "1,000 jobs in flight": ("[client.submit('nobody') for _ in range(1000)]; client.submit_background('left')", 0),
    "2,000 queued at once": ("[client.submit_background('left') for _ in range(2000)]", 0),
    "sys.exit": ("client.submit_background('left'); sys.exit(3)", 3),
    "an exception": ("client.submit_background('left'); raise KeyError('x')", 1),
    "a daemon thread that waits": (
        "client.submit_background('left'); threading.Thread(target=client.submit('x').exception, daemon=True).start()",
        0,
    ),
    "sys.exit in a thread": (
        "t = threading.Thread(target=lambda: (client.submit_background('left'), sys.exit(4))); t.start(); t.join()",
        0,
    ),
    "an exit hook that uses the client": (
        # Used before: CPython 3.12 starts no threads any more when exit hooks run.
        "import atexit; client.ping(); atexit.register(lambda: client.submit_background('left').result(5))",
        0,
    ),
    "a callback that never returns": (
        # The callback of a job that is done already would run at once, in the main thread.
        (
            "client.submit_background('left'); begun = threading.Event(); future = client.submit('x', timeout=0.5); "
            "future.add_done_callback(lambda _: (begun.set(), time.sleep(100))); begun.wait(20)"
        ),
        0,
    ),
}


def _time_to_leave(code: str, server: str, status: int = 0) -> tuple[float, str]:
    """Run a program that prints when it leaves; return how long it then took to end, and what it said of errors."""
    ended = run_program(["-c", f"{_HEAD}\n{code}\n", server], 25)
    finished = time.monotonic()
    assert ended.code == status, ended.errors
    return finished - float(ended.output), ended.errors


@pytest.mark.parametrize("name", _EXITS)
def test_interpreters_exit_is_quick_and_sends_what_is_queued(gearmand, name):
    code, status = _EXITS[name]
    expected = 2000 if "2,000" in name else 1
    times = []
    # The best of eight: a busy machine makes the end of any program slow now and then.
    while not times or (min(times) > _QUICK and len(times) < 8):
        took, errors = _time_to_leave(f"{_LEAVING}; {code}", gearmand.address, status)
        times.append(took)
        wait_until(lambda: gearmand.jobs("left") == expected * len(times))
        assert "Fatal" not in errors
        if not status:
            assert errors == ""
    figure(f"{name}: the program's end, with its last jobs, took {min(times):.2f} s")
    assert min(times) <= _QUICK
    assert max(times) < 8


def test_exit_of_an_idle_client_takes_no_time(gearmand):
    """Beyond what an interpreter takes that has the package and no client."""
    used, unused = [], []
    while not used or (min(used) - min(unused) > 0.2 and len(used) < 6):
        unused.append(_time_to_leave(_LEAVING, gearmand.address)[0])
        used.append(_time_to_leave(f"client.ping(); {_LEAVING}", gearmand.address)[0])
    figure(f"exit of an idle client: {min(used) * 1e3:.0f} ms, without a client {min(unused) * 1e3:.0f} ms")
    assert min(used) - min(unused) <= 0.2


_FIRST_USE_AT_EXIT = """
import atexit
from gearman_pool.errors import ClientClosed
def last():
    try:
        client.submit_background("left").result(5)
    except ClientClosed as error:
        print(error)
    else:
        print("sent")
atexit.register(last)
"""


def test_first_use_in_an_exit_hook_works_or_says_that_the_interpreter_is_shutting_down(gearmand):
    """CPython 3.12 starts no threads any more when exit hooks run; the others do."""
    ended = run_program(["-c", f"{_HEAD}\n{_FIRST_USE_AT_EXIT}", gearmand.address], 25)
    assert (ended.code, ended.errors) == (0, "")
    if ended.output == "sent\n":
        assert gearmand.jobs("left") == 1
    else:
        assert ended.output == "the interpreter is shutting down; no thread can be started\n"


def test_exit_with_a_frozen_server_is_bounded(gearmand):
    # What is queued is sent first, with the server frozen afterwards, so that the greeting is not what it waits for.
    code = f"client.ping(); os.kill({gearmand.pid}, 19); [client.submit('x', bytes(100_000)) for _ in range(500)]"
    took = []
    while not took or (min(took) > 2.5 and len(took) < 3):
        took.append(_time_to_leave(f"{code}; {_LEAVING}", gearmand.address)[0])
        gearmand.resume()
    figure(f"exit with a frozen server and 500 jobs queued took {min(took):.2f} s")
    # A second for the acceptance of the jobs, a second for the thread.
    assert min(took) <= 2.5
    assert max(took) < 8


def test_exit_with_no_server_is_bounded():
    took = []
    while not took or (min(took) > 2.5 and len(took) < 3):
        code = f"[client.submit_background('x') for _ in range(10)]; {_LEAVING}"
        took.append(_time_to_leave(code, "127.0.0.1:1")[0])
    assert min(took) <= 2.5
    assert max(took) < 8


def test_child_that_leaves_by_os_exit_takes_nothing_of_the_parents(gearmand, c_worker):
    code = (
        "future = client.submit('echo', b'x')\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print(future.result(10), client.submit('echo', b'y').result(10), client.stats().connections_opened)\n"
        "client.close()\n"
    )
    ended = run_program(["-W", "ignore", "-c", f"{_HEAD}\n{code}", gearmand.address], 25)
    assert (ended.code, ended.output) == (0, "b'x' b'y' 1\n"), ended.errors
