"""Packets and the incremental decoder."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gearman_pool.errors import ProtocolError, UnknownCommandError
from gearman_pool.protocol.commands import COMMANDS, Command, Sender, submit_command
from gearman_pool.protocol.packets import (
    COPY_LIMIT,
    HEADER_SIZE,
    MAX_LINE_LENGTH,
    REQ,
    RES,
    Decoder,
    pack,
    pack_arguments,
    packet_size,
    split_arguments,
)

_FROM_SERVER = sorted(number for number, spec in COMMANDS.items() if spec.senders & Sender.SERVER)
_PACKETS = st.lists(st.tuples(st.sampled_from(_FROM_SERVER), st.binary(max_size=300)), max_size=12)


def _wire(command: int, body: bytes, magic: bytes = RES) -> bytes:
    return magic + struct.pack(">II", command, len(body)) + body


def _decode(pieces: list[bytes], **options: int) -> list[tuple[int, bytes]]:
    decoder = Decoder(**options)
    found = []
    for piece in pieces:
        decoder.feed(piece)
        found += [(command, bytes(body)) for command, body in decoder.packets()]
    return found


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def test_every_number_of_the_protocol_document_has_a_row():
    assert set(COMMANDS) == set(range(1, 43)) - {5}


@pytest.mark.parametrize("spec", COMMANDS.values(), ids=lambda spec: spec.name)
def test_arguments_survive_packing_and_splitting(spec):
    arguments = {name: name.encode() for name in spec.arguments}
    packet = pack_arguments(spec.command, arguments)
    assert packet[:HEADER_SIZE] == REQ + struct.pack(">II", spec.command, len(packet) - HEADER_SIZE)
    assert split_arguments(spec.command, packet[HEADER_SIZE:]) == list(arguments.values())


def test_only_the_last_argument_may_hold_nul_bytes():
    assert split_arguments(Command.WORK_DATA, b"H:1\0a\0b") == [b"H:1", b"a\0b"]
    with pytest.raises(ValueError, match="'task' of SUBMIT_JOB must not hold a NUL"):
        pack_arguments(Command.SUBMIT_JOB, {"task": b"a\0b", "unique": b"", "data": b""})


def test_wrong_arguments_and_unknown_commands_are_refused():
    with pytest.raises(ValueError, match="takes the arguments"):
        pack_arguments(Command.ECHO_REQ, {})
    with pytest.raises(UnknownCommandError):
        pack_arguments(99, {})
    with pytest.raises(UnknownCommandError):
        split_arguments(99, b"")
    with pytest.raises(ProtocolError, match="1 of its 2 arguments"):
        split_arguments(Command.WORK_DATA, b"H:1")
    with pytest.raises(ProtocolError, match="takes none"):
        split_arguments(Command.NOOP, b"x")


@pytest.mark.parametrize(("background", "priority"), [(False, None), (True, "HIGH"), (True, "LOW"), (False, "LOW")])
def test_submit_command_names_background_and_priority(background, priority):
    name = submit_command(background, priority).name
    assert name == "SUBMIT_JOB" + (f"_{priority}" if priority else "") + ("_BG" if background else "")


def test_unknown_priority_is_refused():
    with pytest.raises(ValueError, match="PRIORITY_NONE, PRIORITY_LOW or PRIORITY_HIGH"):
        submit_command(False, "URGENT")


def test_large_payload_stays_a_buffer_of_its_own():
    payload = bytes(COPY_LIMIT + 1)
    packet = pack(Command.SUBMIT_JOB, b"task", b"unique", payload)
    assert isinstance(packet, tuple)
    assert packet[1] is payload
    assert packet_size(packet) == len(packet[0]) + len(payload)
    assert b"".join(packet) == _wire(Command.SUBMIT_JOB, b"task\0unique\0" + payload, REQ)


@given(_PACKETS, st.lists(st.integers(0, 5000), max_size=8))
def test_any_split_of_the_bytes_gives_the_same_packets(packets, cuts):
    data = b"".join(_wire(command, body) for command, body in packets)
    assert _decode(_split(data, cuts)) == packets
    assert _decode([data]) == packets


@given(_PACKETS, st.lists(st.binary(min_size=1, max_size=20).filter(lambda line: line[0] and b"\n" not in line)))
def test_lines_of_text_may_stand_between_packets(packets, lines):
    mixed: list[tuple[int, bytes]] = []
    data = b""
    for number, packet in enumerate(packets):
        mixed.append(packet)
        data += _wire(*packet)
        if number < len(lines):
            line = lines[number].rstrip(b"\r")
            mixed.append((0, line))
            data += line + (b"\r\n" if number % 2 else b"\n")
    mixed = [item for item in mixed if item != (0, b"")]
    if any(not line.rstrip(b"\r") for line in lines):
        return
    assert _decode([data[i : i + 1] for i in range(len(data))]) == mixed


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_give_packets_or_protocol_error(pieces):
    decoder = Decoder(max_packet_size=1000)
    try:
        for piece in pieces:
            decoder.feed(piece)
            for command, body in decoder.packets():
                assert command == 0 or command in COMMANDS
                assert len(body) <= 1000
    except ProtocolError:
        pass


@given(st.binary(max_size=60))
def test_any_header_of_a_packet_gives_packets_or_protocol_error(rest):
    try:
        _decode([RES + rest], max_packet_size=1000)
    except ProtocolError:
        pass


def test_large_body_in_many_pieces_is_put_together_once():
    body = bytes(range(256)) * 4096
    data = _wire(Command.WORK_COMPLETE, body) + _wire(Command.NOOP, b"")
    pieces = [data[start : start + 30_000] for start in range(0, len(data), 30_000)]
    assert _decode(pieces) == [(Command.WORK_COMPLETE, body), (Command.NOOP, b"")]


def test_absurd_length_is_refused_before_anything_is_kept():
    decoder = Decoder(max_packet_size=1 << 20)
    decoder.feed(RES + struct.pack(">II", Command.WORK_DATA, 0xFFFFFFFF))
    with pytest.raises(ProtocolError, match="max_packet_size"):
        list(decoder.packets())


@pytest.mark.parametrize("longest", [0, 1, 100, COPY_LIMIT + 1])
def test_body_may_be_as_long_as_max_packet_size_and_no_longer(longest):
    body = b"x" * longest
    data = _wire(Command.ECHO_RES, body)
    assert _decode([data[:50], data[50:]], max_packet_size=longest) == [(Command.ECHO_RES, body)]
    with pytest.raises(ProtocolError, match=f"{longest + 1} bytes was announced"):
        _decode([_wire(Command.ECHO_RES, body + b"x")], max_packet_size=longest)


@pytest.mark.parametrize("whole", range(2))
@pytest.mark.parametrize("given", range(12))
def test_part_of_a_header_is_no_packet(whole, given):
    data = _wire(Command.NOOP, b"") * whole + _wire(Command.ECHO_RES, b"body")[:given]
    assert _decode([data]) == [(Command.NOOP, b"")] * whole


@pytest.mark.parametrize("given", range(4))
def test_part_of_a_body_is_no_packet(given):
    assert _decode([_wire(Command.ECHO_RES, b"body")[: 12 + given]]) == []


@pytest.mark.parametrize("start", [b"\0REQ", b"\0RE", b"\0RET", b"\0res", b"\0\0\0\0"])
def test_magic_that_is_not_the_servers_is_refused_at_once(start):
    """Whole or not: who waits for the rest of such a header may wait for ever."""
    refused = start != b"\0RE"
    for more in (b"",) if len(start) < 4 else (b"", struct.pack(">II", Command.ECHO_RES, 0)):
        if refused:
            with pytest.raises(ProtocolError, match=f"starts with {start.hex()}, not with 00524553"):
                _decode([start + more])
        else:
            assert _decode([start + more]) == []


def test_memory_follows_what_has_arrived_not_what_was_announced():
    decoder = Decoder(max_packet_size=1 << 30)
    decoder.feed(RES + struct.pack(">II", Command.WORK_DATA, 1 << 30) + b"x" * 100)
    assert list(decoder.packets()) == []
    assert decoder.pending <= 112
    decoder.feed(b"\0" + b"x" * 1000)
    assert list(decoder.packets()) == []
    room = decoder.room()
    assert room is not None
    # As much again as has arrived, or the first piece.
    assert len(room) <= 256 * 1024


def _decode_into_room(data: bytes, cuts: list[int]) -> list[tuple[int, bytes]]:
    """Decode as a connection reads: large payloads are received into their room, piece by piece."""
    decoder = Decoder()
    found = []
    sizes = itertools.cycle(cuts or [100_000])
    position = 0
    while position < len(data):
        size = next(sizes)
        room = decoder.room()
        if room is None:
            decoder.feed(data[position : position + size])
        else:
            size = min(size, len(room), len(data) - position)
            room[:size] = data[position : position + size]
            if not decoder.filled(size):
                position += size
                continue
        position += size
        found += [(command, bytes(body)) for command, body in decoder.packets()]
    assert decoder.pending == 0
    return found


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Command.WORK_COMPLETE, Command.JOB_ASSIGN_UNIQ, Command.ECHO_RES, Command.NOOP]),
            st.sampled_from([0, 1, COPY_LIMIT - 1, COPY_LIMIT, COPY_LIMIT + 1, 700_000]),
        ),
        max_size=3,
    ),
    st.lists(st.integers(3_000, 300_000), max_size=5),
)
@settings(max_examples=30)
def test_large_payloads_may_be_received_into_their_room_in_any_pieces(packets, cuts):
    wanted = []
    for command, size in packets:
        count = len(COMMANDS[command].arguments)
        payload = (b"pay\0load" * (size // 8 + 1))[:size] if count else b""
        wanted.append((command, b"".join(b"argument\0" for _ in range(count - 1)) + payload))
    data = b"".join(_wire(command, body) for command, body in wanted)
    assert _decode_into_room(data, cuts) == wanted
    assert _decode(_split(data, cuts)) == wanted


def test_large_body_is_split_into_its_arguments_without_a_copy():
    payload = bytes(range(256)) * 4096
    decoder = Decoder()
    decoder.feed(_wire(Command.JOB_ASSIGN_UNIQ, b"H:1\0task\0unique\0" + payload)[:-1])
    assert list(decoder.packets()) == []
    room = decoder.room()
    room[:1] = payload[-1:]
    assert decoder.filled(1)
    ((command, body),) = decoder.packets()
    assert split_arguments(command, body) == [b"H:1", b"task", b"unique", payload]
    assert split_arguments(command, body)[-1] is body._last
    assert len(body) == 16 + len(payload)


def test_large_body_without_the_arguments_it_should_have_is_a_protocol_error():
    decoder = Decoder()
    decoder.feed(_wire(Command.WORK_DATA, b"x" * 200_000)[:-1])
    assert list(decoder.packets()) == []
    decoder.feed(b"x")
    ((command, body),) = decoder.packets()
    with pytest.raises(ProtocolError, match="1 of its 2 arguments"):
        split_arguments(command, body)


def test_endless_line_is_refused():
    decoder = Decoder()
    decoder.feed(b"x" * (MAX_LINE_LENGTH + 1))
    with pytest.raises(ProtocolError, match="line of text"):
        list(decoder.packets())


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("more", [0, 1])
def test_length_of_a_line_counts_alike_whether_it_comes_whole_or_in_pieces(end, more):
    data = b"x" * (100 + more - (len(end) - 1)) + end
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        if more:
            with pytest.raises(ProtocolError, match="line of text longer than 100 bytes"):
                _decode(pieces, max_line_length=100)
        else:
            assert _decode(pieces, max_line_length=100) == [(0, data.rstrip())]


@pytest.mark.parametrize("data", [b"\0REQ" + bytes(8), b"\0RE" + b"X", b"\0RESx" + bytes(9), b"\0\0\0\0"])
def test_wrong_magic_or_command_is_a_protocol_error(data):
    with pytest.raises(ProtocolError):
        _decode([data[i : i + 1] for i in range(len(data))])


def test_large_body_of_a_number_without_a_row_is_put_together_like_any_other():
    # The server's decoder takes the one number that the protocol leaves out, and answers it.
    decoder = Decoder(magic=REQ, legal=frozenset(COMMANDS) | {5})
    data = _wire(5, b"x" * 70_000, REQ)
    for piece in (data[:20], data[20:100], data[100:]):
        decoder.feed(piece)
        found = [(command, bytes(body)) for command, body in decoder.packets()]
    assert found == [(5, b"x" * 70_000)]
