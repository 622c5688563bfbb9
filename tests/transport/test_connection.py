"""One connection: who sends, and what an interrupted sender leaves behind."""

from __future__ import annotations

import threading

import pytest

from gearman_pool import GearmanClient
from gearman_pool.errors import ClientClosed, ConnectionLost
from gearman_pool.future import JobFuture
from gearman_pool.transport import connection as connection_module

from ..support.waiting import wait_until


class _FromOutsideError(BaseException):
    """Stands for what a time limit raises into a thread."""


@pytest.fixture
def client(gearmand):
    with GearmanClient([gearmand.address]) as client:
        client.ping()
        yield client


def _connection(client):
    return client._engine.pool.connections[0]


def _in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def _rest(client):
    """Let the I/O thread do what it has to do, and fall asleep."""
    io = client._engine.io
    done = threading.Event()
    io.post(done.set)
    assert done.wait(10)
    wait_until(lambda: io.sleeping, message="asleep")


def _interrupt(client, monkeypatch, name, position):
    """Have the next caller who sends interrupted in ``name``, before or after it does its work."""
    connection = _connection(client)
    real = getattr(connection, name)

    def interrupted(*arguments):
        if client._engine.io.is_current():
            return real(*arguments)
        monkeypatch.undo()
        if position == "after":
            real(*arguments)
        raise _FromOutsideError

    monkeypatch.setattr(connection, name, interrupted)


@pytest.mark.parametrize(("name", "position"), [("_send", "before"), ("_send", "after"), ("_drain", "after")])
def test_interrupted_sender_costs_the_connection_and_nobody_gets_a_wrong_answer(
    gearmand, client, echo_worker, monkeypatch, name, position
):
    started = [client.submit("no such task", str(number).encode()) for number in range(3)]
    wait_until(lambda: all(future.job.handle for future in started), message="acceptance")
    _interrupt(client, monkeypatch, name, position)
    interrupted = []

    def submit() -> None:
        with pytest.raises(_FromOutsideError):
            client.submit("echo", b"interrupted")
        interrupted.append(True)

    _in_thread(submit)
    assert interrupted
    # Somebody else's job finds the lock taken, and goes through all the same.
    others = [client.submit("echo", str(number).encode(), max_retries=1) for number in range(20)]
    assert [future.result(10) for future in others] == [str(number).encode() for number in range(20)]
    for future in started:
        with pytest.raises(ConnectionLost, match="may have run"):
            future.result(10)
    assert client.stats().connections_lost == 1


@pytest.mark.parametrize(("name", "position"), [("_send", "before"), ("_send", "after"), ("_drain", "after")])
def test_job_behind_an_interrupted_sender_does_not_wait_for_the_next_health_check(
    gearmand, echo_worker, monkeypatch, name, position
):
    quiet = {"health_check_interval": 3600, "submit_timeout": 3600}
    with GearmanClient([gearmand.address], reconnect_backoff=(0.01, 0.05), **quiet) as client:
        futures = []

        def submit() -> None:
            with pytest.raises(_FromOutsideError):
                client.submit("echo", b"interrupted")

        # A new client's timers go off a few times in its first seconds; what is in line would be found by chance then.
        for _ in range(6):
            client.ping()
            _interrupt(client, monkeypatch, name, position)
            _in_thread(submit)
            wait_until(lambda: client.stats().in_flight == 0, 5, message="its job, which may have left, is done")
            _rest(client)
            _in_thread(lambda: futures.append(client.submit("echo", b"behind", max_retries=1)))
            assert futures.pop().result(8) == b"behind"


def test_interruption_before_the_drain_costs_nothing(gearmand, client, echo_worker, monkeypatch):
    _interrupt(client, monkeypatch, "_flush", "before")

    def submit() -> None:
        with pytest.raises(_FromOutsideError):
            client.submit("echo", b"interrupted")

    _in_thread(submit)
    assert client.submit("echo", b"x").result(10) == b"x"
    assert client.stats().connections_lost == 0


def test_holder_of_the_lock_that_is_merely_slow_keeps_the_connection(gearmand, client, echo_worker, monkeypatch):
    connection = _connection(client)
    real = connection._send
    holding, go_on = threading.Event(), threading.Event()

    def slow(sock, data):
        if not client._engine.io.is_current() and not go_on.is_set():
            holding.set()
            go_on.wait(10)
        return real(sock, data)

    monkeypatch.setattr(connection, "_send", slow)
    results = []
    caller = threading.Thread(target=lambda: results.append(client.submit("echo", b"slow").result(10)))
    caller.start()
    assert holding.wait(10)
    other = client.submit("echo", b"other")
    # Far longer than the I/O thread's patience with a holder that has left.
    assert not other.watch(other.done, connection_module.PATIENCE * 10)
    go_on.set()
    caller.join(10)
    assert results == [b"slow"]
    assert other.result(10) == b"other"
    assert client.stats().connections_lost == 0


def test_main_thread_does_not_send_while_others_have_jobs_in_flight(gearmand, client):
    connection = _connection(client)
    assert connection._may_write()
    future = client.submit("no such task")
    wait_until(lambda: future.job.handle, message="acceptance")
    assert not connection._may_write()
    allowed = []
    _in_thread(lambda: allowed.append(connection._may_write()))
    assert allowed == [True]
    assert future.cancel()


