"""The administrative commands as any server must answer them, and what the admin client makes of the answers."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from gearman_pool import GearmanAdminClient
from gearman_pool.errors import ServerError

from ..support.raw import CAN_DO, ERROR, SET_CLIENT_ID, SUBMIT_JOB_BG, SUBMIT_JOB_HIGH
from ..support.waiting import wait_until
from ..support.workers import RawWorker
from .servers import ConformanceServer


def background_job(server: ConformanceServer, task: str, unique: bytes, data: bytes = b"") -> str:
    with server.connect() as connection:
        return connection.submit(task, data, unique, SUBMIT_JOB_BG).decode()


# ---- the wire ------------------------------------------------------------------------------------------------------


def answer(server: ConformanceServer, sent: bytes, end: bytes) -> bytes:
    """What the server sends back, up to ``end``."""
    with server.connect() as connection:
        connection.sock.sendall(sent)
        received = b""
        while not received.endswith(end):
            received += connection.sock.recv(4096)
        return received


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (b"status", rb"f\t1\t0\t0\n\.\n"),
        (b"STATUS", rb"f\t1\t0\t0\n\.\n"),
        (b"prioritystatus", rb"f\t0\t1\t0\t0\n\.\n"),
        # The peer that made the job may be leaving just then: gearmand lists it with the descriptor -1.
        (b"workers", rb"((\d+|-1) 127\.0\.0\.1 - :\n)+\.\n"),
        (b"show jobs", rb"\S+\t0\t0\t1\n\.\n"),
        (b"show unique jobs", rb"u\n\.\n"),
        # A gearmand that was built outside its repository has no version.
        (b"version", rb"OK \S*\n"),
        (b"verbose", rb"OK \S+\n"),
        (b"getpid", rb"OK \d+\n"),
        (b"maxqueue f 5", rb"OK\r\n"),
        (b"maxqueue f", rb"OK\r\n"),
        (b"maxqueue f 1 2 3", rb"OK\r\n"),
        (b"maxqueue nobody 5", rb"OK\r\n"),
        (b"maxqueue", rb"ERR INVALID_ARGUMENTS \S+\r\n"),
        (b"cancel job H:nowhere:1", rb"ERR UNKNOWN_JOB \S*\r\n|ERR UNKNOWN_JOB\r\n"),
        (b"drop function nobody", rb"ERR function not found\r\n"),
        (b"show x", rb"ERR UNKNOWN_SHOW_ARGUMENTS \S*\r\n|ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
        (b"shutdown", rb"ERR UNKNOWN_COMMAND \S+\r\n"),
        (b"", rb"ERR UNKNOWN_COMMAND \S+\r\n"),
    ],
    ids=str,
)
def test_line_ends_of_commands_and_answers(
    server: ConformanceServer, command: bytes, expected: bytes, line_end: bytes
) -> None:
    background_job(server, "f", b"u")
    end = b".\n" if b"\\.\\n" in expected else b"\n"
    assert re.fullmatch(expected, answer(server, command + line_end, end))


def test_bare_newline_costs_a_created_function_its_last_letter(server: ConformanceServer) -> None:
    # Why the client ends every line with CRLF.
    assert answer(server, b"create function abc\n", b"\n") == b"OK\r\n"
    assert set(server.status()) == ({"ab"} if server.cuts_names_of_created_functions else {"abc"})


def test_commands_sent_together_are_answered_in_order(server: ConformanceServer, admin: GearmanAdminClient) -> None:
    handler = admin.current_handler
    commands = ["status", "maxqueue f 5", "cancel job H:nowhere:1", "version", "show jobs", "getpid"]
    for command in commands:
        handler.send_text_command(command)
    assert admin.wait_until_server_responds("status") == ()
    assert admin.wait_until_server_responds("maxqueue") == "OK"
    with pytest.raises(ServerError, match="UNKNOWN_JOB"):
        admin.wait_until_server_responds("cancel job")
    assert admin.wait_until_server_responds("version") == server.version
    assert admin.wait_until_server_responds("show jobs") == ()
    assert int(admin.wait_until_server_responds("getpid")) > 0


def test_errors_spoil_no_later_answer(server: ConformanceServer, admin: GearmanAdminClient) -> None:
    # python-gearman left the answer in its list, and the next call took it for its own.
    for _ in range(20):
        with pytest.raises(ServerError):
            admin.cancel_job("H:nowhere:1")
        with pytest.raises(ServerError):
            admin.drop_function("nobody")
        assert admin.send_maxqueue("f", 1) == "OK"
        assert admin.get_status() == ()
    wait_until(lambda: [row["client_id"] for row in admin.get_workers()] == ["-"], message="one connection is left")


# ---- looking -------------------------------------------------------------------------------------------------------


def test_status_counts_jobs_and_workers(
    server: ConformanceServer, admin: GearmanAdminClient, raw_workers: Callable[..., RawWorker]
) -> None:
    worker = raw_workers(server, "raw", max_jobs=1)
    assert admin.get_status() == ({"task": "raw", "queued": 0, "running": 0, "workers": 1},)
    background_job(server, "raw", b"1")
    job = worker.next_job()
    background_job(server, "raw", b"2")
    background_job(server, "other", b"3")
    rows = {row["task"]: row for row in admin.get_status()}
    assert rows == {
        "raw": {"task": "raw", "queued": 2, "running": 1, "workers": 1},
        "other": {"task": "other", "queued": 1, "running": 0, "workers": 0},
    }
    job.complete(b"")


def test_priority_status_counts_waiting_jobs_by_priority(server: ConformanceServer, admin: GearmanAdminClient) -> None:
    background_job(server, "resize", b"1")
    with server.connect() as connection:
        connection.submit("resize", b"", b"2", SUBMIT_JOB_HIGH)
        assert admin.get_priority_status() == ({"task": "resize", "high": 1, "normal": 1, "low": 0, "workers": 0},)


def test_names_of_any_kind_come_back(server: ConformanceServer, admin: GearmanAdminClient) -> None:
    names = {"größe", "a b", "a\tb", "ERR no error", ".", "a : b", "\udcff"}
    for number, name in enumerate(sorted(names)):
        with server.connect() as connection:
            wire_name = name.encode("utf-8", "surrogateescape")
            connection.send(SUBMIT_JOB_BG, wire_name, str(number).encode(), b"")
            connection.receive()
    assert {row["task"] for row in admin.get_status()} == names
    assert {row["task"] for row in admin.get_priority_status()} == names


def test_workers_lists_every_connection_with_its_id_and_functions(
    server: ConformanceServer, admin: GearmanAdminClient
) -> None:
    with server.connect() as worker:
        worker.send(SET_CLIENT_ID, b"my own worker")
        worker.send(CAN_DO, b"resize")
        worker.send(CAN_DO, b"mail")
        rows = wait_until(lambda: [row for row in admin.get_workers() if len(row["tasks"]) == 2])
    (row,) = rows
    assert row["client_id"] == "my own worker"
    assert set(row["tasks"]) == {"resize", "mail"}
    assert row["ip"] == "127.0.0.1"
    assert int(row["file_descriptor"]) > 0
    own = [row for row in admin.get_workers() if row["client_id"] == "-"]
    assert own
    assert own[0]["tasks"] == ()


def test_jobs_tell_retried_abandoned_cancelled_and_background_ones(
    server: ConformanceServer, admin: GearmanAdminClient, raw_workers: Callable[..., RawWorker]
) -> None:
    def state(handle: str) -> tuple[int, int, int]:
        (row,) = [row for row in admin.get_jobs() if row["handle"] == handle]
        assert (row["canceled"], row["enabled"]) == (row["ignored"], row["queued"])
        return row["retries"], row["ignored"], row["queued"]

    background = background_job(server, "raw", b"1")
    with server.connect() as client:
        foreground = client.submit("raw", b"", b"2").decode()
        assert (state(background), state(foreground)) == ((0, 0, 1), (0, 0, 0))
        worker = raw_workers(server, "raw")
        worker.next_jobs(2)
        assert (state(background), state(foreground)) == ((0, 0, 1), (0, 0, 0))
        worker.close()
        wait_until(lambda: (state(background), state(foreground)) == ((1, 0, 1), (1, 0, 0)))
    if not server.keeps_unwanted_jobs:
        wait_until(lambda: [row["handle"] for row in admin.get_jobs()] == [background])
        assert admin.cancel_job(background) == "OK"
        assert admin.get_jobs() == ()
        return
    wait_until(lambda: state(foreground) == (1, 1, 0))
    assert admin.cancel_job(background) == "OK"
    assert state(background) == (1, 1, 0)


def test_unique_jobs_are_listed(server: ConformanceServer, admin: GearmanAdminClient) -> None:
    assert admin.get_unique_jobs() == ()
    background_job(server, "a", b"one")
    background_job(server, "b", b"two\twords")
    assert {row["unique"] for row in admin.get_unique_jobs()} == {"one", "two\twords"}


def test_version_log_level_and_process_number_come_without_ok(
    server: ConformanceServer, admin: GearmanAdminClient
) -> None:
    assert admin.get_version() == server.version
    assert admin.get_verbose()
    assert "OK" not in admin.get_verbose()
    assert admin.get_pid() == str(server.pid)


def test_ping_gives_the_round_trip_in_seconds(admin: GearmanAdminClient) -> None:
    assert 0 < admin.ping_server() < 5


# ---- changing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["resize", "größe", b"bytes", "x" * 600])
def test_created_function_is_known_by_its_whole_name_until_it_is_dropped(
    admin: GearmanAdminClient, task: str | bytes
) -> None:
    name = task.decode() if isinstance(task, bytes) else task
    assert admin.create_function(task) == "OK"
    assert admin.create_function(task) == "OK"
    assert [row["task"] for row in admin.get_status()] == [name]
    assert admin.drop_function(task) == "OK"
    assert admin.get_status() == ()


def test_dropping_an_unknown_function_raises_what_the_server_says(
    server: ConformanceServer, admin: GearmanAdminClient
) -> None:
    with pytest.raises(ServerError, match="function not found") as caught:
        admin.drop_function("nobody")
    assert caught.value.text == "function not found"
    assert caught.value.server == server.address
    assert admin.get_pid() == str(server.pid)


def test_dropping_a_function_with_workers_raises(admin: GearmanAdminClient, raw_worker: RawWorker) -> None:
    with pytest.raises(ServerError, match="connected workers"):
        admin.drop_function("raw")


def test_cancelling_an_unknown_job_raises(admin: GearmanAdminClient) -> None:
    with pytest.raises(ServerError) as caught:
        admin.cancel_job("H:nowhere:1")
    assert caught.value.code == "UNKNOWN_JOB"
    assert "cancel job" in str(caught.value)


@pytest.mark.parametrize(
    ("size", "accepted"),
    [(1, 1), (2, 2), ((1, 2, 3), 2), ([5, 1], 1), ((3,), 3), (0, 9), (-1, 9), (None, 9)],
)
def test_maxqueue_limits_the_jobs_that_the_server_takes(
    server: ConformanceServer, admin: GearmanAdminClient, size: int | tuple[int, ...] | None, accepted: int
) -> None:
    admin.create_function("resize")
    assert admin.send_maxqueue("resize", 1) == "OK"
    assert admin.send_maxqueue("resize", size) == "OK"
    with server.connect() as connection:
        for number in range(accepted):
            connection.submit("resize", b"", str(number).encode(), SUBMIT_JOB_BG)
        if accepted < 9:
            packet = connection.request(SUBMIT_JOB_BG, b"resize", b"last", b"")
            assert packet.command == ERROR
            assert packet.body.startswith(b"QUEUE_ERROR")


@pytest.mark.parametrize("graceful", [True, False])
def test_shutdown_says_that_the_server_has_no_such_command(
    server: ConformanceServer, admin: GearmanAdminClient, graceful: bool
) -> None:
    with pytest.raises(ServerError, match=r"no command to shut it down .*SIGUSR1.*SIGTERM") as caught:
        admin.send_shutdown(graceful=graceful)
    assert caught.value.code == "UNKNOWN_COMMAND"
    assert admin.get_pid() == str(server.pid)
