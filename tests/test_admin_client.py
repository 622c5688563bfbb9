"""The admin client against a real gearmand, and against peers that behave otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gearman_pool.admin_client import GearmanAdminClient
from gearman_pool.errors import (
    ClientClosed,
    ConnectionLost,
    GearmanError,
    InvalidAdminClientState,
    ProtocolError,
    ServerError,
    ServerUnavailable,
)

from .support.gearmand import Gearmand, free_port
from .support.raw import SUBMIT_JOB_BG
from .support.scripted import ScriptedServer
from .support.waiting import wait_until


@pytest.fixture
def admin(gearmand: Gearmand) -> Iterator[GearmanAdminClient]:
    with GearmanAdminClient([gearmand.address]) as client:
        yield client


def background_job(server: Gearmand, task: str, unique: bytes, data: bytes = b"") -> str:
    with server.connect() as connection:
        return connection.submit(task, data, unique, SUBMIT_JOB_BG).decode()


# ---- what is refused here; what a server answers stands in ``conformance`` -------------------------------------------


@pytest.mark.parametrize("bad", ["", " ", "a b", "a\nstatus", "a\r", "a\0b", "x" * 8190])
def test_names_that_would_break_the_line_are_refused_before_anything_is_sent(bad: str) -> None:
    with GearmanAdminClient([f"127.0.0.1:{free_port()}"]) as admin:
        calls: list[Callable[[], object]] = [
            lambda: admin.create_function(bad),
            lambda: admin.drop_function(bad),
            lambda: admin.cancel_job(bad),
            lambda: admin.send_maxqueue(bad, 1),
        ]
        for call in calls:
            with pytest.raises(ValueError):
                call()
        assert not [t for t in threading.enumerate() if t.name.startswith("gearman_pool-admin")]


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (1.5, TypeError),
        ("3", TypeError),
        (True, TypeError),
        ((), ValueError),
        ((1, 2, 3, 4), ValueError),
        (2**31, ValueError),
    ],
)
def test_sizes_that_the_server_would_misread_are_refused(size: object, error: type[Exception]) -> None:
    with GearmanAdminClient(["127.0.0.1"]) as admin, pytest.raises(error, match="max_size"):
        admin.send_maxqueue("resize", size)  # type: ignore[arg-type]


# ---- one server, and its options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hosts", [None, [], ["a", "b"], "a,b", "gearman://a,b"])
def test_exactly_one_server_is_taken(hosts: object) -> None:
    with pytest.raises(ValueError, match="exactly one server"):
        GearmanAdminClient(hosts)  # type: ignore[arg-type]


def test_server_can_be_given_in_every_form(gearmand: Gearmand) -> None:
    forms = [
        [gearmand.address],
        gearmand.address,
        [gearmand.endpoint],
        f"gearman://{gearmand.address}/?connect_timeout=2",
    ]
    for form in forms:
        with GearmanAdminClient(form) as admin:
            assert admin.get_pid() == str(gearmand.pid)
    with GearmanAdminClient(forms[-1]) as admin:
        assert admin.options.connect_timeout == 2


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_poll_timeout_that_is_no_duration_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="poll_timeout"):
        GearmanAdminClient(["127.0.0.1"], poll_timeout=timeout)


def test_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="conect_timeout"):
        GearmanAdminClient(["127.0.0.1"], conect_timeout=1)  # type: ignore[call-arg]


def test_making_one_starts_no_thread_and_opens_no_socket(gearmand: Gearmand) -> None:
    threads = threading.active_count()
    with GearmanAdminClient([gearmand.address], name="idle") as admin:
        assert repr(admin) == f"<GearmanAdminClient {gearmand.address} DOWN>"
        assert threading.active_count() == threads
        # The server forgets those that the test itself made a moment after their end.
        wait_until(lambda: gearmand.connections() == 0)
        admin.establish_admin_connection()
        admin.establish_admin_connection()
        assert repr(admin) == f"<GearmanAdminClient {gearmand.address} UP>"
        wait_until(lambda: gearmand.connections() == 1)
        assert any(t.name == "gearman_pool-admin-idle" for t in threading.enumerate())
    assert repr(admin) == f"<GearmanAdminClient {gearmand.address} closed>"


# ---- trouble -------------------------------------------------------------------------------------------------------


def test_dead_server_is_reported_at_once_and_every_time() -> None:
    address = f"127.0.0.1:{free_port()}"
    with GearmanAdminClient([address], poll_timeout=60) as admin:
        for call in (admin.establish_admin_connection, admin.get_status, admin.ping_server):
            with pytest.raises(ServerUnavailable, match=re.escape(address)) as caught:
                call()
            assert list(caught.value.servers) == [address]
            assert not caught.value.maybe_sent


def test_next_call_after_a_restart_finds_the_server_again(gearmand: Gearmand, admin: GearmanAdminClient) -> None:
    assert admin.get_pid() == str(gearmand.pid)
    for _ in range(3):
        gearmand.restart()

        def ask() -> str:
            try:
                return admin.get_pid()
            except (ConnectionLost, ServerUnavailable):
                return ""

        assert wait_until(ask) == str(gearmand.pid)


def test_frozen_server_is_given_up_after_poll_timeout(gearmand: Gearmand) -> None:
    with GearmanAdminClient([gearmand.address]) as admin:
        admin.establish_admin_connection()
        admin.poll_timeout = 0.3
        gearmand.pause()
        with pytest.raises(InvalidAdminClientState, match=r"'status' within poll_timeout \(0.3 s\)") as caught:
            admin.get_status()
        assert caught.value.maybe_sent
        gearmand.resume()
        admin.poll_timeout = 10.0
        assert wait_until(admin.get_pid) == str(gearmand.pid)


def test_closed_client_refuses_calls(gearmand: Gearmand) -> None:
    admin = GearmanAdminClient([gearmand.address])
    admin.get_status()
    admin.close()
    admin.close()
    admin.shutdown()
    with pytest.raises(ClientClosed, match="closed"):
        admin.get_status()
    unused = GearmanAdminClient([gearmand.address])
    unused.close()
    with pytest.raises(ClientClosed, match="closed"):
        unused.ping_server()


def test_close_ends_calls_that_wait_in_other_threads(gearmand: Gearmand) -> None:
    admin = GearmanAdminClient([gearmand.address])
    admin.establish_admin_connection()
    gearmand.pause()
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(admin.get_status) for _ in range(4)]
        wait_until(lambda: all(call.running() for call in calls))
        admin.close()
        for call in calls:
            with pytest.raises(ClientClosed):
                call.result(10)
    gearmand.resume()


def test_client_that_was_not_closed_warns_and_leaves_nothing_behind(gearmand: Gearmand) -> None:
    admin = GearmanAdminClient([gearmand.address])
    admin.get_status()
    with pytest.warns(ResourceWarning, match="was not closed"):
        del admin
    wait_until(lambda: gearmand.connections() == 0)


def test_each_of_many_threads_gets_the_answers_to_its_own_questions(
    gearmand: Gearmand, admin: GearmanAdminClient
) -> None:
    pid, version = str(gearmand.pid), admin.get_version()
    for number in range(50):
        background_job(gearmand, f"task{number}", b"u%d" % number)
    failed: list[object] = []

    def ask(_: int) -> None:
        for _ in range(20):
            if admin.get_pid() != pid or admin.get_version() != version:
                failed.append("a line")
            if len(admin.get_status()) != 50 or len(admin.get_jobs()) != 50 or len(admin.get_unique_jobs()) != 50:
                failed.append("a block")
            if admin.ping_server() <= 0:
                failed.append("an echo")
            try:
                admin.cancel_job("H:nowhere:1")
            except ServerError:
                continue
            failed.append("no error")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))
    assert failed == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_child_of_a_fork_asks_on_a_connection_of_its_own(gearmand: Gearmand) -> None:
    # In an interpreter of its own: pytest's has threads, with which a fork is not for every Python.
    program = f"""
