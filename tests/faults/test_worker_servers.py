"""F2, F4 and F6 for the worker: a server that freezes, hangs or talks garbage, and the jobs of the other one go on."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import threading
import time

import pytest

from gearman_pool import GearmanClient, GearmanWorker
from gearman_pool.events import ConnectionClosed

from ..support.figures import figure
from ..support.hanging import HANGING
from ..support.listening import Keeping
from ..support.processes import ROOT
from ..support.raw import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    ECHO_RES,
    ERROR,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    NO_JOB,
    WORK_COMPLETE,
    Packet,
    RawConnection,
    pack,
    pack_response,
)
from ..support.running import running
from ..support.scripted import ScriptedServer
from ..support.waiting import wait_until


def _echo_worker(*servers: str, **options) -> GearmanWorker:
    worker = GearmanWorker(list(servers), **{"reconnect_backoff": (0.02, 0.1), **options})
    worker.register_task("echo", lambda job: job.data)
    return worker


def _call(client: GearmanClient, count: int) -> list[float]:
    """Run so many jobs, one after the other; return how long each took."""
    found = []
    for number in range(count):
        before = time.monotonic()
        assert client.submit("echo", b"%d" % number).result(15) == b"%d" % number
        found.append(time.monotonic() - before)
    return found


def _first(worker: GearmanWorker):
    return worker.stats().servers[0]


# ---- F2 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2])
def test_server_that_freezes_under_a_running_worker_is_found_within_interval_and_timeout(gearmands, concurrency):
    frozen, live = gearmands(), gearmands()
    interval, timeout = 0.4, 0.6
    started, go_on, seen = threading.Event(), threading.Event(), []
    worker = _echo_worker(
        frozen.address,
        live.address,
        concurrency=concurrency,
        health_check_interval=interval,
        health_check_timeout=timeout,
    )

    def slow(job):
        started.set()
        assert go_on.wait(30)
        seen.append(job.stopping)

    worker.register_task("slow", slow)
    with running(worker), GearmanClient([live.address]) as client, GearmanClient([frozen.address]) as other:
        wait_until(lambda: frozen.workers("echo") == live.workers("echo") == 1, message="both know the worker")
        if concurrency > 1:
            # A job of the frozen server runs all the while.
            other.submit("slow")
            assert started.wait(10)
        with frozen.paused():
            frozen_at = time.monotonic()
            detected = None
            while detected is None and time.monotonic() - frozen_at < 20:
                _call(client, 1)
                if _first(worker).state != "UP":
                    detected = time.monotonic() - frozen_at
            assert detected is not None, "the worker has not noticed"
            figure(
                f"SIGSTOP found by a worker after {detected:.2f} s with interval {interval:g} s and timeout "
                f"{timeout:g} s, concurrency={concurrency}"
            )
            assert detected < interval + timeout + 1.5
            assert "health check" in _first(worker).last_error
            go_on.set()
            if concurrency > 1:
                wait_until(lambda: worker.stats().results_lost == 1, message="the result has nowhere to go")
                assert seen == [True]
            _call(client, 20)
        with GearmanClient([frozen.address]) as back:
            _call(back, 3)
        other.close(0)


# ---- F4 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("kind", HANGING)
def test_jobs_go_on_while_connecting_to_another_server_hangs(gearmand, kind, concurrency):
    with HANGING[kind]() as hanging:
        worker = _echo_worker(
            hanging, gearmand.address, concurrency=concurrency, connect_timeout=20, health_check_timeout=20
        )
        with GearmanClient([gearmand.address]) as client:
            started = time.monotonic()
            with running(worker):
                latencies = _call(client, 100)
                assert _first(worker).state == "CONNECTING"
                worker.stop()
                wait_until(lambda: not worker.stats().ready, message="the worker has stopped")
            elapsed = time.monotonic() - started
    figure(f"100 jobs beside {kind}: {elapsed:.2f} s with start and end, the slowest {max(latencies) * 1e3:.1f} ms")
    # One that waited for the connect, at the start, for a job or at the end, would take 20 s.
    assert elapsed < 10


def test_server_that_stops_hanging_is_served(gearmands):
    hung, live = gearmands(), gearmands()
    hung.pause()
    worker = _echo_worker(hung.address, live.address, health_check_timeout=0.3)
    try:
        with running(worker), GearmanClient([live.address]) as client:
            wait_until(lambda: worker.stats().connections_failed >= 2, message="attempts have failed")
            _call(client, 10)
            hung.resume()
            with GearmanClient([hung.address]) as other:
                _call(other, 3)
    finally:
        hung.resume()


_HANGING_RESOLVER = """
import json, sys
import gearman_pool
from tests.support.hanging import let_resolver_hang

