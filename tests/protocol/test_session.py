"""What the sessions of all roles share: a reply answers the oldest request, whatever pieces its bytes come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool.errors import ProtocolError
from gearman_pool.protocol.commands import Command
from gearman_pool.protocol.packets import RES, pack
from gearman_pool.protocol.session import (
    ACCEPTED,
    ERROR,
    NO_REPLY,
    REPLY,
    TEXT_BLOCK,
    TEXT_LINE,
    Event,
    ReplySession,
    error_of,
)


def response(command: int, *arguments: bytes) -> bytes:
    packet = pack(command, *arguments, magic=RES)
    return packet if isinstance(packet, bytes) else b"".join(packet)


ECHO = response(Command.ECHO_RES, b"pi\0ng")
OPTION = response(Command.OPTION_RES, b"exceptions")
STATUS = response(Command.STATUS_RES, b"H:1", b"1", b"0", b"0", b"0")
REFUSED = response(Command.ERROR, b"CODE", b"text")
CREATED = response(Command.JOB_CREATED, b"H:1")


class Outcome:
    """What a session that is owed ``replies`` says to ``data`` in pieces; the tokens are the replies' places.

    ``step`` is the size of a piece, 0 for the whole; with ``room`` pieces are received into the session's room, where
    it has any.
    """

    def __init__(self, replies, data: bytes, step: int = 0, room: bool = False, max_packet_size: int = 10**7) -> None:
        self.session = ReplySession(max_packet_size)
        self.session.order.extend((b"packet", reply, place) for place, reply in enumerate(replies))
        self.events: list[Event] = []
        self.error: ProtocolError | None = None
        #: How many bytes were received into the session's room.
        self.roomy = 0
        start = 0
        while start < len(data) and self.error is None:
            piece = data[start : start + step] if step else data[start:]
            start += self._give(piece, room)
        self.left = [token for _, _, token in self.session.order]

    def _give(self, piece: bytes, room: bool) -> int:
        place = self.session.room() if room else None
        try:
            if place is None:
                self.events += self.session.receive(piece)
            else:
                piece = piece[: len(place)]
                place[: len(piece)] = piece
                self.roomy += len(piece)
                self.events += self.session.filled(len(piece))
        except ProtocolError as error:
            self.error = error
        else:
            self.error = self.session.failure
        return len(piece)


pieces = pytest.mark.parametrize("step", [0, 1, 3, 17])

CASES = {
    "nothing": ([], b"", []),
    "a packet's arguments": ([Command.STATUS_RES], STATUS, [(REPLY, 0, [b"H:1", b"1", b"0", b"0", b"0"])]),
    "the last argument has NULs": ([Command.ECHO_RES], ECHO, [(REPLY, 0, [b"pi\0ng"])]),
    "several in their order": (
        [Command.ECHO_RES, Command.OPTION_RES, Command.ECHO_RES],
        ECHO + OPTION + ECHO,
        [(REPLY, 0, [b"pi\0ng"]), (REPLY, 1, [b"exceptions"]), (REPLY, 2, [b"pi\0ng"])],
    ),
    "an error in place of any": (
        [Command.JOB_CREATED, TEXT_LINE, TEXT_BLOCK, ACCEPTED, Command.ECHO_RES],
        REFUSED * 4 + ECHO,
        [(ERROR, place, ("CODE", "text")) for place in range(4)] + [(REPLY, 4, [b"pi\0ng"])],
    ),
    "a line": ([TEXT_LINE], b"OK 1.1.20\r\n", [(REPLY, 0, b"OK 1.1.20")]),
    "a line without a carriage return": ([TEXT_LINE], b"OK\n", [(REPLY, 0, b"OK")]),
    "an empty line": ([TEXT_LINE], b"\n", [(REPLY, 0, b"")]),
    "a line that is an error": (
        [TEXT_LINE, TEXT_LINE],
        b"ERR UNKNOWN_COMMAND Unknown+server+command\r\nERR no such function\n",
        [(ERROR, 0, ("UNKNOWN_COMMAND", "Unknown server command")), (ERROR, 1, ("ERR", "no such function"))],
    ),
    "lines between packets": (
        [TEXT_LINE, Command.ECHO_RES, TEXT_LINE],
        b"one\n" + ECHO + b"two\n",
        [(REPLY, 0, b"one"), (REPLY, 1, [b"pi\0ng"]), (REPLY, 2, b"two")],
    ),
}


@pieces
@pytest.mark.parametrize("name", CASES)
def test_replies_are_given_to_the_requests_in_their_order(name, step):
    replies, data, events = CASES[name]
    outcome = Outcome([*replies, Command.JOB_CREATED], data, step)
    assert outcome.events == events
    assert outcome.error is None
    assert outcome.left == [len(replies)]


@pieces
@pytest.mark.parametrize("cut", [-1, -3, 4, 1])
@pytest.mark.parametrize(
    ("reply", "data"), [(Command.STATUS_RES, STATUS), (TEXT_LINE, b"OK 1.1.20\r\n"), (TEXT_BLOCK, b"f\t0\t0\t0\n")]
)
def test_request_waits_until_its_reply_is_whole(reply, data, cut, step):
    outcome = Outcome([reply], data[:cut], step)
    assert (outcome.events, outcome.error, outcome.left) == ([], None, [0])


def test_request_that_comes_later_is_matched_with_what_comes_later():
    session = ReplySession()
    for token in ("a", "b"):
        session.order.append((b"packet", Command.ECHO_RES, token))
        assert session.receive(ECHO) == [(REPLY, token, [b"pi\0ng"])]
        assert not session.order


# ---- what puts the order in doubt ----------------------------------------------------------------------------------

BAD = {
    "another packet than is due": (
        [Command.JOB_CREATED],
        OPTION,
        "OPTION_RES came where JOB_CREATED was due: the order of replies is in doubt",
    ),
    "a packet where a background job's answer is due": ([ACCEPTED], OPTION, "where JOB_CREATED was due"),
    # The client's session takes these two for what they are.
    "the answer to a background job": ([ACCEPTED], CREATED, "JOB_CREATED came where JOB_CREATED was due"),
    "a packet where a line is due": ([TEXT_LINE], ECHO, "ECHO_RES came where a line of text was due"),
    "a packet where lines are due": ([TEXT_BLOCK], ECHO, "ECHO_RES came where lines of text was due"),
    "a packet though none is due": ([], ECHO, "ECHO_RES came though no request was waiting for a reply"),
    "an error though nothing is due": ([], REFUSED, "ERROR came though no request was waiting for a reply"),
    "too few arguments": ([Command.STATUS_RES], response(Command.STATUS_RES, b"H:1", b"1"), "2 of its 5 arguments"),
    "an error without a text": ([Command.STATUS_RES], response(Command.ERROR, b"CODE"), "1 of its 2 arguments"),
    "lines where none but a role takes them": ([TEXT_BLOCK], b"a\n.\n", "where lines of text was due"),
    "a line where a packet is due": ([Command.OPTION_RES], b"OK\n", "came where OPTION_RES was due"),
    "a line though none is due": ([], b"OK\n", "though no request was waiting for a reply"),
    "an unknown command": ([Command.ECHO_RES], RES + b"\0\0\0\x63\0\0\0\0", "command 99"),
}


@pieces
@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_ends_the_session_and_what_came_before_counts(name, before, step):
    replies, data, text = BAD[name]
    outcome = Outcome([Command.ECHO_RES] * before + replies, ECHO * before + data + ECHO, step)
    assert outcome.events == [(REPLY, place, [b"pi\0ng"]) for place in range(before)]
    assert text in str(outcome.error)
    # What was due still is: the connection's owner finds there what has no answer.
    assert outcome.left == list(range(before, before + len(replies)))
    for more in (b"", ECHO):
        with pytest.raises(ProtocolError) as raised:
            outcome.session.receive(more)
        assert raised.value is outcome.error is outcome.session.failure


@pieces
@pytest.mark.parametrize(
    ("replies", "due"),
    [
        ([], "though no request was waiting for a reply"),
        ([Command.JOB_CREATED], "where JOB_CREATED was due"),
        ([ACCEPTED], "where JOB_CREATED was due"),
        # As an entry of a request that has no answer.
        ([NO_REPLY], "though no request was waiting for a reply"),
    ],
)
def test_line_that_is_not_due_is_refused_at_its_first_byte(replies, due, step):
    outcome = Outcome(replies, b"HTTP/1.1 400 Bad Request", step)
    assert outcome.events == []
    assert f"bytes that start no packet came {due}: the order of replies is in doubt" in str(outcome.error)


@pieces
def test_line_that_is_not_due_is_refused_behind_what_was_due(step):
    outcome = Outcome([TEXT_LINE, Command.ECHO_RES], b"OK\n" + ECHO + b"x", step)
    assert outcome.events == [(REPLY, 0, b"OK"), (REPLY, 1, [b"pi\0ng"])]
    assert "bytes that start no packet came" in str(outcome.error)


def test_failure_is_none_until_something_breaks_the_protocol():
    session = ReplySession()
    session.order.append((b"packet", Command.ECHO_RES, "a"))
    session.receive(ECHO)
    assert session.failure is None
    # Nothing came before it in these bytes: there is nothing to be returned.
    with pytest.raises(ProtocolError) as raised:
        session.receive(ECHO)
    assert session.failure is raised.value


@pieces
def test_packet_is_as_long_as_it_may_be_and_no_longer(step):
    fits, does_not = response(Command.ECHO_RES, bytes(40)), response(Command.ECHO_RES, bytes(41))
    assert Outcome([Command.ECHO_RES], fits, step, max_packet_size=40).events == [(REPLY, 0, [bytes(40)])]
    assert "max_packet_size is 40" in str(Outcome([Command.ECHO_RES], does_not, step, max_packet_size=40).error)


# ---- a large payload's room ----------------------------------------------------------------------------------------

LARGE = bytes(range(256)) * 2000


@pytest.mark.parametrize("step", [1000, 65536, 262144])
def test_large_payload_received_into_its_room_gives_the_same_events(step):
    data = ECHO + response(Command.ECHO_RES, LARGE) + OPTION
    replies = [Command.ECHO_RES, Command.ECHO_RES, Command.OPTION_RES]
    outcome = Outcome(replies, data, step, room=True)
    assert outcome.events == [(REPLY, 0, [b"pi\0ng"]), (REPLY, 1, [LARGE]), (REPLY, 2, [b"exceptions"])]
    assert outcome.roomy > len(LARGE) / 4
    assert outcome.events == Outcome(replies, data, step).events == Outcome(replies, data).events


def test_there_is_room_only_while_a_large_payload_arrives():
    session = ReplySession()
    session.order += [(b"packet", Command.ECHO_RES, token) for token in "ab"]
    assert session.room() is None
    assert session.receive(ECHO[:-1]) == []
    assert session.room() is None
    packet = response(Command.ECHO_RES, LARGE)
    assert session.receive(ECHO[-1:] + packet[:100_000]) == [(REPLY, "a", [b"pi\0ng"])]
    rest = packet[100_000:]
    while rest:
        room = session.room()
        part, rest = rest[: len(room)], rest[len(room) :]
        room[: len(part)] = part
        # Incomplete until the last byte.
        assert session.filled(len(part)) == ([] if rest else [(REPLY, "b", [LARGE])])
    assert session.room() is None


def test_large_payload_that_is_not_due_ends_the_session():
    outcome = Outcome([Command.OPTION_RES], response(Command.ECHO_RES, LARGE), 65536, room=True)
    assert outcome.roomy
    assert "ECHO_RES came where OPTION_RES was due" in str(outcome.error)


# ---- what the roles build on ---------------------------------------------------------------------------------------


def test_session_of_no_role_greets_with_nothing_and_holds_no_jobs():
    session = ReplySession()
    assert session.greeting() == []
    assert session.handles == {}


def test_abandoned_session_owes_nothing():
    session = ReplySession()
    session.order.append((b"packet", Command.ECHO_RES, "a"))
    assert session.abandon() == []
    assert not session.order
    with pytest.raises(ProtocolError, match="no request was waiting"):
        session.receive(ECHO)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"CODE\0text", ("CODE", "text")),
        (b"CODE\0", ("CODE", "")),
        (b"CODE\0text\0", ("CODE", "text")),
        (b"CODE\0te\0xt\0\0", ("CODE", "te\0xt")),
        (b"C\xff\0\xc3\xa4\xff", ("C\ufffd", "ä\ufffd")),
    ],
)
def test_error_has_a_code_and_a_text_of_any_bytes(body, error):
    assert error_of(body) == error


# ---- any bytes -----------------------------------------------------------------------------------------------------

PARTS = st.sampled_from([ECHO, OPTION, STATUS, REFUSED, b"OK\n", b"ERR X y\r\n", b"\0RE", b"x", RES + b"\0" * 8])
REPLIES = st.lists(
    st.sampled_from(
        [Command.ECHO_RES, Command.OPTION_RES, Command.STATUS_RES, TEXT_LINE, TEXT_BLOCK, ACCEPTED, NO_REPLY]
    ),
    max_size=5,
)


@given(REPLIES, st.one_of(st.lists(PARTS, max_size=6).map(b"".join), st.binary(max_size=100)), st.integers(1, 9))
def test_any_bytes_mean_the_same_whole_and_in_pieces(replies, data, step):
    whole, cut = Outcome(replies, data), Outcome(replies, data, step)
    assert (whole.events, whole.left, whole.error is None) == (cut.events, cut.left, cut.error is None)
    # Each event took the request at the head.
    assert [token for _, token, _ in whole.events] + whole.left == list(range(len(replies)))
