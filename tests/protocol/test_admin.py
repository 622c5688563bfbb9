"""The admin client's session: lines and blocks of text among binary replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool.errors import ProtocolError
from gearman_pool.protocol.admin import AdminSession
from gearman_pool.protocol.commands import Command
from gearman_pool.protocol.packets import RES
from gearman_pool.protocol.session import ERROR, REPLY, TEXT_BLOCK, TEXT_LINE, Entry, Event

ECHO = RES + b"\0\0\0\x11\0\0\0\x04ping"


def receive(replies: list[int], data: bytes, step: int | None = None, max_packet_size: int = 1024) -> list[Event]:
    """Feed ``data`` in pieces of ``step`` bytes to a session that is owed ``replies``; tokens are their indexes."""
    session = AdminSession(max_packet_size)
    session.order.extend((b"", reply, index) for index, reply in enumerate(replies))
    step = step or max(1, len(data))
    events: list[Event] = []
    for start in range(0, len(data), step):
        events += session.receive(data[start : start + step])
    if session.failure is not None:
        raise session.failure
    left: list[Entry] = list(session.order)
    assert len(left) == len(replies) - len(events)
    return events


CASES: list[tuple[list[int], bytes, list[Event]]] = [
    ([TEXT_LINE], b"OK 1.1.20+ds\n", [(REPLY, 0, b"OK 1.1.20+ds")]),
    ([TEXT_LINE], b"OK\r\n", [(REPLY, 0, b"OK")]),
    ([TEXT_LINE], b".\n", [(REPLY, 0, b".")]),
    ([TEXT_LINE], b"OK", []),
    ([TEXT_BLOCK], b".\n", [(REPLY, 0, [])]),
    ([TEXT_BLOCK], b".\r\n", [(REPLY, 0, [])]),
    ([TEXT_BLOCK], b"a\t0\t0\t0\n", []),
    ([TEXT_BLOCK], b"a\t0\t0\t0\nb\t1\t1\t1\r\n.\n", [(REPLY, 0, [b"a\t0\t0\t0", b"b\t1\t1\t1"])]),
    ([TEXT_BLOCK], b".\t0\t0\t0\n..\n\n.\n", [(REPLY, 0, [b".\t0\t0\t0", b"..", b""])]),
    ([TEXT_BLOCK] * 2, b"a\n.\nb\n.\n", [(REPLY, 0, [b"a"]), (REPLY, 1, [b"b"])]),
    ([TEXT_LINE], b"ERR UNKNOWN_JOB\r\n", [(ERROR, 0, ("UNKNOWN_JOB", ""))]),
    ([TEXT_LINE], b"ERR function not found\r\n", [(ERROR, 0, ("ERR", "function not found"))]),
    (
        [TEXT_BLOCK, TEXT_LINE],
        b"ERR UNKNOWN_COMMAND Unknown+server+commandjobs\r\nOK\n",
        [(ERROR, 0, ("UNKNOWN_COMMAND", "Unknown server commandjobs")), (REPLY, 1, b"OK")],
    ),
    ([TEXT_BLOCK], b"ERR f\t0\t0\t0\nERR UNKNOWN_JOB\n.\n", [(REPLY, 0, [b"ERR f\t0\t0\t0", b"ERR UNKNOWN_JOB"])]),
    (
        [TEXT_BLOCK, Command.ECHO_RES, TEXT_LINE, TEXT_BLOCK],
        b"36 127.0.0.1 - :\n.\n" + ECHO + b"OK 7\n.\n",
        [(REPLY, 0, [b"36 127.0.0.1 - :"]), (REPLY, 1, [b"ping"]), (REPLY, 2, b"OK 7"), (REPLY, 3, [])],
    ),
]


@pytest.mark.parametrize("step", [None, 1, 3])
@pytest.mark.parametrize(("replies", "data", "events"), CASES)
def test_answers_are_told_apart_however_they_arrive(
    replies: list[int], data: bytes, events: list[Event], step: int | None
) -> None:
    assert receive(replies, data, step) == events


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize(
    ("replies", "data"),
    [
        ([], b"OK\n"),
        ([TEXT_LINE], b"OK\nOK\n"),
        ([Command.ECHO_RES], b"OK\n"),
        ([TEXT_LINE], ECHO),
        ([TEXT_BLOCK], ECHO),
        ([TEXT_BLOCK], b"a\n" + ECHO),
        ([TEXT_BLOCK], b"a\n" + RES + b"\0\0\0\x13\0\0\0\x03A\0b"),
        ([TEXT_BLOCK], b"a\n" * 600),
        ([TEXT_BLOCK], b"\n" * 1100),
    ],
)
def test_what_does_not_fit_the_order_raises_protocol_error(replies: list[int], data: bytes, step: int | None) -> None:
    with pytest.raises(ProtocolError):
        receive(replies, data, step)


def test_abandoned_session_forgets_the_block_it_was_in() -> None:
    session = AdminSession()
    session.order.append((b"", TEXT_BLOCK, "first"))
    assert session.receive(b"a\n") == []
    assert session.abandon() == []
    assert not session.order
    session.order.append((b"", TEXT_BLOCK, "second"))
    assert session.receive(b"b\n.\n") == [(REPLY, "second", [b"b"])]


_row = st.binary(min_size=1, max_size=12).filter(lambda r: r[0] != 0 and b"\n" not in r and not r.endswith(b"\r"))
_block = st.lists(_row.filter(lambda row: row != b"." and not row.startswith(b"ERR")), max_size=4)
_ends = st.sampled_from([b"\n", b"\r\n"])


@given(st.lists(_row | _block | st.none(), max_size=6), _ends, st.integers(1, 40))
def test_pieces_of_any_size_give_the_events_of_the_whole(
    answers: list[bytes | list[bytes] | None], end: bytes, step: int
) -> None:
    replies: list[int] = []
    data = b""
    for answer in answers:
        if answer is None:
            replies.append(Command.ECHO_RES)
            data += ECHO
        elif isinstance(answer, bytes):
            replies.append(TEXT_LINE)
            data += answer + end
        else:
            replies.append(TEXT_BLOCK)
            data += b"".join(row + end for row in [*answer, b"."])
    whole = receive(replies, data)
    assert receive(replies, data, step) == whole
    assert [event[1] for event in whole] == list(range(len(replies)))


@given(st.binary(max_size=80), st.lists(st.sampled_from([TEXT_LINE, TEXT_BLOCK, Command.ECHO_RES.value]), max_size=4))
def test_arbitrary_bytes_raise_nothing_but_protocol_error(data: bytes, replies: list[int]) -> None:
    def outcome(step: int | None) -> list[Event] | type[Exception]:
        try:
            return receive(replies, data, step)
        except ProtocolError:
            return ProtocolError

    assert outcome(None) == outcome(1)