def test_repr_shows_state_and_counts(gearmand, client):
    assert repr(_connection(client)) == f"<Connection to {gearmand.address} up, 0 in flight, 0 queued>"


def _hold_in_drain(client, monkeypatch):
    """Have the next caller who sends held up in the middle of `_drain`; return the events "is there" and "go on"."""
    connection = _connection(client)
    inside, go_on = threading.Event(), threading.Event()

    class Order(type(connection.order)):
        def append(self, entry):
            if not client._engine.io.is_current() and not inside.is_set():
                inside.set()
                go_on.wait(20)
            super().append(entry)

    order = Order(connection.order)
    monkeypatch.setattr(connection, "order", order)
    connection.session.order = order
    return inside, go_on


def test_connection_that_is_lost_while_a_caller_sends_hands_over_every_job_once(
    gearmand, client, echo_worker, monkeypatch
):
    inside, go_on = _hold_in_drain(client, monkeypatch)
    connection = _connection(client)
    futures, errors = [], []

    def submit() -> None:
        try:
            futures.append(client.submit("echo", b"held", max_retries=1))
        except BaseException as error:
            errors.append(error)

    caller = threading.Thread(target=submit)
    caller.start()
    assert inside.wait(10)
    lost = threading.Event()
    client._engine.io.post(lambda: (connection.lose(ConnectionLost("on purpose")), lost.set()))
    assert lost.wait(10)
    straggler = client.submit("echo", b"straggler", max_retries=1)
    # The straggler goes by another connection; what the caller has in its hands waits for it to leave.
    assert straggler.result(10) == b"straggler"
    go_on.set()
    caller.join(10)
    assert not errors
    assert futures[0].result(10) == b"held"
    assert client.stats().in_flight == 0


def test_job_whose_sender_was_struck_between_both_lists_is_sent_again_once(gearmand, client, raw_workers, monkeypatch):
    """At that moment it stands in line for a reply already, and in the queue still."""
    connection = _connection(client)

    class Order(type(connection.order)):
        def append(self, entry):
            super().append(entry)
            if not client._engine.io.is_current() and isinstance(entry[2], JobFuture):
                futures.append(entry[2])
                raise _FromOutsideError

    futures = []
    order = Order(connection.order)
    monkeypatch.setattr(connection, "order", order)
    connection.session.order = order

    def submit() -> None:
        with pytest.raises(_FromOutsideError):
            client.submit("count", b"struck", max_retries=5)

    _in_thread(submit)
    worker = raw_workers(gearmand, "count", lambda job: job.complete(job.data))
    assert futures[0].result(10) == b"struck"
    # Whatever else was sent for it stands before this one, in the queue of the only worker.
    assert client.submit("count", b"next").result(10) == b"next"
    assert [job.data for job in worker.taken] == [b"struck", b"next"]
    assert futures[0].request.connection_attempts == 2


def test_close_while_a_caller_sends_leaves_no_future_behind(gearmand, client, monkeypatch):
    inside, go_on = _hold_in_drain(client, monkeypatch)
    futures, errors = [], []

    def submit() -> None:
        try:
            futures.append(client.submit("no such task"))
        except BaseException as error:
            errors.append(error)

    caller = threading.Thread(target=submit)
    caller.start()
    assert inside.wait(10)
    client.close(timeout=0)
    go_on.set()
    caller.join(10)
    assert not errors
    with pytest.raises(ClientClosed):
        futures[0].result(5)


def test_job_that_comes_while_the_loop_ends_ends_too(gearmand, monkeypatch):
    """Between the end of the loop's work and the note that it has ended, when descriptors are closed."""
    with GearmanClient([gearmand.address]) as client:
        client.ping()
        io = client._engine.io
        found = []
        real = io._selector.close

        def close() -> None:
            # What a caller has seen that looked a moment ago, before the client refused jobs.
            refusing, client._engine.refusing = client._engine.refusing, None
            found.append(client.submit("echo"))
            client._engine.refusing = refusing
            real()

        monkeypatch.setattr(io._selector, "close", close)
        client.close(timeout=1)
        with pytest.raises(ClientClosed):
            found[0].result(5)


@pytest.mark.slow
def test_job_of_a_sender_who_was_struck_after_its_bytes_had_left_is_not_sent_elsewhere(
    gearmands, raw_workers, monkeypatch
):
    first, second = gearmands(), gearmands()
    worker = raw_workers(second, "count", lambda job: job.complete(b"r"))
    with GearmanClient([first.address, second.address], policy="failover") as client:
        wait_until(lambda: None not in client.ping().values(), message="both")
        started = client.submit("no such task")
        wait_until(lambda: started.job.handle, message="acceptance")
        connection = started.connection
        first.pause()
        real = connection._send

        def strike(sock, data):
            if not client._engine.io.is_current():
                monkeypatch.undo()
                real(sock, data)
                raise _FromOutsideError
            return real(sock, data)

        monkeypatch.setattr(connection, "_send", strike)

        def submit() -> None:
            with pytest.raises(_FromOutsideError):
                client.submit("count")

        _in_thread(submit)
        with pytest.raises(ConnectionLost):
            started.result(10)
        wait_until(lambda: client.stats().in_flight == 0, message="nothing in flight")
        assert not worker.taken
        assert client.stats().jobs_lost == 2
        first.resume()