asked = let_resolver_hang("hangs.example.org")
servers = ["hangs.example.org", sys.argv[1]]
worker = gearman_pool.GearmanWorker(servers, connect_timeout=0.3, reconnect_backoff=(0.02, 0.1))
worker.register_task("echo", lambda job: job.data)

@worker.task("stop")
def stop(job):
    worker.stop()
    return (worker.stats().servers[0].last_error or "").encode()

worker.run()
# An attempt that hangs there cannot be ended, so there must not be one after the other.
print(json.dumps(len(asked)), flush=True)
"""


def test_resolver_that_hangs_delays_no_job_and_not_the_end_of_the_process(gearmand):
    with (
        subprocess.Popen(
            [sys.executable, "-c", _HANGING_RESOLVER, gearmand.address], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process,
        GearmanClient([gearmand.address]) as client,
    ):
        try:
            wait_until(lambda: gearmand.workers("echo") == 1, 20, message="the worker has come")
            latencies = _call(client, 200)
            pause = threading.Event()
            pause.wait(0.4)  # past connect_timeout
            latencies += _call(client, 50)
            error = client.submit("stop").result(15)
            output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    figure(f"250 jobs while the worker's resolver hangs, the slowest {max(latencies) * 1e3:.1f} ms")
    assert b"the resolver may hang" in error
    assert json.loads(output) == 1
    assert process.returncode == 0
    assert max(latencies) < 5


# ---- F6 ------------------------------------------------------------------------------------------------------------

_JOB = pack_response(JOB_ASSIGN_UNIQ, b"H:bad:1", b"echo", b"unique", b"data")

#: What the server sends in answer to the worker's question for a job, and what the error says.
GARBAGE: dict[str, tuple[bytes, str]] = {
    "random bytes": (b"\xde\xad\xbe\xef\x00\x01\x02\x03", "bytes that start no packet"),
    "NUL bytes": (bytes(100), "a packet starts with 00000000"),
    "text": (b"HTTP/1.1 400 Bad Request\r\n\r\n", "a line of text came"),
    "a request's magic": (pack(JOB_ASSIGN_UNIQ, b"x"), "a packet starts with 00524551"),
    "absurd length": (b"\0RES" + struct.pack(">II", JOB_ASSIGN_UNIQ, 2**32 - 1), "max_packet_size"),
    "unknown command": (pack_response(99, b"H:1"), "command 99"),
    "a worker's packet": (pack_response(GRAB_JOB_UNIQ), "command 30"),
    "a job without its payload": (pack_response(JOB_ASSIGN_UNIQ, b"H:1", b"echo", b"u"), "without all its arguments"),
    "a job that nobody asked for": (_JOB + _JOB, "it was not asked for"),
    "NO_JOB that nobody asked for": (pack_response(NO_JOB) * 2, "it was not asked for"),
    "garbage behind a job": (_JOB + b"\0\0\0\0\0", "a packet starts with"),
    "JOB_CREATED": (pack_response(JOB_CREATED, b"H:1"), "JOB_CREATED came where JOB_ASSIGN_UNIQ was due"),
    "ECHO_RES in place of a job": (pack_response(ECHO_RES, b"?"), "ECHO_RES came where JOB_ASSIGN_UNIQ was due"),
    "ERROR without a text": (pack_response(ERROR, b"CODE"), "1 of its 2 arguments"),
    "half a packet and the end": (_JOB[:-2], "closed"),
}


class _Bad:
    """A server that answers the first question for a job with garbage, and after that behaves."""

    def __init__(self, garbage: bytes, *, ends: bool = False) -> None:
        self.garbage: bytes | None = garbage
        self.behaves = threading.Event()
        self.results: list[Packet] = []
        self._ends = ends

    def __call__(self, connection: RawConnection, packet: Packet) -> None:
        if packet.command == GRAB_JOB_UNIQ:
            if not self.behaves.is_set():
                connection.sock.sendall(self.garbage)
                if self._ends:
                    connection.close()
            else:
                connection.sock.sendall(pack_response(NO_JOB) if self.results else _JOB)
        elif packet.command == WORK_COMPLETE and self.behaves.is_set():
            self.results.append(packet)


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_closes_its_connection_and_no_other_and_the_worker_comes_back(gearmand, name, caplog):
    data, text = GARBAGE[name]
    script = _Bad(data, ends=text == "closed")
    go_on = threading.Event()
    keeping = Keeping()
    caplog.set_level("CRITICAL", "gearman_pool.worker")
    with ScriptedServer(script) as bad, GearmanClient([gearmand.address]) as client:
        # No health check comes to help: the garbage alone closes the connection.
        worker = _echo_worker(
            bad.address, gearmand.address, concurrency=2, health_check_interval=60, listeners=[keeping]
        )
        worker.register_task("hold", lambda job: b"held" if go_on.wait(30) else b"")
        with running(worker):
            held = client.submit("hold")
            wait_until(lambda: gearmand.running_jobs("hold") == 1, message="a job of the other server runs")
            wait_until(lambda: len(keeping.of(ConnectionClosed)) >= 2, message="the connection is closed, twice")
            for event in keeping.of(ConnectionClosed):
                assert event.server == bad.address
                assert text in event.error
            _call(client, 10)
            script.behaves.set()
            wait_until(lambda: script.results, message="the worker is back and takes a job")
            assert script.results[0].arguments(2) == [b"H:bad:1", b"data"]
            go_on.set()
            assert held.result(10) == b"held"
            stats = worker.stats()
            assert stats.servers[1].state == "UP"
            assert stats.connections_opened == 1 + len(bad.connections)


# ---- versions ------------------------------------------------------------------------------------------------------

_TOLD, _NOT_TOLD = (CAN_DO_TIMEOUT, b"task"), (CAN_DO, b"task")


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    ("version", "ability"),
    [
        (b"OK 2.0.0\n", _TOLD),
        (b"OK 10.1\n", _TOLD),
        (b"OK 1.1.20+ds\n", _NOT_TOLD),
        # Built outside its repository, from one without tags (twice), and one that does not know the command.
        (b"OK \n", _NOT_TOLD),
        (b"OK e4f600b6\n", _NOT_TOLD),
        (b"OK 46428256\n", _NOT_TOLD),
        (b"", _NOT_TOLD),
    ],
)
def test_server_is_told_of_a_time_limit_only_if_its_version_can_bear_it_and_has_its_jobs_done_in_any_case(
    version, ability, concurrency
):
    abilities, assigned = [], []
    done = threading.Event()

    def script(connection: RawConnection, packet: Packet) -> None:
        if packet.command in (CAN_DO, CAN_DO_TIMEOUT):
            abilities.append((packet.command, packet.body.partition(b"\0")[0]))
        elif packet.command == GRAB_JOB_UNIQ and not assigned:
            assigned.append(packet)
            connection.sock.sendall(pack_response(JOB_ASSIGN_UNIQ, b"H:here:1", b"task", b"", b"data"))
        elif packet.command == GRAB_JOB_UNIQ:
            connection.sock.sendall(pack_response(NO_JOB))
        elif packet.command == WORK_COMPLETE and packet.body == b"H:here:1\0atad":
            done.set()

    with ScriptedServer(script, texts={b"version": version}) as server:
        worker = GearmanWorker([server.address], concurrency=concurrency)
        worker.register_task("task", lambda job: job.data[::-1], timeout=30)
        with running(worker):
            assert done.wait(10)
        assert len(server.connections) == 1
    assert abilities == [ability]
