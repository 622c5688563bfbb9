"""The futures layer, on real servers; what any server must give it stands in ``conformance``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from datetime import datetime, timedelta, timezone

import pytest

from gearman_pool import PRIORITY_HIGH, PRIORITY_LOW, GearmanClient, GearmanError, JobReference, JSONEncoder
from gearman_pool.errors import (
    ClientClosed,
    ConnectionLost,
    EncodeError,
    ForkedProcess,
    InvalidClientState,
    JobCancelled,
    JobTimeout,
    ServerUnavailable,
)
from gearman_pool.events import ConnectionClosed, ConnectionOpened, JobAccepted, JobFinished
from gearman_pool.job import GearmanJob, GearmanJobRequest

from .support.listening import Keeping
from .support.waiting import wait_until


@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        yield client


@pytest.fixture
def hectic():
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


def _accepted(*futures):
    wait_until(lambda: all(future.job.handle for future in futures), message="acceptance")


def test_callbacks_run_in_order_on_another_thread_before_done_callbacks(client, raw_worker):
    seen = []
    threads = set()

    def note(*values):
        threads.add(threading.current_thread().name)
        seen.append(values)

    future = client.submit("raw", on_status=note, on_data=note, on_warning=note)
    future.add_done_callback(lambda done: note(done.result()))
    job = raw_worker.next_job()
    job.send_status(1, 4)
    job.send_data(b"d")
    job.send_warning(b"w")
    job.complete(b"r")
    wait_until(lambda: len(seen) == 4, message="callbacks")
    assert seen == [(1, 4), (b"d",), (b"w",), (b"r",)]
    assert all("callback" in name for name in threads)
    assert not future.request.data_updates


def test_priorities_decide_the_order_in_which_a_worker_gets_jobs(gearmand, client, raw_workers):
    futures = [
        client.submit_background("raw", name, priority=priority)
        for name, priority in [(b"low", PRIORITY_LOW), (b"normal", None), (b"high", PRIORITY_HIGH)]
    ]
    for future in futures:
        future.result(5)
    worker = raw_workers(gearmand, ["raw"])
    order = []
    for _ in range(3):
        job = worker.next_job()
        order.append(job.data)
        job.complete(b"")
    assert order == [b"high", b"normal", b"low"]


def test_background_job_gives_a_reference_that_another_process_can_ask_for(gearmand, client):
    reference = client.submit_background("nobody", b"x").result(5)
    assert JobReference.parse(str(reference)) == reference
    assert client.status(reference).known
    program = (
        "import sys, gearman_pool\n"
        "with gearman_pool.GearmanClient([sys.argv[1]]) as client: print(client.status(sys.argv[2]).known)"
    )
    command = [sys.executable, "-c", program, gearmand.address, str(reference)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout == "True\n"
    assert not client.status(JobReference(reference.server, reference.handle, "never-was")).known


def test_status_follows_the_worker(client, raw_worker):
    future = client.submit("raw", unique="mine")
    job = raw_worker.next_job()
    job.send_status(1, 2)
    wait_until(lambda: future.progress == 0.5, message="the status")
    status = client.status(future)
    assert (status.known, status.running, status.fraction) == (True, True, 0.5)
    assert client.status(unique="mine").waiting_clients == 1
    job.complete(b"")
    future.result(5)
    assert not client.status(unique="mine").known


def test_delayed_job_is_known_and_not_run_before_its_time(client, raw_worker):
    at = datetime.now(timezone.utc) + timedelta(hours=1)
    reference = client.submit_background("raw", at=at).result(5)
    assert client.status(reference).known
    client.submit_background("raw", b"now", at=time.time() - 5).result(5)
    job = raw_worker.next_job()
    assert job.data == b"now"
    job.complete(b"")


@pytest.mark.parametrize(
    "arguments",
    [
        {"task": ""},
        {"task": "a\0b"},
        {"task": 7},
        {"task": "x" * 600},
        {"unique": "u" * 64},
        {"unique": "a\0b"},
        {"unique": ""},
        {"priority": "URGENT"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"max_retries": -1},
        {"data": {"a": 1}},
        {"data": 7},
    ],
    ids=lambda arguments: str(arguments).partition(" at 0x")[0][:40],
)
def test_bad_input_is_refused_before_anything_is_written(gearmand, client, arguments):
    client.ping()
    before = gearmand.status()
    with pytest.raises((ValueError, TypeError)):
        client.submit(**{"task": "x", **arguments})
    wait_until(lambda: client.stats().in_flight == 0, message="nothing is in flight")
    assert gearmand.status() == before


@pytest.mark.parametrize("at", [datetime(2030, 1, 1), float("inf"), 2**63, "tomorrow", -1])  # noqa: DTZ001 - naive on purpose
def test_unusable_moments_are_refused(client, at):
    with pytest.raises((ValueError, TypeError)):
        client.submit_background("x", at=at)


def test_result_timeout_leaves_the_job_running(client, raw_worker):
    future = client.submit("raw")
    with pytest.raises(concurrent.futures.TimeoutError, match="the job goes on"):
        future.result(0.05)
    raw_worker.next_job().complete(b"r")
    assert future.result(5) == b"r"


def test_cancel_withdraws_a_queued_job_and_not_a_running_one(gearmand, client, raw_worker):
    queued = client.submit("nobody")
    _accepted(queued)
    assert queued.cancel()
    assert queued.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        queued.result()
    with pytest.raises(JobCancelled) as caught:
        queued.result()
    assert caught.value.maybe_sent  # the server was told, and a worker may have been faster
    running = client.submit("raw")
    job = raw_worker.next_job()
    assert not running.cancel()
    job.complete(b"r")
    assert running.result(5) == b"r"
    assert not running.cancel()


def test_job_that_waits_for_a_server_is_withdrawn_without_one():
    with GearmanClient(["127.0.0.1:1"]) as client:
        future = client.submit("x")
        assert future.cancel()
        wait_until(lambda: client.stats().in_flight == 0, message="nothing is in flight")
        with pytest.raises(JobCancelled) as caught:
            future.result()
        assert not caught.value.maybe_sent


def test_wait_and_as_completed_and_await_work(client, c_worker):
    futures = [client.submit("echo", str(number).encode()) for number in range(50)]
    assert {future.result() for future in concurrent.futures.as_completed(futures, 20)} == {
        b"%d" % n for n in range(50)
    }
    more = [client.submit("echo", b"x"), client.submit("nobody")]
    done, pending = concurrent.futures.wait(more, 10, concurrent.futures.FIRST_COMPLETED)
    assert (done, pending) == ({more[0]}, {more[1]})
    assert more[1].cancel()

    async def main() -> list[bytes]:
        wrapped = asyncio.wrap_future(client.submit("echo", b"w"))
        return [await client.submit("echo", b"a"), await wrapped]

    assert asyncio.run(main()) == [b"a", b"w"]


def test_map_gives_results_in_order_with_a_bounded_window_even_of_an_endless_iterable(client, c_worker):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield str(number).encode()

    results = client.map("echo", endless(), window=10)
    assert [next(results) for _ in range(100)] == [str(number).encode() for number in range(100)]
    assert len(taken) <= 111
    results.close()
    wait_until(lambda: client.stats().in_flight == 0, message="the rest")
    with pytest.raises(concurrent.futures.TimeoutError):
        list(client.map("nobody", [b"x"], timeout=0.05))
    client.close(0)


def test_encoders_work_both_ways(gearmand, echo_worker):
    with GearmanClient([gearmand.address], data_encoder=JSONEncoder) as client:
        value = {"a": [1, 2.5, None, "ä"]}
        assert client.submit("echo", value).result(5) == value
        with pytest.raises(EncodeError, match="JSONEncoder cannot encode a payload of type set"):
            client.submit("echo", {1, 2})


def test_dead_server_is_named_when_none_is_left():
    with GearmanClient(["127.0.0.1:1", "127.0.0.1:2"], submit_timeout=0.3) as client:
        started = time.monotonic()
        with pytest.raises(ServerUnavailable) as caught:
            client.submit("x").result(5)
        # submit_timeout, and what a busy machine takes.
        assert 0.2 < time.monotonic() - started < 5
    assert set(caught.value.servers) == {"127.0.0.1:1", "127.0.0.1:2"}
    assert "127.0.0.1:2" in str(caught.value)
    assert caught.value.task == "x"


@pytest.mark.parametrize("max_retries", [0, 2])
def test_killed_server_under_load_accounts_for_every_job(gearmands, c_workers, max_retries):
    servers = [gearmands(), gearmands(), gearmands()]
    for server in servers:
        c_workers(server)
    with GearmanClient([server.address for server in servers], max_retries=max_retries) as client:
        wait_until(lambda: None not in client.ping().values(), message="all servers")
        futures = []
        for number in range(5000):
            futures.append((str(number).encode(), client.submit("echo", str(number).encode())))
            if number == 3000:
                servers[0].kill()
        lost = 0
        for payload, future in futures:
            error = future.exception(30)
            if error is None:
                assert future.result() == payload
                continue
            assert isinstance(error, ConnectionLost)
            assert (error.maybe_sent, error.server) == (True, servers[0].address)
            lost += 1
        assert max_retries == 0 or lost == 0
        assert client.stats().jobs_completed + lost == 5000
        assert client.stats().jobs_lost == lost


def test_server_that_comes_back_is_used_again(gearmand):
    with GearmanClient([gearmand.address], reconnect_backoff=(0.05, 0.5)) as client:
        for number in range(1, 6):
            assert client.submit_background("x").result(20).server == gearmand.address
            gearmand.restart()
            wait_until(lambda number=number: client.stats().connections_lost == number, message="the loss is noticed")
        assert client.submit_background("x").result(20).server == gearmand.address


@pytest.mark.usefixtures("hectic")
def test_jobs_of_a_thread_keep_their_order_while_the_first_connection_is_made(gearmand):
    for _ in range(20):
        with GearmanClient([gearmand.address]) as client:
            futures = [client.submit_background("x") for _ in range(200)]
            numbers = [int(future.result(20).handle.rpartition(":")[2]) for future in futures]
        assert numbers == sorted(numbers)


def test_frozen_server_is_found_and_avoided(gearmands):
    frozen, live = gearmands(), gearmands()
    # A busy machine does not let a server that lives wait for a whole second.
    with GearmanClient([frozen.address, live.address], health_check_interval=0.3, health_check_timeout=1.0) as client:
        wait_until(lambda: None not in client.ping().values(), message="both")
        frozen.pause()
        started = time.monotonic()
        wait_until(lambda: client.servers()[0].state != "UP", message="detection")
        assert time.monotonic() - started < 8
        assert {client.submit_background("x").result(10).server for _ in range(20)} == {live.address}
        frozen.resume()
        wait_until(lambda: client.servers()[0].state == "UP", message="the return", timeout=15)


def test_forked_child_uses_the_client_at_once_and_leaves_the_parents_jobs_alone(client, raw_worker):
    parents = client.submit("raw")
    job = raw_worker.next_job()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                inherited = isinstance(parents.exception(0), ForkedProcess)
                used = client.submit_background("x").result(10).handle
                client.close()
                status = 0 if inherited and used else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    job.complete(b"mine")
    assert parents.result(5) == b"mine"


def test_close_waits_for_jobs_in_flight_and_fails_the_rest(gearmand, raw_worker):
    client = GearmanClient([gearmand.address])
    finished, unfinished = client.submit("raw"), client.submit("nobody")
    _accepted(finished, unfinished)
    job = raw_worker.next_job()
    closer = threading.Thread(target=client.close, args=(0.5,))
    closer.start()
    job.complete(b"r")
    closer.join(10)
    assert finished.result(0) == b"r"
    with pytest.raises(ClientClosed):
        unfinished.result(0)
    with pytest.raises(ClientClosed, match="make a new one"):
        client.submit("x")
    client.close()


def test_queued_background_jobs_are_sent_when_the_interpreter_ends(gearmand):
    program = (
        "import sys, gearman_pool\n"
        "client = gearman_pool.GearmanClient([sys.argv[1]])\n"
        "for number in range(500): client.submit_background('left', str(number))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, gearmand.address], capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert gearmand.jobs("left") == 500


def test_forgotten_client_warns_and_its_thread_ends(gearmand):
    client = GearmanClient([gearmand.address])
    assert client.submit_background("x").result(5)
    with pytest.warns(ResourceWarning, match="was not closed"):
        del client


def test_close_while_it_connects_is_no_failure_to_connect(caplog):
    keeping = Keeping()
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and never answers
        client = GearmanClient([f"127.0.0.1:{listener.getsockname()[1]}"], listeners=[keeping])
        client.submit("x")
        wait_until(lambda: client.servers()[0].state == "CONNECTING", message="the attempt")
        accepted, _ = listener.accept()
        client.close(0)
        accepted.close()
    assert [event for event in keeping.events if "Job" not in type(event).__name__] == []
    assert caplog.messages == []
    assert client.stats().connections_failed == 0


def test_budget_blocks_and_then_raises(gearmand):
    from gearman_pool.errors import ClientSaturated

    with GearmanClient([gearmand.address], max_in_flight=5, submit_timeout=0.2) as client:
        wait_until(lambda: None not in client.ping().values(), message="the server is up")
        futures = [client.submit("nobody") for _ in range(5)]
        _accepted(*futures)
        with pytest.raises(ClientSaturated, match="max_in_flight 5"):
            client.submit("nobody")
        assert futures[0].cancel()
        futures.append(client.submit("nobody"))
        for future in futures[1:]:
            assert future.cancel()


def test_callback_that_blocks_or_fails_delays_no_other_job(client, gearmand, c_worker, caplog):
    release = threading.Event()
    failed = []

    def fail(future):
        failed.append(future)
        raise ValueError("on purpose")

    nested = deque()
    with gearmand.paused():  # a callback for a job that is done would run, and block, here
        client.submit("echo", b"x").add_done_callback(lambda _: release.wait(20))
        client.submit("echo", b"y").add_done_callback(fail)
        outer = client.submit("echo", b"z")
        outer.add_done_callback(lambda _: nested.append(client.submit("echo", b"inner").result(10)))
    futures = [client.submit("echo", str(n).encode()) for n in range(200)]
    assert not concurrent.futures.wait(futures, 10).not_done
    wait_until(lambda: nested and failed, message="callbacks")
    assert nested == deque([b"inner"])
    release.set()


def test_listeners_hear_of_jobs_and_connections(gearmand, echo_worker):
    keeping = Keeping()
    with GearmanClient([gearmand.address], listeners=[keeping]) as client:
        assert client.submit("echo", b"x").result(5) == b"x"
    wait_until(lambda: keeping.of(ConnectionClosed), message="the events")
    assert [type(event) for event in keeping.events] == [ConnectionOpened, JobAccepted, JobFinished, ConnectionClosed]


def test_servers_can_be_added_and_removed_while_it_runs(gearmands, raw_workers):
    first, second = gearmands(), gearmands()
    worker = raw_workers(first, ["raw"])
    with GearmanClient([first.address]) as client:
        running = client.submit("raw")
        job = worker.next_job()
        client.add_server(second.address)
        wait_until(lambda: [s.state for s in client.servers()] == ["UP", "UP"], message="both")
        client.remove_server(first.address)
        wait_until(lambda: client.servers()[0].state == "DRAINING", message="draining")
        assert {client.submit_background("x").result(5).server for _ in range(10)} == {second.address}
        job.complete(b"r")
        assert running.result(5) == b"r"
        wait_until(lambda: len(client.servers()) == 1, message="the removal")
        with pytest.raises(ValueError, match="not a server of this client"):
            client.remove_server(first.address)
    worker.close()


def test_unique_policy_sends_equal_uniques_to_one_server_from_the_first_job_on(gearmands):
    addresses = [gearmands().address for _ in range(3)]
    for _ in range(5):
        with GearmanClient(addresses, policy="unique") as client:
            futures = [client.submit_background("x", unique="the same") for _ in range(5)]
            assert len({future.result(5).server for future in futures}) == 1
    with GearmanClient(addresses, policy="failover") as client:
        assert client.submit_background("x").result(5).server == addresses[0]


def test_unique_of_the_users_warns_once_where_it_cannot_coalesce(gearmands):
    with GearmanClient([gearmands().address, gearmands().address]) as client:
        with pytest.warns(RuntimeWarning, match="policy='unique'"):
            client.submit_background("x", unique="u").result(5)
        # Any further warning would be an error here.
        client.submit_background("x", unique="v").result(5)


@pytest.mark.parametrize("submit", ["submit", "submit_background", "submit_job"])
def test_warning_about_a_unique_names_the_line_of_the_user(gearmands, submit):
    options = {"background": True, "wait_until_complete": False} if submit == "submit_job" else {}
    with GearmanClient([gearmands().address, gearmands().address]) as client:
        with pytest.warns(RuntimeWarning, match="policy='unique'") as caught:
            getattr(client, submit)("x", b"", unique="u", **options)
        assert caught[0].filename == __file__


def test_result_on_the_io_thread_raises(client):
    errors = []
    future = client.submit("nobody")
    done = threading.Event()

    def ask() -> None:
        try:
            future.result()
        except InvalidClientState as error:
            errors.append(error)
        done.set()

    client._engine.io.post(ask)
    assert done.wait(5)
    assert errors
    assert future.cancel()


def test_idle_client_wakes_for_health_checks_only(gearmand):
    with GearmanClient([gearmand.address], health_check_interval=0.2) as client:
        client.ping()
        before, started = client.stats().wakeups, time.monotonic()
        wait_until(lambda: time.monotonic() - started > 1.0, interval=0.1, message="a second")
        wakeups, elapsed = client.stats().wakeups - before, time.monotonic() - started
        # A turn to send each ECHO_REQ and one to read its answer.
        assert 4 <= wakeups <= 2 * (elapsed / 0.2 + 1)


# ---- python-gearman's interface ------------------------------------------------------------------------------------


def test_submit_job_waits_until_complete_by_default(client, c_worker):
    request = client.submit_job("reverse", "Hello World!")
    assert (request.state, request.result, request.complete) == ("COMPLETE", b"!dlroW olleH", True)
    background = client.submit_job("echo", b"x", background=True, priority="HIGH")
    assert (background.state, background.complete) == ("CREATED", True)


def test_poll_timeout_leaves_the_job_running_and_a_later_wait_is_for_the_same_job(client, raw_worker):
    request = client.submit_job("raw", b"x", poll_timeout=0.2)
    assert request.timed_out
    assert not request.complete
    job = raw_worker.next_job()
    [again] = client.submit_multiple_requests([request], poll_timeout=0.1)
    assert again is request
    assert request.timed_out
    job.complete(b"r")
    client.wait_until_jobs_completed([request], timeout=5.0)
    assert (request.timed_out, request.result) == (False, b"r")
    assert len(raw_worker.taken) == 1


def test_lost_connection_comes_back_as_unknown_and_can_be_submitted_again(gearmand, client, raw_worker):
    requests = client.submit_multiple_jobs(
        [{"task": "raw", "data": b"1"}, {"task": "raw", "data": b"2"}], wait_until_complete=False
    )
    gearmand.restart()
    client.wait_until_jobs_completed(requests, poll_timeout=5)
    assert [(r.state, r.connection_failed, r.timed_out) for r in requests] == [("UNKNOWN", True, False)] * 2
    client.submit_multiple_requests(requests, wait_until_complete=False, poll_timeout=10)
    assert [r.state for r in requests] == ["CREATED"] * 2
    assert [r.connection_attempts for r in requests] == [1, 1]
    client.close(0)


def test_no_server_raises(gearmand):
    with GearmanClient(["127.0.0.1:1"], submit_timeout=0.2) as client, pytest.raises(ServerUnavailable):
        client.submit_job("x", b"")


def test_hand_made_request_gets_status_and_the_data_that_came_since_it_asked_last(client, raw_worker):
    """What job_types.rst's client does, with the worker's steps in the test's hands."""
    initial = client.submit_job("raw", "Hello World!", background=False, wait_until_complete=False)
    job = raw_worker.next_job()

    def check():
        update_job = GearmanJob(client.connection_list[0], initial.job.handle, None, None, None)
        update_request = GearmanJobRequest(update_job)
        update_request.state = "CREATED"
        result = client.get_job_status(update_request)
        status = result.status
        return "Known = {known}, Running = {running}, Status = {numerator}/{denominator}, data = ".format(
            **status
        ) + repr(result.data_updates)

    lines = [check()]
    job.send_status(1, 3)
    wait_until(lambda: initial.status.get("numerator") == 1, message="1/3")
    lines.append(check())
    job.send_data(b"half way data")
    wait_until(lambda: initial.data_updates, message="the data")
    lines.append(check())
    job.send_status(2, 3)
    wait_until(lambda: initial.status.get("numerator") == 2, message="2/3")
    lines.append(check())
    job.complete(b"!dlroW olleH")
    client.wait_until_jobs_completed([initial], poll_timeout=5)
    lines.append(check())
    assert lines == [
        "Known = True, Running = True, Status = 0/0, data = deque([])",
        "Known = True, Running = True, Status = 1/3, data = deque([])",
        "Known = True, Running = True, Status = 1/3, data = deque([b'half way data'])",
        "Known = True, Running = True, Status = 2/3, data = deque([])",
        "Known = False, Running = False, Status = 0/0, data = deque([])",
    ]


