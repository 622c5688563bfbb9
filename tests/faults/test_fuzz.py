"""F6: inputs of the fuzzer, from its generator and from its corpus; ``python -m tests.faults.fuzz`` runs a million."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from random import Random

import pytest

from gearman_pool.errors import ProtocolError
from gearman_pool.protocol import client, session, worker
from gearman_pool.protocol.client import ClientSession
from gearman_pool.protocol.packets import MAX_LINE_LENGTH, RES, Decoder
from gearman_pool.protocol.session import TEXT_LINE

from ..support.processes import run_program
from .fuzz import __main__ as command_line
from .fuzz import generator, guided
from .fuzz.machines import MACHINES, Input, check

CORPUS = {path.name: Input.parse(path.read_bytes()) for path in sorted(guided.CORPUS.iterdir())}


@pytest.mark.parametrize("seed", range(2))
def test_damaged_and_random_streams_give_the_same_events_in_any_pieces_or_a_protocol_error(seed):
    outcomes = generator.fuzz(3000, seed)
    # Inputs that all die at the first byte would show nothing.
    for name in ("decoder", "client", "worker", "server"):
        assert outcomes[f"{name} went on"] > 30
    for name in ("decoder", "client", "admin", "worker", "text"):
        assert outcomes[f"{name} ProtocolError"] > 30


@pytest.mark.parametrize("name", MACHINES)
def test_corpus_gives_the_same_events_whole_and_byte_by_byte_or_a_protocol_error(name):
    for what in CORPUS.values():
        check(name, what)
        check(name, what._replace(step=1))


@pytest.mark.parametrize("name", MACHINES)
def test_input_is_the_same_when_it_is_read_from_its_bytes(name):
    for number in range(50):
        what = generator.make_input(Random(number), name)
        assert Input.parse(bytes(what)) == what


def test_corpus_is_small_and_reaches_every_kind_of_event():
    assert 30 <= len(CORPUS) <= 150
    assert sum(len(bytes(what)) for what in CORPUS.values()) < 32 * 1024
    kinds = defaultdict(set)
    ends = defaultdict(set)
    for what in CORPUS.values():
        name = list(MACHINES)[what.machine]
        events, end = check(name, what)
        ends[name].add(end if isinstance(end, type) else bool(end))
        if name in ("client", "admin", "worker"):
            kinds[name] |= {kind for kind, _, _ in events}
    both = {session.REPLY, session.ERROR}
    assert kinds["admin"] == both
    assert kinds["worker"] == {*both, worker.ASSIGNED, worker.NOTHING, worker.WOKEN, worker.NOT_MINE}
    assert kinds["client"] == {*both, *range(client.CREATED, client.LATE + 1)}
    assert ends["server"] == {False, True}
    assert all(ProtocolError in ends[name] for name in ("decoder", "client", "admin", "worker"))


def test_fuzzer_tells_which_input_it_was(monkeypatch):
    monkeypatch.setattr(Decoder, "_line", lambda self, buffer, start: 1 / 0)
    with pytest.raises(AssertionError, match=r"input \d+ of seed 7: \w+ with Input\(.*ZeroDivisionError"):
        generator.fuzz(1000, 7)


def test_events_that_depend_on_the_pieces_are_noticed(monkeypatch):
    read = Decoder._line

    def unlimited_if_whole(self, buffer, start):
        if buffer.find(b"\n", start) >= 0:
            self._max_line = 1_000_000
        return read(self, buffer, start)

    monkeypatch.setattr(Decoder, "_line", unlimited_if_whole)
    with pytest.raises(AssertionError, match="in pieces of 50"):
        check("decoder", Input(0, 50, b"", b"x" * 250 + b"\n"))


def test_job_that_ends_twice_is_noticed(monkeypatch):
    update = client.ClientSession._update

    def twice(self, kind, handle, value, command, events):
        update(self, kind, handle, value, command, events)
        events.append(events[-1])

    monkeypatch.setattr(client.ClientSession, "_update", twice)
    with pytest.raises(AssertionError, match="end twice"):
        generator.fuzz(2000, 1)


def test_fuzzer_fails_if_the_memory_grows():
    # In a process of its own: one that has been larger before does not grow.
    program = (
        "from tests.faults.fuzz import __main__ as command_line, generator\n"
        "assert command_line.main(['--inputs', '500', '--seed', '1']) == 0\n"
        "kept = []\n"
        "command_line.MAX_GROWTH = 8 * 1024\n"
        "generator.check = lambda name, what: (kept.append(b'x' * 200_000), None)\n"
        "assert command_line.main(['--inputs', '500', '--seed', '1']) == 1\n"
    )
    ended = run_program(["-c", program], 50)
    assert ended.code == 0, ended.errors
    assert "that is more than 8,192 KiB" in ended.output


def test_file_of_the_fuzzer_is_run_through_all_machines(monkeypatch, capsys):
    path = next(guided.CORPUS.iterdir())
    assert command_line.main([str(path)]) == 0
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == list(MACHINES)


@pytest.mark.timeout(120)
def test_atheris_runs_the_machines_and_fails_beyond_its_memory(monkeypatch, tmp_path, capsys):
    pytest.importorskip("atheris", reason='atheris is missing (pip install -e ".[fuzz]")')
    monkeypatch.chdir(tmp_path)
    assert guided.fuzz(500, 1, None) == 0
    assert "number_of_executed_units: 500" in capsys.readouterr().out
    monkeypatch.setattr(guided, "MAX_MEMORY", 10)
    assert guided.fuzz(100_000, 1, None) != 0
    assert "out-of-memory" in capsys.readouterr().out


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
