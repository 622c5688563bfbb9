"""The tests' own tools work: servers, foreign workers, raw sockets and the check for leaks."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from . import conftest
from .support.gearmand import Gearmand, free_port
from .support.raw import (
    ECHO_REQ,
    ECHO_RES,
    OPTION_REQ,
    OPTION_RES,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    Closed,
)
from .support.waiting import wait_until
from .support.workers import CWorker, GearmanToolWorker, PhpWorker, RawJob, RawWorker


def test_gearmand_answers_binary_and_text(gearmand: Gearmand) -> None:
    with gearmand.connect() as connection:
        assert connection.request(ECHO_REQ, b"a\0b")[1:] == (ECHO_RES, b"a\0b")
        assert connection.text("version").startswith("OK ")
        assert connection.text("status") == ""
        wait_until(lambda: gearmand.connections() == 1)


def test_killed_server_cuts_its_connections_and_restarts_on_its_port(gearmand: Gearmand) -> None:
    pid, port = gearmand.pid, gearmand.port
    with gearmand.connect() as connection:
        gearmand.kill()
        assert not gearmand.running
        with pytest.raises(Closed):
            connection.receive()
    with pytest.raises(ConnectionRefusedError):
        gearmand.connect()
    gearmand.start()
    assert (gearmand.port, gearmand.pid != pid) == (port, True)
    gearmand.stop()
    gearmand.start()
    assert gearmand.text("getpid") == f"OK {gearmand.pid}"


def test_paused_server_takes_connections_and_is_silent_until_resumed(gearmand: Gearmand) -> None:
    gearmand.pause()
    with gearmand.connect(timeout=0.1) as connection:
        connection.send(ECHO_REQ, b"there?")
        with pytest.raises(TimeoutError):
            connection.receive()
        gearmand.resume()
        assert connection.receive(timeout=10.0).body == b"there?"


def test_paused_server_can_be_closed(gearmands: Callable[..., Gearmand]) -> None:
    server = gearmands()
    server.pause()
    server.stop()
    assert not server.running


def test_two_servers_live_side_by_side(gearmands: Callable[..., Gearmand]) -> None:
    first, second = gearmands(), gearmands(arguments=["--threads", "0", "--job-handle-prefix", "H:second"])
    assert first.port != second.port
    with first.connect() as one, second.connect() as two:
        assert not one.submit("f", b"").startswith(b"H:second")
        assert two.submit("f", b"").startswith(b"H:second")
    second.wait_for(lambda status: status.startswith("f\t1"))


def test_free_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", free_port())):
        pass


def test_c_worker_echoes_and_reverses(gearmand: Gearmand, c_worker: CWorker) -> None:
    with gearmand.connect() as connection:
        assert connection.call("echo", b"a\0b") == b"a\0b"
        assert connection.call("reverse", b"abc") == b"cba"


def test_tool_worker_runs_a_command_for_each_job(
    gearmand: Gearmand, tool_workers: Callable[..., GearmanToolWorker]
) -> None:
    tool_workers(gearmand, "copy")
    tool_workers(gearmand, "shout", "tr", "a-z", "A-Z")
    tool_workers(gearmand, "bad", "false")
    with gearmand.connect() as connection:
        assert connection.call("copy", b"as it is\n") == b"as it is\n"
        assert connection.call("shout", b"loud") == b"LOUD"
        assert connection.run("bad", b"")[-1].command == WORK_FAIL


def test_php_worker_sends_every_kind_of_packet(gearmand: Gearmand, php_worker: PhpWorker) -> None:
    with gearmand.connect() as connection:
        assert connection.request(OPTION_REQ, b"exceptions").command == OPTION_RES
        assert connection.call("reverse", b"abc") == b"cba"
        assert connection.call("upper", b"abc") == b"ABC"
        assert connection.call("sleep", b"1") == b"1"
        assert connection.call("slow", b"1:rest") == b"rest"
        assert [packet.command for packet in connection.run("fail", b"")] == [WORK_FAIL]
        (final,) = connection.run("exception", b"boom")
        assert (final.command, final.arguments(2)[1]) == (WORK_EXCEPTION, b"boom")
        seen = [(packet.command, packet.body.split(b"\0", 1)[1]) for packet in connection.run("stream", b"2")]
    assert seen == [
        (WORK_DATA, b"part 1"),
        (WORK_STATUS, b"1\x002"),
        (WORK_DATA, b"part 2"),
        (WORK_STATUS, b"2\x002"),
        (WORK_WARNING, b"last"),
        (WORK_COMPLETE, b"done"),
    ]


def test_process_workers_serve_several_servers_and_come_back_with_them(
    gearmands: Callable[..., Gearmand],
    php_workers: Callable[..., PhpWorker],
    c_workers: Callable[..., CWorker],
) -> None:
    servers = [gearmands(), gearmands()]
    php_workers(servers, prefix="php-")
    c_workers(servers, prefix="c-")
    servers[0].restart()
    for server in servers:
        server.wait_for(lambda status: "php-upper\t0\t0\t1" in status and "c-echo\t0\t0\t1" in status)
        with server.connect() as connection:
            assert connection.call("php-upper", b"abc") == b"ABC"
            assert connection.call("c-echo", b"abc") == b"abc"


def test_raw_worker_sends_packets_in_the_order_the_test_says(gearmand: Gearmand, raw_worker: RawWorker) -> None:
    with gearmand.connect() as connection:
        first = connection.submit("raw", b"1", b"u1")
        second = connection.submit("raw", b"2", b"u2")
        jobs = {job.handle.encode(): job for job in raw_worker.next_jobs(2)}
        assert (jobs[first].unique, jobs[first].data, jobs[first].function) == (b"u1", b"1", "raw")
        jobs[second].send_data(b"part")
        jobs[first].send_status(1, 2)
        jobs[second].complete(b"done")
        jobs[first].send_warning(b"careful")
        jobs[first].fail()
        seen = [(packet.command, packet.body.split(b"\0", 1)[0]) for packet in (connection.receive() for _ in range(5))]
        assert seen == [
            (WORK_DATA, second),
            (WORK_STATUS, first),
            (WORK_COMPLETE, second),
            (WORK_WARNING, first),
            (WORK_FAIL, first),
        ]
        jobs[first].complete(b"too late")
        wait_until(lambda: raw_worker.errors, message="the server refuses a second final packet")
        assert raw_worker.errors[0][0] == "JOB_NOT_FOUND"


def test_raw_worker_holds_no_more_jobs_than_told(gearmand: Gearmand, raw_workers: Callable[..., RawWorker]) -> None:
    worker = raw_workers(gearmand, "raw", max_jobs=1)
    with gearmand.connect() as connection:
        connection.submit("raw", b"1")
        connection.submit("raw", b"2")
        job = worker.next_job()
        assert (gearmand.jobs("raw"), gearmand.running_jobs("raw"), gearmand.workers("raw")) == (2, 1, 1)
        job.complete()
        worker.next_job().complete()
        assert [connection.receive().command for _ in range(2)] == [WORK_COMPLETE] * 2


def test_job_of_a_disconnected_raw_worker_goes_to_the_next(
    gearmand: Gearmand, raw_workers: Callable[..., RawWorker]
) -> None:
    lost = raw_workers(gearmand, "raw")
    with gearmand.connect() as connection:
        connection.submit("raw", b"data")
        lost.next_job()
        lost.disconnect()
        raw_workers(gearmand, "raw").next_job().complete(b"second try")
        assert connection.receive().arguments(2)[1] == b"second try"


def test_scripted_raw_worker_comes_back_with_its_server(gearmand: Gearmand, echo_worker: RawWorker) -> None:
    for _ in range(2):
        with gearmand.connect() as connection:
            assert connection.call("echo", b"abc") == b"abc"
            assert connection.call("reverse", b"abc") == b"cba"
        gearmand.restart()
        gearmand.wait_for(lambda status: "reverse" in status)


def test_error_in_a_script_of_a_raw_worker_is_raised_at_its_close(gearmand: Gearmand) -> None:
    def script(job: RawJob) -> None:
        raise KeyError(job.function)

    worker = RawWorker(gearmand, "raw", script)
    with gearmand.connect() as connection:
        assert connection.submit("raw", b"")
        wait_until(lambda: gearmand.workers("raw") == 0, message="the worker ends")
    with pytest.raises(AssertionError, match="KeyError"):
        worker.close()


def test_wait_until_returns_the_value_or_fails_with_the_message() -> None:
    values = iter([0, 0, 7])
    assert wait_until(lambda: next(values)) == 7
    with pytest.raises(AssertionError, match="never comes"):
        wait_until(lambda: False, timeout=0.01, message="never comes")


def test_leaks_of_descriptors_threads_and_processes_are_reported(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conftest, "SETTLE_TIME", 0.05)
    pytester.makeconftest("from tests.conftest import leak_check")
    pytester.makepyfile(
        """
        import socket, subprocess, sys, threading
        kept, gate = [], threading.Event()

        def test_socket():
            kept.append(socket.socket())

        def test_thread():
            kept.append(threading.Thread(target=gate.wait, name="gearman_pool-io", daemon=True))
            kept[-1].start()

        def test_process():
            kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

        def test_last_cleans_up():
            gate.set()
            kept[0].close()
            kept[1].join()
            kept[2].communicate()
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, errors=3)
    result.stdout.fnmatch_lines(
        [
            "*left behind: descriptor * (socket:*",
            "*left behind: thread gearman_pool-io (daemon)*",
            "*left behind: descriptor * (pipe:*; process *",
        ]
    )
