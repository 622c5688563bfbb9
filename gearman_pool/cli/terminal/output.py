"""What the program prints: tables, JSON, and lines on stderr. With `rich`, if it is installed, on a terminal.

Any thread may print. Nothing is drawn in colour where the stream is no terminal.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import IO, Any

__all__ = [
    "PROGRAM",
    "allow_any_text",
    "complain",
    "has_rich",
    "json_payload",
    "note",
    "print_json",
    "print_rows",
    "write_bytes",
]

PROGRAM = "gearman-pool"

#: How rich shows some words.
_STYLES = {"UP": "green", "DOWN": "bold red"}


def has_rich(stream: IO[Any]) -> bool:
    """Return whether output to this stream may be drawn by rich."""
    return stream.isatty() and find_spec("rich") is not None


def allow_any_text() -> None:
    """Have no text be an error for stdout. For bytes that are no UTF-8, what comes out in JSON is JSON's own escape."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def note(text: str) -> None:
    """Print a line on stderr."""
    # In one write: several threads, and the processes of a supervisor, may do it at the same time.
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def complain(text: str) -> None:
    """Print what went wrong on stderr, in one line."""
    note(f"{PROGRAM}: {text}")


def write_bytes(data: bytes) -> None:
    """Write a job's bytes to stdout as they are, at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as JSON; ``indent=None`` makes it one line."""
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def json_payload(name: str, data: bytes) -> dict[str, str]:
    """Return bytes for JSON: as text if they are UTF-8, else as base64 under another name."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], as_json: bool, empty: str) -> None:
    """Print rows as a table, or as a list of JSON objects.

    Args:
        rows: The rows.
        columns: The keys to show in a table, and their titles; JSON has all keys.
        as_json: Whether to print JSON.
        empty: What a person is told in place of an empty table.
    """
    if as_json:
        print_json([dict(row) for row in rows])
    elif not rows:
        note(empty)
    elif has_rich(sys.stdout):
        _print_rich(rows, columns)
    else:
        print(plain_table(rows, columns), flush=True)


def plain_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return a table as text: numbers to the right, everything else to the left, two spaces between."""
    lines = [list(columns.values())] + [[cell(row[key]) for key in columns] for row in rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    right = [all(_is_number(row[key]) for row in rows) for key in columns]
    padded = (
        "  ".join(
            text.rjust(width) if flush_right else text.ljust(width)
            for text, width, flush_right in zip(line, widths, right, strict=True)
        )
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def cell(value: Any) -> str:
    """Return a value as the text of a table's cell, in one line."""
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(map(_readable, " ".join(value.split()))) if isinstance(value, str) else str(value)


def _readable(character: str) -> str:
    """Return a character as a terminal may have it: names may hold bytes that are no UTF-8, and control characters."""
    if character.isprintable():
        return character
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _print_rich(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    from rich.console import Console

    Console(file=sys.stdout, highlight=False).print(rich_table(rows, columns))


def rich_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Any:
    """Return a table for rich."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for key, title in columns.items():
        table.add_column(title, justify="right" if all(_is_number(row[key]) for row in rows) else "left")
    for row in rows:
        # Text, because names of tasks may hold what rich takes for markup.
        table.add_row(*(Text(cell(row[key]), _STYLES.get(str(row[key]), "")) for key in columns))
    return table
