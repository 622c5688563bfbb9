"""What a server owes workers and clients on the wire, asked with raw sockets: order, queues, wake-ups, refusals."""

from __future__ import annotations

import struct
import time

import pytest

from ..support.raw import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GET_STATUS,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    RESET_ABILITIES,
    SET_CLIENT_ID,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_REDUCE_JOB,
    SUBMIT_REDUCE_JOB_BACKGROUND,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)
from ..support.waiting import wait_until


@pytest.fixture
def raw(server):
    """A connection of the test's own."""
    with server.connect() as connection:
        yield connection


@pytest.fixture
def other(server):
    """Another one."""
    with server.connect() as connection:
        yield connection


def settled(connection):
    """Wait until the server has obeyed all that this connection has sent; nothing may have come meanwhile."""
    assert connection.request(ECHO_REQ, b"settled").command == ECHO_RES


# ---- the order of jobs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("high", "normal", "low"),
    [
        (SUBMIT_JOB_HIGH, SUBMIT_JOB, SUBMIT_JOB_LOW),
        (SUBMIT_JOB_HIGH_BG, SUBMIT_JOB_BG, SUBMIT_JOB_LOW_BG),
        (SUBMIT_JOB_HIGH, SUBMIT_JOB_BG, SUBMIT_JOB_LOW),
    ],
    ids=["foreground", "background", "mixed"],
)
def test_jobs_come_by_priority_and_within_one_in_the_order_of_their_submission(raw, other, high, normal, low):
    for number in range(3):
        for name, command in [("low", low), ("normal", normal), ("high", high)]:
            raw.submit("f", b"%s %d" % (name.encode(), number), b"%s%d" % (name.encode(), number), command)
    other.send(CAN_DO, b"f")
    order = []
    for _ in range(9):
        handle, _, data = other.request(GRAB_JOB).arguments(3)
        other.send(WORK_COMPLETE, handle, b"")
        order.append(data.decode())
    assert order == [f"{name} {number}" for name in ("high", "normal", "low") for number in range(3)]
    assert other.request(GRAB_JOB).command == NO_JOB


def test_job_of_high_priority_overtakes_those_that_were_there_before_it(raw, other):
    other.send(CAN_DO, b"f")
    raw.submit("f", b"first", b"1", SUBMIT_JOB_LOW)
    raw.submit("f", b"second", b"2", SUBMIT_JOB)
    assert other.request(GRAB_JOB).arguments(3)[2] == b"second"
    raw.submit("f", b"third", b"3", SUBMIT_JOB_HIGH)
    assert other.request(GRAB_JOB).arguments(3)[2] == b"third"
    assert other.request(GRAB_JOB).arguments(3)[2] == b"first"


# ---- jobs that go back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [RESET_ABILITIES, CANT_DO], ids=["RESET_ABILITIES", "CANT_DO"])
def test_job_whose_worker_takes_the_task_back_goes_to_another_and_the_late_result_is_refused(
    server, raw, other, command
):
    # Why a worker must not send either while it runs a job. python-gearman did so for each task that was registered.
    handle = raw.submit("f", b"data", b"u")
    with server.connect() as worker:
        worker.send(CAN_DO, b"f")
        assert worker.request(GRAB_JOB).arguments(3)[0] == handle
        worker.send(WORK_STATUS, handle, b"1", b"2")
        assert raw.expect(WORK_STATUS).arguments(3) == [handle, b"1", b"2"]
        worker.send(command, *([b"f"] if command == CANT_DO else []))
        settled(worker)
        # It waits again, and its status has gone; the client is told nothing.
        assert raw.request(GET_STATUS, handle).arguments(5) == [handle, b"1", b"0", b"0", b"0"]
        assert server.status()["f"] == (1, 0, 0)
        worker.send(WORK_COMPLETE, handle, b"late")
        assert worker.expect(ERROR).arguments(2)[0] == b"JOB_NOT_FOUND"
        other.send(CAN_DO, b"f")
        assert other.request(GRAB_JOB).arguments(3)[0] == handle
        other.send(WORK_COMPLETE, handle, b"right")
        assert raw.expect(WORK_COMPLETE).body == handle + b"\0right"


def test_job_of_another_task_than_the_one_that_is_taken_back_stays_with_its_worker(server, raw, other):
    handle = raw.submit("f", b"data")
    for task in (b"f", b"g"):
        other.send(CAN_DO, task)
    assert other.request(GRAB_JOB).arguments(3)[0] == handle
    other.send(CANT_DO, b"g")
    other.send(WORK_COMPLETE, handle, b"right")
    assert raw.expect(WORK_COMPLETE).body == handle + b"\0right"


