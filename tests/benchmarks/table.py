"""What the benchmarks print: the table, or everything as JSON."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence

from .measuring import Measured, Outcome

__all__ = ["machine", "table", "to_json"]

_TITLES = ("row", "what", "peer", "ours", "peer's", "unit", "ratio", "target", "")
_RIGHT = frozenset({"ours", "peer's", "ratio"})


def machine() -> str:
    """Interpreter, processors and revision, in a line."""
    found = _revision()
    revision = f", revision {found}" if found else ""
    return f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} processors{revision}"


def _revision() -> str:
    """The revision of the project, or nothing where there is no git, or no repository."""
    command = ["git", "-C", os.path.dirname(__file__), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


def _line(measured: Measured) -> tuple[str, ...]:
    row = measured.row
    peer = measured.peer.median(row.metric) if measured.peer else None
    ratio = f"{measured.value:.2f}x" if measured.peer and measured.value is not None else "-"
    ours = _number(measured.ours.median(row.metric))
    return row.name, row.what, row.peer_name or "-", ours, _number(peer), row.unit, ratio, row.target, measured.verdict


def table(results: Sequence[Measured]) -> str:
    """The results as a table, and below it why numbers are missing."""
    lines = [_TITLES, *map(_line, results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
    text = []
    for line in lines:
        cells = zip(_TITLES, line, widths, strict=True)
        text.append("  ".join(c.rjust(w) if title in _RIGHT else c.ljust(w) for title, c, w in cells).rstrip())
    text.insert(1, "  ".join("-" * width for width in widths))
    notes = dict.fromkeys(f"{measured.row.name}: {note}" for measured in results for note in measured.notes)
    return "\n".join([*text, *notes])


def _outcome(outcome: Outcome | None) -> dict[str, object] | None:
    if outcome is None:
        return None
    return {"runs": outcome.runs, "missing": outcome.missing, "error": outcome.error}


def to_json(results: Sequence[Measured]) -> str:
    """All numbers of all runs."""
    rows = [
        {
            "row": measured.row.name,
            "what": measured.row.what,
            "peer_name": measured.row.peer_name or None,
            "metric": measured.row.metric,
            "unit": measured.row.unit,
            "value": measured.value,
            "target": measured.row.target or None,
            "verdict": measured.verdict or None,
            "ours": _outcome(measured.ours),
            "peer": _outcome(measured.peer),
        }
        for measured in results
    ]
    return json.dumps({"machine": machine(), "rows": rows}, indent=2)