def test_subclass_that_overrides_the_wait_with_timeout_works(gearmand, c_worker):
    class Logging(GearmanClient):
        waits = 0

        def wait_until_jobs_completed(self, job_requests, timeout=None):
            self.waits += 1
            self.log.info("waiting")
            return super().wait_until_jobs_completed(job_requests, timeout=timeout)

    with Logging([gearmand.address]) as client:
        assert client.submit_job("echo", b"x", timeout=10).result == b"x"
        assert client.waits == 1


def test_polling_calls_back_after_each_activity_until_told_to_stop(client, raw_worker):
    requests = client.submit_multiple_jobs([{"task": "raw", "data": b""}] * 2, wait_until_complete=False)
    job = raw_worker.next_job()
    calls = []

    def go_on(any_activity):
        calls.append(any_activity)
        if len(calls) == 1:
            job.complete(b"r")
            return True
        return not any(request.complete for request in requests)

    assert client.poll_connections_until_stopped(client.connection_list, go_on, timeout=10)
    assert calls[0] is False
    assert calls[-1] is True
    assert not client.poll_connections_until_stopped(client.connection_list, lambda _: True, timeout=0.05)
    client.close(0)


def test_illegal_move_of_a_job_raises():
    request = GearmanJobRequest(GearmanJob(None, None, "t", "u", b""))
    with pytest.raises(InvalidClientState, match="no move from UNKNOWN to COMPLETE"):
        request._move("COMPLETE")