def test_job_that_outlives_its_time_limit_goes_to_another_worker(server, raw, other):
    # 1 second is the least that a server takes: a limit of 1 ms is one of 1 s.
    with server.connect() as slow:
        slow.send(CAN_DO_TIMEOUT, b"f", b"1")
        handle = raw.submit("f", b"data")
        started = time.monotonic()
        assert slow.request(GRAB_JOB).arguments(3)[0] == handle
        wait_until(lambda: server.running_jobs("f") == 0, timeout=20, message="the job goes back")
        assert time.monotonic() - started > 0.9
        assert server.jobs("f") == 1
        slow.send(WORK_COMPLETE, handle, b"late")
        assert slow.expect(ERROR).arguments(2)[0] == b"JOB_NOT_FOUND"
        other.send(CAN_DO, b"f")
        assert other.request(GRAB_JOB).arguments(3)[0] == handle
        other.send(WORK_COMPLETE, handle, b"right")
        assert raw.expect(WORK_COMPLETE).body == handle + b"\0right"


def test_job_is_tried_without_end_where_the_server_has_no_limit(server, raw):
    handle = raw.submit("f", b"data", b"u")
    for attempt in range(6):
        with server.connect() as worker:
            worker.send(CAN_DO, b"f")
            assert worker.request(GRAB_JOB).arguments(3)[0] == handle, f"attempt {attempt + 1}"
        wait_until(lambda: server.running_jobs("f") == 0, message="the server has noticed")
    assert raw.request(GET_STATUS, handle).arguments(5)[1:3] == [b"1", b"0"]


# ---- kinds of jobs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [SUBMIT_REDUCE_JOB, SUBMIT_REDUCE_JOB_BACKGROUND], ids=["foreground", "background"])
@pytest.mark.parametrize("aggregator", [b"", b"sum"])
def test_reduce_job_comes_with_its_reducer_to_a_worker_that_asks_for_all(raw, other, command, aggregator):
    raw.send(command, b"f", b"u", b"reducer", aggregator, b"da\0ta")
    handle = raw.expect(JOB_CREATED).body
    other.send(CAN_DO, b"f")
    packet = other.request(GRAB_JOB_ALL)
    assert packet.command == JOB_ASSIGN_ALL
    assert packet.arguments(5) == [handle, b"f", b"u", b"reducer", b"da\0ta"]
    other.send(WORK_COMPLETE, handle, b"r")
    if command == SUBMIT_REDUCE_JOB:
        assert raw.expect(WORK_COMPLETE).body == handle + b"\0r"
    settled(raw)


def test_reduce_job_is_an_ordinary_one_to_a_worker_that_asks_for_less(raw, other):
    other.send(CAN_DO, b"f")
    for number, (grab, answer, more) in enumerate(
        [(GRAB_JOB, JOB_ASSIGN, []), (GRAB_JOB_UNIQ, JOB_ASSIGN_UNIQ, [b"u"])]
    ):
        raw.send(SUBMIT_REDUCE_JOB_BACKGROUND, b"f", b"u", b"reducer", b"", b"data %d" % number)
        handle = raw.expect(JOB_CREATED).body
        packet = other.request(grab)
        assert packet.command == answer
        assert packet.arguments(3 + len(more)) == [handle, b"f", *more, b"data %d" % number]
        other.send(WORK_COMPLETE, handle, b"")
        settled(other)


def test_worker_that_asks_for_all_gets_the_unique_of_an_ordinary_job(raw, other):
    handle = raw.submit("f", b"data", b"u")
    other.send(CAN_DO, b"f")
    packet = other.request(GRAB_JOB_ALL)
    assert packet.command == JOB_ASSIGN_UNIQ
    assert packet.arguments(4) == [handle, b"f", b"u", b"data"]


# ---- waking --------------------------------------------------------------------------------------------------------


