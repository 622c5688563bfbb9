"""The client's state machine for one connection, with bytes alone."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool.errors import ProtocolError
from gearman_pool.protocol.client import (
    COMPLETE,
    CREATED,
    DATA,
    EXCEPTION,
    FAIL,
    LATE,
    STATUS,
    WARNING,
    ClientSession,
    number,
    submit_reply,
)
from gearman_pool.protocol.commands import Command
from gearman_pool.protocol.packets import RES
from gearman_pool.protocol.session import ERROR, REPLY, TEXT_LINE


def _wire(command: int, *arguments: bytes) -> bytes:
    body = b"\0".join(arguments)
    return RES + struct.pack(">II", command, len(body)) + body


def _session(*tokens: str, background: tuple[str, ...] = ()) -> ClientSession:
    session = ClientSession()
    for token in tokens:
        session.order.append((b"packet", submit_reply(token in background), token))
    return session


def _created(handle: str) -> bytes:
    return _wire(Command.JOB_CREATED, handle.encode())


def test_replies_are_matched_by_order_and_updates_by_handle():
    session = _session("a", "b")
    events = session.receive(
        _created("H:1")
        + _wire(Command.WORK_DATA, b"H:1", b"x\0y")
        + _created("H:2")
        + _wire(Command.WORK_STATUS, b"H:2", b"1", b"2")
        + _wire(Command.WORK_WARNING, b"H:1", b"w")
        + _wire(Command.WORK_COMPLETE, b"H:2", b"two")
        + _wire(Command.WORK_EXCEPTION, b"H:1", b"why")
    )
    assert events == [
        (CREATED, "a", "H:1"),
        (DATA, "a", b"x\0y"),
        (CREATED, "b", "H:2"),
        (STATUS, "b", (1, 2)),
        (WARNING, "a", b"w"),
        (COMPLETE, "b", b"two"),
        (EXCEPTION, "a", b"why"),
    ]
    assert not session.handles
    assert not session.order


@pytest.mark.parametrize("handle", [b"H:1", b"H:1\0"])
def test_work_fail_ends_the_job_with_and_without_a_trailing_nul(handle):
    session = _session("a")
    assert session.receive(_created("H:1") + _wire(Command.WORK_FAIL, handle))[1] == (FAIL, "a", None)


def test_error_answers_the_request_at_the_head():
    session = _session("a", "b", "c")
    events = session.receive(_created("H:1") + _wire(Command.ERROR, b"QUEUE_ERROR", b"full") + _created("H:3"))
    assert events == [(CREATED, "a", "H:1"), (ERROR, "b", ("QUEUE_ERROR", "full")), (CREATED, "c", "H:3")]


def test_background_job_leaves_nothing_behind():
    session = _session("a", background=("a",))
    assert session.receive(_created("H:1")) == [(CREATED, "a", "H:1")]
    assert not session.handles


def test_packets_of_unknown_handles_are_late_and_no_error():
    session = _session()
    assert session.receive(_wire(Command.WORK_COMPLETE, b"H:9", b"")) == [(LATE, None, Command.WORK_COMPLETE)]
    assert session.receive(_wire(Command.WORK_FAIL, b"H:9")) == [(LATE, None, Command.WORK_FAIL)]


def test_forgotten_job_gets_nothing_more():
    session = _session("a")
    session.receive(_created("H:1"))
    session.forget("H:1", "a")
    assert not session.handles
    assert session.receive(_wire(Command.WORK_COMPLETE, b"H:1", b"")) == [(LATE, None, Command.WORK_COMPLETE)]


def test_job_that_joins_a_forgotten_one_sees_each_update_once():
    session = _session("a", "b", "c")
    session.receive(_created("H:1"))
    session.forget("H:1", "a")
    session.receive(_created("H:1"))
    session.forget("H:1", "b")
    session.receive(_created("H:1"))
    copies = [_wire(Command.WORK_DATA, b"H:1", b"x"), _wire(Command.WORK_COMPLETE, b"H:1", b"r")]
    events = session.receive(b"".join(copy * 3 for copy in copies))
    late = [(LATE, None, Command.WORK_DATA)] * 2, [(LATE, None, Command.WORK_COMPLETE)] * 2
    assert events == [*late[0], (DATA, "c", b"x"), *late[1], (COMPLETE, "c", b"r")]
    assert not session.handles
    assert not session._forgotten


def test_what_is_kept_of_forgotten_jobs_is_bounded():
    session = ClientSession()
    for each in range(3000):
        session.order.append((b"", Command.JOB_CREATED, "job"))
        session.receive(_created(f"H:{each}"))
        session.forget(f"H:{each}", "job")
    assert not session.handles
    assert len(session._forgotten) == 1000
    for each in range(3000):
        session.receive(_wire(Command.WORK_COMPLETE, f"H:{each}".encode(), b""))
    assert not session._forgotten


def test_two_submits_of_one_unique_share_a_handle_and_each_sees_each_update_once():
    session = _session("a", "b")
    session.receive(_created("H:1") + _wire(Command.WORK_DATA, b"H:1", b"early") + _created("H:1"))
    copies = [_wire(Command.WORK_DATA, b"H:1", b"x"), _wire(Command.WORK_COMPLETE, b"H:1", b"r")]
    events = session.receive(b"".join(copy * 2 for copy in copies))
    assert events == [(DATA, "a", b"x"), (DATA, "b", b"x"), (COMPLETE, "a", b"r"), (COMPLETE, "b", b"r")]
    assert not session.handles


def test_forgotten_member_of_a_shared_handle_still_takes_its_copies():
    session = _session("a", "b")
    session.receive(_created("H:1") * 2)
    session.forget("H:1", "a")
    assert session.find("H:1") == "b"
    events = session.receive(
        _wire(Command.WORK_DATA, b"H:1", b"x") * 2 + _wire(Command.WORK_COMPLETE, b"H:1", b"r") * 2
    )
    assert [event[1] for event in events] == [None, "b", None, "b"]
    session = _session("a", "b")
    session.receive(_created("H:1") * 2)
    session.forget("H:1", "a")
    session.forget("H:1", "b")
    assert not session.handles


def test_abandon_returns_every_accepted_job():
    session = _session("a", "b", "c", "d")
    session.receive(_created("H:1") * 2 + _created("H:3"))
    assert sorted(session.abandon()) == ["a", "b", "c"]
    assert not session.handles
    assert not session.order


@pytest.mark.parametrize(
    "data",
    [
        _created("H:1"),
        _wire(Command.ECHO_RES, b""),
        _wire(Command.ERROR, b"X", b"y"),
        b"OK\n",
    ],
)
def test_reply_that_nobody_asked_for_is_a_protocol_error(data):
    with pytest.raises(ProtocolError, match="no request was waiting"):
        _session().receive(data)


@pytest.mark.parametrize("data", [_wire(Command.ECHO_RES, b"x"), _wire(Command.STATUS_RES, *[b"0"] * 5), b"OK\n"])
def test_reply_out_of_order_is_a_protocol_error(data):
    with pytest.raises(ProtocolError, match="JOB_CREATED was due"):
        _session("a").receive(data)


@pytest.mark.parametrize("jobs", [(), ("a",)])
def test_line_that_nobody_asked_for_is_refused_before_its_end(jobs):
    # A corrupted stream may never have a line end; the peer would seem alive as long as it sends anything.
    with pytest.raises(ProtocolError, match="bytes that start no packet"):
        _session(*jobs).receive(b"\xffRES")


def test_beginning_of_a_line_that_is_due_is_waited_for():
    session = _session()
    session.order.append((b"cancel job H:1\r\n", TEXT_LINE, "cancel"))
    assert session.receive(b"O") == []
    assert session.receive(b"K\r\n") == [(REPLY, "cancel", b"OK")]


def test_what_came_before_a_protocol_error_counts_and_the_next_call_raises_it():
    session = _session("a", "b")
    done = _created("H:1") + _wire(Command.WORK_COMPLETE, b"H:1", b"result")
    assert session.receive(done + b"\0garbage" + _created("H:2")) == [(CREATED, "a", "H:1"), (COMPLETE, "a", b"result")]
    with pytest.raises(ProtocolError) as raised:
        session.receive(b"")
    assert raised.value is session.failure


def test_echo_before_the_job_created_that_was_due_shows_a_lost_reply():
    session = _session("a")
    session.order.append((b"", Command.ECHO_RES, "probe"))
    with pytest.raises(ProtocolError, match="order of replies is in doubt"):
        session.receive(_wire(Command.ECHO_RES, b""))


@pytest.mark.parametrize(
    "command",
    [Command.WORK_COMPLETE, Command.WORK_DATA, Command.WORK_WARNING, Command.WORK_EXCEPTION, Command.WORK_STATUS],
)
def test_update_without_its_arguments_is_a_protocol_error(command):
    with pytest.raises(ProtocolError):
        _session().receive(_wire(command, b"H:1"))


def test_text_answers_come_in_order_with_packets():
    session = _session()
    session.order.append((b"", TEXT_LINE, "cancel"))
    session.order.append((b"", Command.ECHO_RES, "echo"))
    session.order.append((b"", TEXT_LINE, "again"))
    events = session.receive(b"OK\r\n" + _wire(Command.ECHO_RES, b"e") + b"ERR UNKNOWN_JOB no+such\r\n")
    assert events == [
        (REPLY, "cancel", b"OK"),
        (REPLY, "echo", [b"e"]),
        (ERROR, "again", ("UNKNOWN_JOB", "no such")),
    ]


def test_greeting_asks_for_exceptions():
    [(packet, reply, token)] = ClientSession().greeting()
    assert packet == b"\0REQ" + struct.pack(">II", Command.OPTION_REQ, 10) + b"exceptions"
    assert (reply, token) == (Command.OPTION_RES, None)
    assert ClientSession(exceptions=False).greeting() == []


@pytest.mark.parametrize(
    ("text", "value"),
    [(b"7", 7), (b"-1", -1), (b"0.5", 0), (b"99.9", 99), (b"", 0), (b"abc", 0), (b"inf", 0), (b"9" * 5000, 0)],
)
def test_numbers_are_read_as_gearmand_reads_them(text, value):
    assert number(text) == value


_HANDLES = st.sampled_from([b"H:1", b"H:2", b"H:3"])
_REPLIES = st.one_of(
    st.builds(lambda h: _wire(Command.JOB_CREATED, h), _HANDLES),
    st.builds(lambda h, d: _wire(Command.WORK_DATA, h, d), _HANDLES, st.binary(max_size=10)),
    st.builds(lambda h, d: _wire(Command.WORK_COMPLETE, h, d), _HANDLES, st.binary(max_size=10)),
    st.builds(lambda h: _wire(Command.WORK_FAIL, h), _HANDLES),
    st.builds(lambda h, n, d: _wire(Command.WORK_STATUS, h, n, d), _HANDLES, st.binary(max_size=3), st.just(b"1")),
    st.just(_wire(Command.ERROR, b"QUEUE_ERROR", b"full")),
)


def _events(pieces: list[bytes], jobs: int) -> tuple[list[object], object]:
    """Return the events, and how the session stands at the end: the type of its failure, or what it holds."""
    session = _session(*map(str, range(jobs)))
    events = []
    with contextlib.suppress(ProtocolError):
        for piece in pieces:
            events.extend(session.receive(piece))
    failure = session.failure
    return events, type(failure) if failure else (len(session.handles), len(session.order))


@given(st.lists(_REPLIES, max_size=15), st.integers(0, 8))
def test_whole_and_byte_by_byte_give_the_same_events(replies, jobs):
    data = b"".join(replies)
    assert _events([data[i : i + 1] for i in range(len(data))], jobs) == _events([data], jobs)


@given(st.lists(_REPLIES, max_size=15), st.integers(0, 8))
def test_no_job_gets_two_outcomes_or_an_update_after_its_outcome(replies, jobs):
    ended = set()
    for kind, token, _ in _events([b"".join(replies)], jobs)[0]:
        assert token is None or token not in ended
        if kind in (COMPLETE, FAIL, EXCEPTION, ERROR):
            ended.add(token)


@given(st.binary(max_size=100), st.integers(0, 3))
def test_any_bytes_give_events_or_protocol_error(data, jobs):
    _events([data], jobs)
    _events([RES + data], jobs)