def test_unexpected_error_in_the_io_thread_ends_the_job_and_not_the_client(client, echo_worker, monkeypatch, caplog):
    dispatcher = client._engine
    client.ping()

    def broken(future, payload):
        monkeypatch.undo()
        raise RuntimeError("on purpose")

    monkeypatch.setattr(dispatcher, "_completed", broken)
    with pytest.raises(GearmanError, match="on purpose"):
        client.submit("echo", b"x").result(5)
    assert client.submit("echo", b"y").result(5) == b"y"
    assert client.stats().loop_errors == 1


def test_map_that_nobody_iterates_withdraws_its_jobs(gearmand):
    with GearmanClient([gearmand.address]) as client:
        client.ping()
        results = client.map("no such task", [b"1", b"2"])
        wait_until(lambda: client.stats().in_flight == 2, message="two jobs")
        del results
        wait_until(lambda: client.stats().in_flight == 0, message="nothing in flight")
        assert client.stats().jobs_cancelled == 2


def test_map_whose_items_cannot_all_be_submitted_withdraws_the_others(gearmand):
    with GearmanClient([gearmand.address]) as client:
        client.ping()
        with pytest.raises(EncodeError):
            client.map("no such task", [b"1", 7])
        wait_until(lambda: client.stats().jobs_cancelled == 1, message="the withdrawal")
        assert client.stats().in_flight == 0


