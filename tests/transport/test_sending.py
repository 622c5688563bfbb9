"""What leaves when: jobs that come while another caller sends, jobs that gather, and jobs that a loss cuts off."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections import Counter
from pathlib import Path

import pytest

import gearman_pool.transport
from gearman_pool import GearmanClient
from gearman_pool.errors import ConnectionLost

from ..support.scripted import SilentServer
from ..support.steps import Lines
from ..support.waiting import wait_until

_TRANSPORT = Path(gearman_pool.transport.__file__).parent

#: For clients of which the health checks must not find by chance what is in line.
_QUIET = 3600

#: A new client's timers go off a few times in its first seconds, and what is in line is found by chance then as well.
_MORE_OFTEN_THAN_THAT = 6


@contextlib.contextmanager
def _busy_io_thread(client):
    """Keep the client's I/O thread from sending anything."""
    is_busy, go_on = threading.Event(), threading.Event()
    client._engine.io.post(lambda: (is_busy.set(), go_on.wait(30)))
    assert is_busy.wait(10)
    try:
        yield
    finally:
        go_on.set()


def _in_thread(call, timeout=10):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(timeout)
    return thread


def _trace(call, on_line):
    """Make a call, and tell of each line of the transport that it comes to."""
    Lines(on_line, _TRANSPORT).run(call)


def test_job_that_comes_at_any_moment_of_anothers_sending_needs_no_io_thread():
    """Whoever sends takes along what comes meanwhile, however often that is, and nobody waits for anybody."""
    with SilentServer() as server, GearmanClient([server.address], health_check_interval=_QUIET) as client:
        server.speaking = True
        client.ping()
        futures = []

        def submit() -> None:
            futures.append(client.submit_background("nobody"))

        lines: dict[tuple[str, int], None] = {}
        _in_thread(lambda: _trace(submit, lines.setdefault))
        assert lines
        for line in lines:
            passed: Counter[tuple[str, int]] = Counter()
            waiting: list[threading.Thread] = []

            def intrude(at: tuple[str, int], line=line, passed=passed, waiting=waiting) -> None:
                passed[at] += 1
                if at == line and passed[at] <= 3 and not waiting:
                    intruder = _in_thread(submit, 5)
                    if intruder.is_alive():
                        waiting.append(intruder)

            with _busy_io_thread(client):
                _in_thread(lambda intrude=intrude: _trace(submit, intrude))
                for intruder in waiting:
                    intruder.join(10)
                assert not waiting, f"a caller that came at {line} waited for the one who sent"
                wait_until(
                    lambda: len(server.received) == len(futures),
                    5,
                    message=lambda line=line: f"all jobs are sent, though others came at {line}",
                )
            for future in futures:
                future.result(10)


@contextlib.contextmanager
def _sender():
    """A server, its client, what `submit` has submitted, ``submit()``, and the lines of the transport on its way."""
    with (
        SilentServer() as server,
        GearmanClient([server.address], reconnect_backoff=(0.001, 0.01), health_check_interval=_QUIET) as client,
    ):
        server.speaking = True
        futures = []

        def submit() -> None:
            futures.append(client.submit_background("nobody", max_retries=1))

        client.ping()
        lines: dict[tuple[str, int], None] = {}
        _in_thread(lambda: _trace(submit, lines.setdefault))
        assert lines
        yield server, client, futures, submit, lines


@pytest.mark.slow
def test_job_whose_connection_is_lost_at_any_moment_of_its_sending_is_not_forgotten():
    with _sender() as (server, client, futures, submit, lines):
        losses = 0
        for line in lines:
            client.ping()
            cut = []

            def lose(at: tuple[str, int], line=line, losses=losses, cut=cut) -> None:
                if at == line and not cut:
                    cut.append(server.connections[-1])
                    cut[0].close()
                    wait_until(lambda: client.stats().connections_lost > losses, message="the loss is noticed")

            _in_thread(lambda lose=lose: _trace(submit, lose))
            # A few lines are not on every sender's way.
            losses += len(cut)
            try:
                futures[-1].result(8)
            except TimeoutError:
                pytest.fail(f"the job has no outcome: its connection was lost at {line}")
        assert losses > 1


class _FromOutsideError(BaseException):
    """Stands for what a time limit raises into a thread."""


@pytest.mark.slow
def test_caller_that_is_interrupted_at_any_moment_of_its_sending_holds_nobody_up():
    with _sender() as (_server, client, futures, submit, lines):
        strikes = 0
        for line in lines:
            client.ping()
            struck = []

            def strike(at: tuple[str, int], line=line, struck=struck) -> None:
                if at == line and not struck:
                    struck.append(at)
                    raise _FromOutsideError

            def struck_submit(strike=strike) -> None:
                with contextlib.suppress(_FromOutsideError):
                    _trace(submit, strike)

            _in_thread(struck_submit)
            # A few lines are not on every caller's way.
            strikes += len(struck)
            _in_thread(submit)
            try:
                futures[-1].result(5)
            except TimeoutError:
                pytest.fail(f"the next job waits: a caller was interrupted at {line}")
        assert strikes > 1