def test_sleeping_worker_is_woken_once_until_it_asks_for_a_job(raw, other):
    other.send(CAN_DO, b"f")
    other.send(PRE_SLEEP)
    settled(other)
    for number in range(5):
        raw.submit("f", b"%d" % number, b"%d" % number, SUBMIT_JOB_BG)
    other.expect(NOOP)
    # No further NOOP stands before the answer, though four more jobs have come.
    settled(other)
    assert other.request(GRAB_JOB).arguments(3)[2] == b"0"
    # It is awake: jobs that come now wake nobody.
    raw.submit("f", b"5", b"5", SUBMIT_JOB_BG)
    settled(other)
    for number in range(1, 6):
        assert other.request(GRAB_JOB).arguments(3)[2] == b"%d" % number
    assert other.request(GRAB_JOB).command == NO_JOB
    other.send(PRE_SLEEP)
    settled(other)
    raw.submit("f", b"6", b"6", SUBMIT_JOB_BG)
    other.expect(NOOP)
    settled(other)


def test_worker_that_goes_to_sleep_while_a_job_waits_is_woken_at_once(raw, other):
    raw.submit("f", b"data")
    other.send(CAN_DO, b"f")
    other.send(PRE_SLEEP)
    other.expect(NOOP)
    settled(other)


def test_job_wakes_sleeping_workers_of_its_task_and_no_others(server, raw, other):
    with server.connect() as unable:
        unable.send(CAN_DO, b"g")
        other.send(CAN_DO, b"f")
        for connection in (unable, other):
            connection.send(PRE_SLEEP)
            settled(connection)
        raw.submit("f", b"data")
        other.expect(NOOP)
        settled(unable)


# ---- refusals ------------------------------------------------------------------------------------------------------

_RESULTS = {
    "WORK_DATA": (WORK_DATA, b"x"),
    "WORK_WARNING": (WORK_WARNING, b"x"),
    "WORK_STATUS": (WORK_STATUS, b"1", b"2"),
    "WORK_COMPLETE": (WORK_COMPLETE, b"x"),
    "WORK_EXCEPTION": (WORK_EXCEPTION, b"x"),
    "WORK_FAIL": (WORK_FAIL,),
}


@pytest.mark.parametrize("result", list(_RESULTS))
def test_what_is_sent_for_a_job_of_another_worker_is_refused_and_does_not_reach_its_client(raw, server, other, result):
    command, *more = _RESULTS[result]
    handle = raw.submit("f", b"data", b"u")
    with server.connect() as owner:
        for worker in (owner, other):
            worker.send(CAN_DO, b"f")
        assert owner.request(GRAB_JOB).arguments(3)[0] == handle
        for name in (handle, b"H:nowhere:1"):
            other.send(command, name, *more)
            assert other.expect(ERROR).arguments(2)[0] == b"JOB_NOT_FOUND"
        # The client gets what the owner sends, and that alone.
        owner.send(WORK_COMPLETE, handle, b"right")
        assert raw.receive() == (b"\0RES", WORK_COMPLETE, handle + b"\0right")
        # Nor is it the owner's any more.
        owner.send(command, handle, *more)
        assert owner.expect(ERROR).arguments(2)[0] == b"JOB_NOT_FOUND"
        settled(owner)


@pytest.mark.parametrize("command", [SUBMIT_JOB, ECHO_REQ, ECHO_RES, NOOP, CAN_DO, 5], ids=str)
def test_packet_with_the_magic_of_an_answer_is_refused_and_the_connection_goes_on(server, raw, command):
    body = {SUBMIT_JOB: b"f\0u\0data", CAN_DO: b"f"}.get(command, b"")
    raw.sock.sendall(b"\0RES" + struct.pack(">II", command, len(body)) + body)
    assert raw.expect(ERROR).arguments(2)[0] == b"INVALID_MAGIC"
    settled(raw)
    assert server.status() == {}


@pytest.mark.parametrize("command", [GRAB_JOB, GRAB_JOB_UNIQ, GRAB_JOB_ALL, PRE_SLEEP, RESET_ABILITIES], ids=str)
def test_payload_where_none_belongs_is_ignored(raw, command):
    raw.send(CAN_DO, b"f")
    raw.send(command, b"payload")
    if command in (GRAB_JOB, GRAB_JOB_UNIQ, GRAB_JOB_ALL):
        raw.expect(NO_JOB)
    settled(raw)


@pytest.mark.parametrize(("length", "kept"), [(126, 126), (127, 127), (128, 127), (300, 127)])
def test_name_of_a_worker_is_cut_to_127_bytes(server, raw, length, kept):
    raw.send(SET_CLIENT_ID, b"x" * length)
    settled(raw)
    assert f" {'x' * kept} :" in server.text("workers")
