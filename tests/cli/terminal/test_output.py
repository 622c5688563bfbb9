"""Tables and text, on a terminal, on a pipe, and where not every character can be shown."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.raw import CAN_DO, SUBMIT_JOB_BG

from ..running import Terminal, run


def test_status_without_a_terminal_is_a_plain_table(gearmand, background_job):
    lines = run("status", server=gearmand).stdout.decode().splitlines()
    assert lines[0].split() == ["SERVER", "TASK", "WAITING", "RUNNING", "WORKERS"]
    assert lines[1].split() == [gearmand.address, "nobody", "1", "0", "0"]


def test_status_on_a_terminal_is_a_table_too(gearmand, background_job):
    with Terminal("status", server=gearmand) as terminal:
        assert terminal.end() == 0
    assert re.search(r"TASK.*WAITING", terminal.text)
    assert "nobody" in terminal.text


@pytest.mark.parametrize("command", ["status", "workers", "jobs", "top"])
def test_names_that_are_no_utf_8_are_shown(gearmand, command):
    with gearmand.connect() as connection:
        for name in (b"caf\xe9", b"caf\xc3\xa9"):
            connection.send(CAN_DO, name)
        for name in (b"\xff\xfe", b"\xe2\x82\xac"):
            connection.request(SUBMIT_JOB_BG, name, b"\xfd", b"")
        arguments = [command, "--once"] if command == "top" else [command]
        plain, as_json = (run(*arguments, *more, server=gearmand) for more in ([], ["--json"]))
    assert (plain.returncode, as_json.returncode) == (0, 0)
    text, value = plain.stdout.decode(), json.dumps(json.loads(as_json.stdout))
    if command in ("status", "top"):
        assert "\\xff\\xfe" in text
        assert "€" in text
        assert r"\udcff\udcfe" in value
        assert r"\u20ac" in value
    if command in ("workers", "top"):
        assert "caf\\xe9" in text
        assert "café" in text
        assert r"caf\udce9" in value
        assert r"caf\u00e9" in value


def test_names_that_the_terminal_cannot_show_are_no_error(gearmand):
    with gearmand.connect() as connection:
        connection.request(SUBMIT_JOB_BG, "naïve €".encode(), b"", b"")
    done = run("status", server=gearmand, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert rb"na\xefve \u20ac" in done.stdout