def test_jobs_that_gather_leave_though_no_reply_comes():
    with SilentServer() as server, GearmanClient([server.address], health_check_interval=_QUIET) as client:
        client.ping()
        count = 0
        for _ in range(_MORE_OFTEN_THAN_THAT):
            for _ in range(600):
                client.submit("nobody")
            count += 600
            # Not all: the last ones wait for others to come, or for a reply.
            wait_until(lambda count=count: len(server.received) >= count - 300, 5, message="most of the jobs are sent")
        client.close(0)


def test_job_from_the_main_thread_beside_others_leaves_at_once():
    """It does not send itself then, and so it has to wake who does."""
    with SilentServer() as server, GearmanClient([server.address], health_check_interval=_QUIET) as client:
        client.ping()
        for number in range(_MORE_OFTEN_THAN_THAT):
            client.submit("nobody")
            wait_until(lambda number=number: len(server.received) > number, 5, message="the job is sent")
        client.close(0)


def test_rest_of_what_a_socket_does_not_take_at_once_leaves_as_it_takes_more():
    with SilentServer() as server, GearmanClient([server.address], health_check_interval=_QUIET) as client:
        client.ping()
        for number in range(_MORE_OFTEN_THAN_THAT):
            _in_thread(lambda: client.submit("nobody", bytes(16 * 1024 * 1024)))
            wait_until(lambda number=number: len(server.received) > number, message="the job is sent")
        client.close(0)


def test_jobs_leave_together_while_many_are_unanswered(monkeypatch):
    """A system call for each would cost more than the rest of the job."""
    with SilentServer() as server, GearmanClient([server.address], health_check_interval=_QUIET) as client:
        client.ping()
        (connection,) = client._engine.pool.connections
        real = connection._send
        calls = []
        monkeypatch.setattr(connection, "_send", lambda sock, data: (calls.append(len(data)), real(sock, data))[1])

        def submit() -> None:
            for _ in range(2000):
                client.submit("nobody")

        _in_thread(submit)
        wait_until(lambda: len(server.received) >= 2000 - 300, message="most of the jobs are sent")
        # The first ones leave alone, and nothing is known of how long the others wait for the I/O thread.
        assert len(calls) < 500
        client.close(0)


def _ends(data):
    """Where the packets end whose headers stand in these bytes."""
    ends = [0]
    while ends[-1] < len(data):
        (size,) = struct.unpack_from(">I", data, ends[-1] + 8)
        ends.append(ends[-1] + 12 + size)
    return ends


@pytest.mark.parametrize("sizes", [(10, 300, 20), (10, 20, 100_000)], ids=["small", "large"])
@pytest.mark.parametrize(
    ("sent", "more"), [(0, 0), (0, 1), (1, -1), (1, 0), (1, 1), (2, -1), (2, 0), (2, 20), (3, -1), (3, 0)]
)
def test_jobs_of_which_no_byte_has_left_a_lost_connection_go_on_in_their_order_and_no_others(
    gearmand, raw_workers, monkeypatch, sizes, sent, more
):
    worker = raw_workers(gearmand, "job", lambda job: job.complete(b"done"))
    with (
        SilentServer() as server,
        GearmanClient([server.address, gearmand.address], policy="failover", max_retries=0) as client,
    ):
        wait_until(lambda: None not in client.ping().values(), message="both servers")
        # While another's job is in flight there the main thread sends nothing itself, and jobs get in line.
        other = client.submit("job", b"other")
        (connection,) = [c for c in client._engine.pool.connections if c.server.name == server.address]
        real = connection._send
        room = None
        full = threading.Event()

        def send(sock, data):
            """As a socket whose buffer has room for so many bytes."""
            nonlocal room
            if room is None:
                room = _ends(data)[sent] + more
            count = real(sock, data[:room]) if room else 0
            room -= count
            if not room:
                full.set()
            return count

        wait_until(lambda: server.received, message="the other job is sent")
        payloads = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
        with _busy_io_thread(client):
            monkeypatch.setattr(connection, "_send", send)
            futures = [client.submit("job", payload) for payload in payloads]
        assert full.wait(10)
        payloads += [b"behind", b"last"]
        futures += [client.submit("job", payload) for payload in payloads[3:]]
        server.connections[0].close()
        lost = sent + (more > 0)
        for future in [other, *futures[:lost]]:
            assert isinstance(future.exception(10), ConnectionLost)
        assert [future.result(10) for future in futures[lost:]] == [b"done"] * (5 - lost)
        assert [job.data for job in worker.taken] == payloads[lost:]