import os
from gearman_pool.admin_client import GearmanAdminClient
with GearmanAdminClient(["{gearmand.address}"]) as admin:
    before = admin.get_version()
    child = os.fork()
    if child == 0:
        same = admin.get_version() == before and len(admin.get_workers()) >= 2
        admin.close()
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert admin.get_version() == before
print("done")
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (result.stdout, result.stderr) == ("done\n", "")


# ---- python-gearman's way in two steps -----------------------------------------------------------------------------


def test_commands_can_be_sent_first_and_waited_for_later(gearmand: Gearmand, admin: GearmanAdminClient) -> None:
    handler = admin.current_handler
    handler.send_text_command("create function resize")
    handler.send_text_command("status")
    handler.send_echo_request("hello")
    handler.send_text_command("getpid")
    assert admin.wait_until_server_responds("create function") == "OK"
    assert admin.wait_until_server_responds("status") == ({"task": "resize", "queued": 0, "running": 0, "workers": 0},)
    assert admin.wait_until_server_responds(16) == "hello"
    wait_until(lambda: handler.response_ready)
    assert handler.pop_response() == ("getpid", str(gearmand.pid))
    assert not handler.response_ready


def test_commands_sent_while_it_connects_keep_their_order(gearmand: Gearmand) -> None:
    for number in range(300):
        task = f"task{number}"
        with GearmanAdminClient([gearmand.address]) as admin:
            admin.current_handler.send_text_command(f"create function {task}")
            # The second comes at another moment of connecting each time.
            deadline = time.perf_counter() + number % 50 * 4e-5
            while time.perf_counter() < deadline:
                pass
            admin.current_handler.send_text_command("status")
            assert admin.wait_until_server_responds("create function") == "OK"
            assert task in {row["task"] for row in admin.wait_until_server_responds("status")}
            admin.drop_function(task)


