"""The administrative text commands and their answers, as bytes alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearman_pool.errors import ProtocolError
from gearman_pool.protocol.session import TEXT_BLOCK, TEXT_LINE
from gearman_pool.protocol.text import (
    MAX_COMMAND_LENGTH,
    MAX_WORDS,
    TEXT_COMMANDS,
    pack_text_command,
    parse_error,
    parse_jobs,
    parse_ok,
    parse_priority_status,
    parse_status,
    parse_unique_jobs,
    parse_value,
    parse_workers,
    split_text_command,
)


def test_table_says_which_commands_are_answered_by_a_block() -> None:
    blocks = {name for name, command in TEXT_COMMANDS.items() if command.answer == TEXT_BLOCK}
    lines = {name for name, command in TEXT_COMMANDS.items() if command.answer == TEXT_LINE}
    assert blocks == {"status", "prioritystatus", "workers", "show jobs", "show unique jobs"}
    assert lines == set(TEXT_COMMANDS) - blocks


def test_no_command_of_the_table_can_exceed_the_words_the_server_takes() -> None:
    for name, command in TEXT_COMMANDS.items():
        assert len(name.split()) + len(command.arguments) <= MAX_WORDS


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("status",), b"status\r\n"),
        (("show unique jobs",), b"show unique jobs\r\n"),
        (("create function", "resize"), b"create function resize\r\n"),
        (("drop function", "größe"), "drop function größe\r\n".encode()),
        (("cancel job", b"H:host:1"), b"cancel job H:host:1\r\n"),
        (("maxqueue", "resize"), b"maxqueue resize\r\n"),
        (("maxqueue", "resize", "3"), b"maxqueue resize 3\r\n"),
        (("maxqueue", "resize", "3", "2", "1"), b"maxqueue resize 3 2 1\r\n"),
        (("maxqueue", "resize", b"-1"), b"maxqueue resize -1\r\n"),
        (("shutdown",), b"shutdown\r\n"),
        (("shutdown", "graceful"), b"shutdown graceful\r\n"),
    ],
)
def test_command_becomes_one_line(arguments: tuple[str, ...], line: bytes) -> None:
    assert pack_text_command(*arguments) == line


@pytest.mark.parametrize("separator", list(" \t\n\r\v\f\0"))
@pytest.mark.parametrize("template", ["a{}b", "{}a", "a{}", "{}"])
def test_argument_that_would_make_other_words_is_refused(separator: str, template: str) -> None:
    with pytest.raises(ValueError, match="the task of create function"):
        pack_text_command("create function", template.format(separator))
    with pytest.raises(ValueError, match="the handle of cancel job"):
        pack_text_command("cancel job", template.format(separator).encode())


def test_command_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'reboot' is not an administrative command; those are status, .*shutdown"):
        pack_text_command("reboot")


@pytest.mark.parametrize("arguments", [("cancel job",), ("status", "x"), ("maxqueue", "f", "1", "2", "3", "4")])
def test_wrong_number_of_arguments_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="takes the arguments"):
        pack_text_command(*arguments)


def test_empty_argument_is_refused() -> None:
    with pytest.raises(ValueError, match="the task of drop function is empty"):
        pack_text_command("drop function", "")


@pytest.mark.parametrize("value", [None, 1, bytearray(b"a"), ["a"]])
def test_argument_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="the task of maxqueue is"):
        pack_text_command("maxqueue", value)  # type: ignore[arg-type]


def test_line_may_be_as_long_as_the_server_takes_and_no_longer() -> None:
    room = MAX_COMMAND_LENGTH - len(b"create function \r\n")
    assert len(pack_text_command("create function", "x" * room)) == MAX_COMMAND_LENGTH
    with pytest.raises(ValueError, match=f"8192 bytes; the server takes {MAX_COMMAND_LENGTH} at most"):
        pack_text_command("create function", "x" * (room + 1))


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        ("status", "status", []),
        ("STATUS\n", "status", []),
        ("show unique jobs", "show unique jobs", []),
        ("show  jobs", "show jobs", []),
        ("maxqueue F 3 2 1", "maxqueue", ["F", "3", "2", "1"]),
        ("shutdown graceful", "shutdown", ["graceful"]),
    ],
)
def test_line_written_by_a_person_is_split(line: str, name: str, arguments: list[str]) -> None:
    assert split_text_command(line) == (name, arguments)


@pytest.mark.parametrize("line", ["", "show", "show x", "cancel", "help", "statusx"])
def test_line_without_a_known_command_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is not an administrative command"):
        split_text_command(line)


def test_line_of_more_words_than_the_server_takes_is_refused() -> None:
    with pytest.raises(ValueError, match="5 words at most, not 6"):
        split_text_command("maxqueue f 1 2 3 4")


def test_status_rows() -> None:
    assert parse_status([b"resize\t12\t3\t4", b"mail\t0\t0\t0"]) == (
        {"task": "resize", "queued": 12, "running": 3, "workers": 4},
        {"task": "mail", "queued": 0, "running": 0, "workers": 0},
    )
    assert parse_status([]) == ()


def test_priority_status_rows() -> None:
    assert parse_priority_status([b"resize\t1\t2\t3\t4"]) == (
        {"task": "resize", "high": 1, "normal": 2, "low": 3, "workers": 4},
    )


@pytest.mark.parametrize(
    ("lines", "task"),
    [
        ([b"a b\t1\t2\t3"], "a b"),
        ([b"a\tb\t1\t2\t3"], "a\tb"),
        ([b"7\t1\t2\t3"], "7"),
        ([b"a\t7\t1\t2\t3"], "a\t7"),
        ([b"\t1\t2\t3"], ""),
        ([b".\t1\t2\t3"], "."),
        ([b"ERR no error\t1\t2\t3"], "ERR no error"),
        ([b"a", b"b\t1\t2\t3"], "a\nb"),
        ([b"a", b"", b"b\t1\t2\t3"], "a\n\nb"),
    ],
)
def test_status_keeps_the_strangest_names(lines: list[bytes], task: str) -> None:
    (row,) = parse_status(lines)
    assert row == {"task": task, "queued": 1, "running": 2, "workers": 3}


def test_name_that_is_not_utf8_can_be_given_back_as_it_was_listed() -> None:
    (row,) = parse_status([b"\xff\xfe\t0\t0\t0"])
    assert pack_text_command("drop function", row["task"]) == b"drop function \xff\xfe\r\n"


@pytest.mark.parametrize(
    "lines", [[b""], [b"a"], [b"a\t1\t2"], [b"a\tx\t2\t3"], [b"a\t1\t2\t-3"], [b"a\t0\t0\t0", b"b"]]
)
def test_status_of_another_form_raises_protocol_error(lines: list[bytes]) -> None:
    with pytest.raises(ProtocolError, match="lacks the 3 numbers"):
        parse_status(lines)


@pytest.mark.parametrize(
    ("lines", "row"),
    [
        ([b"36 127.0.0.1 - :"], ("36", "127.0.0.1", "-", ())),
        ([b"-1 127.0.0.1 - :"], ("-1", "127.0.0.1", "-", ())),
        ([b"36 ::1 web-1 : resize mail"], ("36", "::1", "web-1", ("resize", "mail"))),
        ([b"36 127.0.0.1  :"], ("36", "127.0.0.1", "", ())),
        ([b"36 127.0.0.1  : f"], ("36", "127.0.0.1", "", ("f",))),
        ([b"36 127.0.0.1 my own worker : f g"], ("36", "127.0.0.1", "my own worker", ("f", "g"))),
        ([b"36 127.0.0.1 web : 1 : f"], ("36", "127.0.0.1", "web : 1", ("f",))),
        ([b"36 127.0.0.1 web : 1 :"], ("36", "127.0.0.1", "web : 1", ())),
        ([b"36 127.0.0.1 a", b"b : f"], ("36", "127.0.0.1", "a\nb", ("f",))),
        ([b"36 127.0.0.1 a", b"7 b c : f"], ("36", "127.0.0.1", "a\n7 b c", ("f",))),
    ],
)
def test_workers_row_is_split_around_its_last_colon(
    lines: list[bytes], row: tuple[str, str, str, tuple[str, ...]]
) -> None:
    expected = dict(zip(("file_descriptor", "ip", "client_id", "tasks"), row, strict=True))
    other = {"file_descriptor": "9", "ip": "10.0.0.1", "client_id": "-", "tasks": ("x",)}
    assert parse_workers(lines) == (expected,)
    assert parse_workers([b"9 10.0.0.1 - : x", *lines, b"9 10.0.0.1 - : x"]) == (other, expected, other)


@pytest.mark.parametrize("lines", [[b""], [b"x"], [b"36 127.0.0.1"], [b"36 127.0.0.1 -"], [b"a 127.0.0.1 - :"]])
def test_workers_of_another_form_raises_protocol_error(lines: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        parse_workers(lines)


def test_jobs_have_the_columns_under_their_right_names_and_python_gearmans() -> None:
    retries, ignored, queued = 5, 1, 0
    (row,) = parse_jobs([b"H:host:1\t5\t1\t0"])
    assert row == {
        "handle": "H:host:1",
        "retries": retries,
        "ignored": ignored,
        "queued": queued,
        "canceled": ignored,
        "enabled": queued,
    }


def test_unique_jobs_are_rows_of_one_text() -> None:
    assert parse_unique_jobs([b"a", b"b\tc", b""]) == ({"unique": "a"}, {"unique": "b\tc"}, {"unique": ""})


@pytest.mark.parametrize(
    ("line", "value"),
    [(b"OK 1.1.20+ds", "1.1.20+ds"), (b"OK", ""), (b"OK ", ""), (b"1.130", "1.130"), (b"OKAY", "OKAY")],
)
def test_value_comes_without_ok(line: bytes, value: str) -> None:
    assert parse_value(line) == value


def test_ok_is_ok_and_nothing_else_is() -> None:
    assert parse_ok(b"OK") == "OK"
    assert parse_ok(b"OK done") == "OK"
    for line in (b"", b"OKAY", b"ok", b"3"):
        with pytest.raises(ProtocolError, match="where OK was due"):
            parse_ok(line)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"ERR UNKNOWN_JOB", ("UNKNOWN_JOB", "")),
        (b"ERR UNKNOWN_COMMAND Unknown+server+commandhelp", ("UNKNOWN_COMMAND", "Unknown server commandhelp")),
        (b"ERR bad_args no%20such%20thing", ("bad_args", "no such thing")),
        (b"ERR X \xff%ff", ("X", "\ufffd\ufffd")),
        (b"ERR function not found", ("ERR", "function not found")),
        (b"ERR", ("ERR", "")),
        (b"ERR ", ("ERR", "")),
        (b"OK", None),
        (b"ERRATA", None),
        (b"", None),
    ],
)
def test_error_line_gives_code_and_text(line: bytes, error: tuple[str, str] | None) -> None:
    assert parse_error(line) == error


@pytest.mark.parametrize("line", [b"ERR", b"ERR a b c", b"ERR a\t0\t0\t0", b"ERR a b\t0\t0\t0", b"ERR \t0\t0\t0"])
def test_row_of_names_is_not_taken_for_an_error(line: bytes) -> None:
    assert parse_error(line, coded=True) is None


_lines = st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line), max_size=8)
_rowish = st.lists(
    st.lists(st.sampled_from([b"a", b"1", b"22", b"\t", b" ", b" : ", b":", b"\xff", b"."]), max_size=10).map(b"".join),
    max_size=8,
)


@pytest.mark.parametrize("parse", [parse_status, parse_priority_status, parse_workers, parse_jobs, parse_unique_jobs])
@given(lines=_lines | _rowish)
def test_block_parsers_raise_nothing_but_protocol_error(parse, lines: list[bytes]) -> None:  # type: ignore[no-untyped-def]
    try:
        rows = parse(lines)
    except ProtocolError:
        return
    assert len(rows) <= len(lines)


_names = (
    st.text(min_size=1, max_size=20)
    .map(lambda name: name.encode("utf-8", "surrogatepass"))
    .filter(lambda name: b"\n" not in name)
)


@given(st.lists(st.tuples(_names, st.integers(0, 2**32), st.integers(0, 2**32), st.integers(0, 2**32))))
def test_status_rows_come_back_as_they_were_written(rows: list[tuple[bytes, int, int, int]]) -> None:
    lines = [b"%b\t%d\t%d\t%d" % row for row in rows]
    parsed = parse_status(lines)
    assert [
        (row["task"].encode("utf-8", "surrogateescape"), row["queued"], row["running"], row["workers"])
        for row in parsed
    ] == rows
