"""F6: a few thousand inputs of the fuzzer; ``python -m tests.faults.fuzz`` runs a million."""

from __future__ import annotations

import tracemalloc

import pytest

from gearman_pool.errors import ProtocolError
from gearman_pool.protocol.client import ClientSession
from gearman_pool.protocol.packets import MAX_LINE_LENGTH, RES, Decoder
from gearman_pool.protocol.session import TEXT_LINE

from . import fuzz as fuzzing


@pytest.mark.parametrize("seed", range(3))
def test_damaged_and_random_streams_give_the_same_events_in_any_pieces_or_a_protocol_error(seed):
    outcomes = fuzzing.fuzz(4000, seed)
    # Inputs that all die at the first byte would show nothing.
    for name in fuzzing.TARGETS:
        assert outcomes[f"{name} went on"] > 50
    for name in ("decoder", "client", "admin", "worker"):
        assert outcomes[f"{name} ProtocolError"] > 50


def test_fuzzer_tells_which_input_it_was(monkeypatch):
    monkeypatch.setattr(Decoder, "_line", lambda self, buffer, start: 1 / 0)
    with pytest.raises(AssertionError, match=r"with input \d+ of seed 7, .*ZeroDivisionError"):
        fuzzing.fuzz(1000, 7)


@pytest.mark.parametrize("size", [128 * 1024 * 1024, 64 * 1024 * 1024])
def test_announced_packet_takes_no_memory_before_it_arrives(size):
    session = ClientSession(128 * 1024 * 1024)
    tracemalloc.start()
    try:
        assert session.receive(RES + b"\0\0\0\x0d" + size.to_bytes(4, "big") + bytes(100_000)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


@pytest.mark.parametrize("size", [1025, 2**31, 2**32 - 1])
def test_packet_beyond_the_limit_is_refused_at_its_header(size):
    with pytest.raises(ProtocolError, match="max_packet_size is 1024"):
        ClientSession(1024).receive(RES + b"\0\0\0\x0d" + size.to_bytes(4, "big"))


def test_line_without_end_is_refused_at_its_limit():
    session = ClientSession()
    session.order.append((b"", TEXT_LINE, "token"))
    for _ in range(MAX_LINE_LENGTH // 65536):
        assert session.receive(b"x" * 65536) == []
    with pytest.raises(ProtocolError, match="line of text longer"):
        session.receive(b"x")
