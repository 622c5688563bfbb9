"""Draws the code's state machines: ``.. state-machine:: module:TABLE`` becomes a picture and a table of its moves."""

from __future__ import annotations

import importlib
from html import escape
from math import hypot

from docutils import nodes
from docutils.parsers.rst import Directive, directives

_WIDTH, _HEIGHT = 132, 40

#: Where the states stand, in pixels of their centres.
_PLACES = {
    "UNKNOWN": (90, 60),
    "PENDING": (350, 60),
    "CREATED": (610, 60),
    "COMPLETE": (610, 220),
    "FAILED": (350, 220),
    "DOWN": (90, 60),
    "CONNECTING": (350, 60),
    "UP": (610, 60),
    "DRAINING": (350, 220),
    "AWAKE": (90, 60),
    "RESTING": (350, 60),
    "ASLEEP": (610, 60),
    "DOUBTED": (350, 220),
}


def draw(table: dict[str, dict[str, str]]) -> str:
    """Return the state machine as SVG."""
    moves = [(start, end) for start, ends in table.items() for end in ends]
    parts = [
        (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 250" width="700" role="img" '
            'font-family="sans-serif" '
            'font-size="14"><title>State machine</title><defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" '
            'markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L10 5L0 10z" fill="#5f7d99"/></marker></defs>'
        )
    ]
    for number, (start, end) in enumerate(moves, 1):
        parts.append(_arrow(number, _PLACES[start], _PLACES[end], (end, start) in moves))
    for state, ends in table.items():
        x, y = _PLACES[state]
        fill = "#eef3f8" if ends else "#f6e9d8"
        parts.append(
            f'<rect x="{x - _WIDTH / 2}" y="{y - _HEIGHT / 2}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" '
            f'fill="{fill}" '
            f'stroke="#5f7d99"/><text x="{x}" y="{y + 5}" text-anchor="middle">{escape(state)}</text>'
        )
    return "".join([*parts, "</svg>"])


def _arrow(number: int, start: tuple[int, int], end: tuple[int, int], both_ways: bool) -> str:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = hypot(dx, dy)
    # Far apart in one row: around the state between. Both ways: each a little to its own side.
    bend = 150.0 if abs(dx) > 400 and dy == 0 else 38.0 if both_ways else 0.0
    side_x, side_y = -dy / length, dx / length
    if bend == 150.0:
        side_x, side_y, bend = 0.0, -1.0, 74.0
    control = (start[0] + dx / 2 + side_x * bend, start[1] + dy / 2 + side_y * bend)
    first, last = _edge(start, control), _edge(end, control)
    middle = ((first[0] + 2 * control[0] + last[0]) / 4, (first[1] + 2 * control[1] + last[1]) / 4)
    curve = f"M{first[0]:.0f} {first[1]:.0f}Q{control[0]:.0f} {control[1]:.0f} {last[0]:.0f} {last[1]:.0f}"
    x, y = f"{middle[0]:.0f}", f"{middle[1]:.0f}"
    return (
        f'<path d="{curve}" fill="none" stroke="#5f7d99" marker-end="url(#tip)"/>'
        f'<circle cx="{x}" cy="{y}" r="10" fill="#fff" stroke="#5f7d99"/>'
        f'<text x="{x}" y="{y}" dy="4" text-anchor="middle" font-size="12">{number}</text>'
    )


def _edge(centre: tuple[int, int], towards: tuple[float, float]) -> tuple[float, float]:
    """Return where the line from a state's centre leaves its box."""
    dx, dy = towards[0] - centre[0], towards[1] - centre[1]
    scale = min(_WIDTH / 2 / abs(dx) if dx else 9.0, _HEIGHT / 2 / abs(dy) if dy else 9.0)
    return centre[0] + dx * scale, centre[1] + dy * scale


class StateMachine(Directive):
    """The directive."""

    required_arguments = 1
    option_spec = {"alt": directives.unchanged}  # noqa: RUF012 - docutils' own form

    def run(self) -> list[nodes.Node]:
        """Return the picture and the table of moves."""
        module, _, name = self.arguments[0].partition(":")
        raw = getattr(importlib.import_module(module), name)
        table = {_name(start): {_name(end): why for end, why in ends.items()} for start, ends in raw.items()}
        picture = nodes.raw("", f'<div style="overflow-x:auto">{draw(table)}</div>', format="html")
        moves = [(start, end, why) for start, ends in table.items() for end, why in ends.items()]
        steps = nodes.enumerated_list(enumtype="arabic", prefix="", suffix=".")
        for start, end, why in moves:
            steps += nodes.list_item("", nodes.paragraph("", f"{start} to {end}: {why}"))
        return [picture, steps]


def _name(state: object) -> str:
    return str(getattr(state, "value", state))


def setup(app: object) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("state-machine", StateMachine)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True}