def test_waiting_for_what_was_not_sent_is_refused(admin: GearmanAdminClient) -> None:
    with pytest.raises(InvalidAdminClientState, match="no command was sent"):
        admin.wait_until_server_responds("status")
    admin.current_handler.send_text_command("version")
    with pytest.raises(InvalidAdminClientState, match="'version', not to 'status'"):
        admin.wait_until_server_responds("status")
    with pytest.raises(ProtocolError, match="'help' is not an administrative command"):
        admin.current_handler.send_text_command("help")
    assert admin.get_status() == ()


def test_handler_of_one_thread_does_not_see_the_answers_of_another(admin: GearmanAdminClient) -> None:
    admin.current_handler.send_text_command("version")

    def other() -> None:
        with pytest.raises(InvalidAdminClientState, match="no command was sent"):
            admin.wait_until_server_responds("version")

    with ThreadPoolExecutor(1) as thread:
        thread.submit(other).result(10)
    assert admin.wait_until_server_responds("version") == admin.get_version()


# ---- peers that are not gearmand -----------------------------------------------------------------------------------


def test_server_that_ignores_a_command_is_noticed_at_once_and_mixes_nothing_up() -> None:
    with (
        ScriptedServer(texts={b"status": b"a\t0\t0\t0\nb\t0\t0\t0\n.\n"}) as server,
        GearmanAdminClient([server.address], poll_timeout=60) as admin,
    ):
        assert [row["task"] for row in admin.get_status()] == ["a", "b"]
        with pytest.raises(
            ProtocolError, match=r"did not answer 'getpid' as gearmand does .* may not know the command"
        ):
            admin.get_pid()
        # Both are on their way when it is noticed that the first one was ignored.
        admin.current_handler.send_text_command("version")
        admin.current_handler.send_text_command("status")
        with pytest.raises(ProtocolError, match="'version'"):
            admin.wait_until_server_responds("version")
        with pytest.raises(GearmanError):
            admin.wait_until_server_responds("status")
        assert [row["task"] for row in admin.get_status()] == ["a", "b"]


def test_server_with_a_shutdown_command_is_shut_down() -> None:
    with ScriptedServer(texts={b"shutdown graceful": b"OK\n"}) as server, GearmanAdminClient([server.address]) as admin:
        admin.send_shutdown()
        with pytest.raises(ProtocolError):
            admin.send_shutdown(graceful=False)


def test_connection_lost_before_the_answer_is_reported_and_replaced() -> None:
    with (
        ScriptedServer(texts={b"status": None, b"version": b"1.130\n"}) as server,
        GearmanAdminClient([server.address]) as admin,
    ):
        with pytest.raises(ConnectionLost):
            admin.get_status()
        assert admin.get_version() == "1.130"


@pytest.mark.parametrize("answer", [b"OK \n", b"OK\n", b"OK \r\n", b"\n"])
def test_version_of_a_server_that_was_built_without_it_is_empty(answer: bytes) -> None:
    with (
        ScriptedServer(texts={b"version": answer, b"getpid": b"OK 7\n"}) as server,
        GearmanAdminClient([server.address]) as admin,
    ):
        admin.current_handler.send_text_command("version")
        admin.current_handler.send_text_command("getpid")
        assert admin.wait_until_server_responds("version") == ""
        assert admin.wait_until_server_responds("getpid") == "7"
        assert (admin.get_version(), admin.get_pid()) == ("", "7")
        assert len(server.connections) == 1


@pytest.mark.parametrize("answer", [b"a\t1\n.\n", b"ERR UNKNOWN_COMMAND Unknown+server+command\r\n"])
def test_bad_answer_does_not_spoil_the_next(answer: bytes) -> None:
    with (
        ScriptedServer(texts={b"status": answer, b"getpid": b"OK 7\n"}) as server,
        GearmanAdminClient([server.address]) as admin,
    ):
        with pytest.raises((ProtocolError, ServerError)):
            admin.get_status()
        assert admin.get_pid() == "7"
        assert len(server.connections) == 1