def test_timeout_of_a_job_that_was_never_sent_says_so():
    with GearmanClient(["127.0.0.1:1"], reconnect_backoff=(5, 10)) as client:
        error = client.submit("x", timeout=0.2).exception(10)
        assert isinstance(error, JobTimeout)
        assert (error.maybe_sent, error.retryable) == (False, True)
        assert "it was not sent" in str(error)


def test_timeout_and_cancel_of_accepted_jobs_name_the_server(gearmand):
    with GearmanClient([gearmand.address]) as client:
        # Connected first: a job that waits for its server is not there yet when its time is up.
        wait_until(lambda: None not in client.ping().values(), message="the server is up")
        future = client.submit("no such task", timeout=1.0)
        cancelled = client.submit("no such task")
        wait_until(lambda: future.job.handle and cancelled.job.handle, message="acceptance")
        assert cancelled.cancel()
        assert client.stats().jobs_cancelled == 1
        with pytest.raises(JobCancelled) as found:
            cancelled.result()
        assert (found.value.server, found.value.maybe_sent) == (gearmand.address, True)
        error = future.exception(10)
        assert (error.server, error.maybe_sent) == (gearmand.address, True)


def test_encoder_that_is_set_on_a_client_later_is_the_one_for_its_payloads(gearmand, c_worker):
    # As python-gearman's users do, for whom it is an attribute like others.
    with GearmanClient([gearmand.address]) as client:
        client.data_encoder = JSONEncoder
        assert client.submit("echo", {"a": 1}).result(10) == b'{"a":1}'
        assert client.submit_job("echo", [1]).result == b"[1]"


def test_servers_that_were_taken_out_are_not_kept(gearmands, c_workers):
    stays, leaves = gearmands(), gearmands()
    seen = []
    for server in (stays, leaves):
        c_workers(server)
    with GearmanClient(
        [stays.address], policy="round_robin", health_check_interval=0.2, reconnect_backoff=(0.01, 0.1)
    ) as client:
        for _ in range(3):
            client.add_server(leaves.address)
            wait_until(lambda: None not in client.ping().values(), message="both servers")
            for future in [client.submit("echo", b"x") for _ in range(4)]:
                assert future.result(10) == b"x"
            seen.append(weakref.ref(client._engine.pool.wanted[leaves.address]))
            client.remove_server(leaves.address)
            wait_until(lambda: len(client.servers()) == 1, message="the removal")

        def gone() -> bool:
            gc.collect()
            return all(reference() is None for reference in seen)

        wait_until(gone, message="no removed server is referred to")
