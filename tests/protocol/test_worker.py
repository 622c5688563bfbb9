"""The worker's state machine: bytes in, events out, whole and byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool.errors import ProtocolError
from gearman_pool.protocol.commands import Command
from gearman_pool.protocol.packets import RES, pack
from gearman_pool.protocol.session import NO_REPLY, REPLY, TEXT_LINE
from gearman_pool.protocol.worker import ASSIGNED, NOT_MINE, NOTHING, WOKEN, WorkerSession


def response(command: Command, *arguments: bytes) -> bytes:
    packet = pack(command, *arguments, magic=RES)
    return packet if isinstance(packet, bytes) else b"".join(packet)


def in_line(session: WorkerSession, *entries) -> None:
    session.order.extend(entry for entry in entries if entry[1] != NO_REPLY)


def feed(make, data: bytes, step: int) -> list:
    session = make()
    events = []
    for start in range(0, len(data), step):
        events += session.receive(data[start : start + step])
    return events


STREAM = b"".join(
    [
        response(Command.NO_JOB),
        response(Command.NOOP),
        response(Command.JOB_ASSIGN_UNIQ, b"H:a:1", b"task", b"unique", b"da\0ta"),
        response(Command.ERROR, b"JOB_NOT_FOUND", b"Job given in work result not found"),
        response(Command.JOB_ASSIGN, b"H:a:2", b"task", b""),
        response(Command.ECHO_RES, b"health"),
    ]
)
EVENTS = [
    (NOTHING, "first", None),
    (WOKEN, None, None),
    (ASSIGNED, "second", (b"H:a:1", b"task", b"unique", b"da\0ta")),
    (NOT_MINE, None, ("JOB_NOT_FOUND", "Job given in work result not found")),
    (ASSIGNED, "third", (b"H:a:2", b"task", b"", b"")),
    (REPLY, "echo", [b"health"]),
]


def session_with_questions() -> WorkerSession:
    session = WorkerSession()
    in_line(session, *[session.grab(token) for token in ("first", "second", "third")])
    in_line(session, (pack(Command.ECHO_REQ, b"health"), Command.ECHO_RES, "echo"))
    return session


@pytest.mark.parametrize("step", [1, 2, 3, 7, 13, 1000])
def test_events_do_not_depend_on_how_the_bytes_are_split(step):
    assert feed(session_with_questions, STREAM, step) == EVENTS


def test_greeting_says_who_it_is_and_what_it_can_do():
    session = WorkerSession(client_id=b"worker 7", abilities=[(b"plain", 0), (b"slow", 2500)])
    assert session.greeting() == [
        (pack(Command.SET_CLIENT_ID, b"worker 7"), NO_REPLY, None),
        (pack(Command.CAN_DO, b"plain"), NO_REPLY, None),
        (pack(Command.CAN_DO_TIMEOUT, b"slow", b"2500"), NO_REPLY, None),
    ]
    assert session.abilities == {b"plain": 0, b"slow": 2500}
    session.cant_do(b"plain")
    assert list(session.abilities) == [b"slow"]


def test_worker_without_a_name_sends_none():
    assert WorkerSession().greeting() == []


def test_worker_that_sleeps_is_told_when_it_is_woken():
    session = WorkerSession()
    assert session.sleep() == (pack(Command.PRE_SLEEP), NO_REPLY, None)
    assert session.receive(response(Command.NOOP)) == [(WOKEN, None, None)]


def test_error_is_not_taken_for_the_answer_to_a_question():
    session = session_with_questions()
    error = response(Command.ERROR, b"JOB_NOT_FOUND", b"")
    assert session.receive(error) == [(NOT_MINE, None, ("JOB_NOT_FOUND", ""))]
    assert session.receive(response(Command.NO_JOB)) == [(NOTHING, "first", None)]


@pytest.mark.parametrize(
    "data",
    [
        response(Command.JOB_ASSIGN_UNIQ, b"H:a:1", b"task", b"unique", b""),
        response(Command.JOB_ASSIGN, b"H:a:1", b"task", b""),
        response(Command.NO_JOB),
        response(Command.ECHO_RES, b""),
        response(Command.JOB_CREATED, b"H:a:1"),
    ],
)
def test_reply_to_nothing_is_a_protocol_error(data):
    with pytest.raises(ProtocolError):
        WorkerSession().receive(data)


def test_assignment_without_all_its_arguments_is_a_protocol_error():
    session = session_with_questions()
    with pytest.raises(ProtocolError, match="arguments"):
        session.receive(response(Command.JOB_ASSIGN_UNIQ, b"H:a:1", b"task"))


def test_answer_to_version_is_delivered():
    session = WorkerSession()
    in_line(session, (b"version\r\n", TEXT_LINE, "version"))
    assert session.receive(b"OK 1.1.20\n") == [(REPLY, "version", b"OK 1.1.20")]


@pytest.mark.parametrize(
    ("entry", "data", "event"),
    [
        (WorkerSession.grab("grab"), response(Command.NO_JOB), (NOTHING, "grab", None)),
        ((b"", Command.ECHO_RES, "echo"), response(Command.ECHO_RES, b"x"), (REPLY, "echo", [b"x"])),
    ],
)
def test_server_that_does_not_answer_version_is_understood_by_its_next_answer(entry, data, event):
    session = WorkerSession()
    in_line(session, (b"version\r\n", TEXT_LINE, "version"), entry)
    assert session.receive(data) == [(REPLY, "version", b""), event]


@given(st.binary(max_size=300), st.integers(1, 20))
def test_any_bytes_give_events_or_a_protocol_error(data, step):
    try:
        feed(session_with_questions, data, step)
    except ProtocolError:
        pass


@given(st.data())
def test_damaged_streams_give_events_or_a_protocol_error(data):
    position = data.draw(st.integers(0, len(STREAM) - 1))
    damaged = bytearray(STREAM)
    damaged[position] = data.draw(st.integers(0, 255))
    try:
        feed(session_with_questions, bytes(damaged), 5)
    except ProtocolError:
        pass
