"""Each row of the benchmarks runs and gives numbers. No time is asserted: that is for the benchmarks themselves."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.raw import ECHO_REQ, ECHO_RES, JOB_CREATED, SUBMIT_JOB, SUBMIT_JOB_BG, WORK_COMPLETE, RawConnection
from .measuring import measure
from .rows import ROWS, Effort, Row
from .servers import NEVER, ROOT, InstantServer, Missing, Programs
from .table import table, to_json
from .works import HOST

_TINY = Effort(seconds=0.05, seconds_with_neighbours=0.1, scale=0.001)
_SMALL = Effort(seconds=0.5, seconds_with_neighbours=0.5, scale=0.001)
_FAIR = Effort(seconds=3, seconds_with_neighbours=3, scale=0.001)


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs() as found:
        yield found


class _NoPrograms(Programs):
    def _compile(self, name: str, libraries: tuple[str, ...]) -> Path | str:
        return "no C compiler"


@pytest.fixture(params=["C", "asyncio"])
def programs_of_either_kind(request: pytest.FixtureRequest, programs: Programs) -> Iterator[Programs]:
    if request.param == "asyncio":
        with _NoPrograms() as none:
            yield none
        return
    try:
        programs.get("instant_server")
    except Missing as error:
        pytest.skip(str(error))
    yield programs


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_row_gives_numbers(row: Row, programs: Programs) -> None:
    # On a busy machine not one job of so short a run may be done: then there is nothing to divide by.
    for effort in _TINY, _SMALL, _FAIR:
        (measured,) = measure([row], runs=1, effort=effort, programs=programs)
        assert measured.ours.error is None
        if measured.ours.missing is not None:
            pytest.skip(measured.ours.missing)
        assert measured.peer is None or measured.peer.error is None
        compared = measured.peer is not None and measured.peer.missing is None
        if not compared or measured.value is not None:
            break
    ours = measured.ours.median(row.metric)
    assert ours is not None
    assert ours >= 0
    assert math.isfinite(ours)
    if compared:
        assert measured.value is not None
        assert measured.value >= 0
    text = table([measured])
    assert row.what in text
    assert all(note in text for note in measured.notes)
    (described,) = json.loads(to_json([measured]))["rows"]
    assert described["ours"]["runs"] == measured.ours.runs


def test_command_line_names_the_rows_there_are_when_asked_for_another() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--row", "P99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no row p99; there are P1, P1b" in done.stderr


def test_peer_that_is_not_installed_is_skipped_with_a_note(programs: Programs, tmp_path: Path) -> None:
    python = tmp_path / "python"
    # An interpreter without the peers, wherever they are: -S leaves site-packages out.
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o700)
    row = next(row for row in ROWS if row.name == "P1b")
    (measured,) = measure([row], runs=1, effort=_TINY, peer_python=str(python), programs=programs)
    assert measured.peer is not None
    assert measured.peer.missing == "not installed (No module named 'gearman')"
    assert measured.notes == ["pygearman batches: not installed (No module named 'gearman')"]
    assert measured.verdict == "skipped"


def test_instant_server_accepts_and_completes_each_job_at_once(programs_of_either_kind: Programs) -> None:
    with InstantServer(programs_of_either_kind) as server, RawConnection((HOST, server.port)) as connection:
        for number in range(1, 4):
            created = connection.request(SUBMIT_JOB, b"task", b"unique", b"a\0b")
            assert (created.command, created.body) == (JOB_CREATED, b"H:bench:%d" % number)
            completed = connection.receive()
            assert (completed.command, completed.body) == (WORK_COMPLETE, b"H:bench:%d\0a\0b" % number)
        assert connection.request(SUBMIT_JOB_BG, b"task", b"unique", b"data").command == JOB_CREATED
        assert connection.request(ECHO_REQ, b"there?").command == ECHO_RES
        assert connection.text("version") == "OK 1.1.20"


def test_instant_server_completes_jobs_as_late_as_told(programs_of_either_kind: Programs) -> None:
    with InstantServer(programs_of_either_kind, lag=2) as server, RawConnection((HOST, server.port)) as connection:
        for _ in range(2):
            assert connection.request(SUBMIT_JOB, b"task", b"", b"x").command == JOB_CREATED
            assert connection.request(ECHO_REQ, b"").command == ECHO_RES
        assert connection.request(SUBMIT_JOB, b"task", b"", b"x").body == b"H:bench:3"
        assert connection.receive().body == b"H:bench:1\0x"


def test_instant_server_never_completes_a_job_when_told_so(programs_of_either_kind: Programs) -> None:
    with InstantServer(programs_of_either_kind, lag=NEVER) as server, RawConnection((HOST, server.port)) as connection:
        for _ in range(3):
            assert connection.request(SUBMIT_JOB, b"task", b"", b"x").command == JOB_CREATED
        assert connection.request(ECHO_REQ, b"").command == ECHO_RES
