"""Draws a job's way: ``.. job-way:: module:TABLE`` becomes a picture with a lane for each thread, and a list of steps.

The table is a tuple of steps as `gearman_pool.jobs.flight.Step` describes them; time runs downwards. Colours are the
page's text colour, so that the picture suits light and dark pages; its width suits a phone.
"""

from __future__ import annotations

import importlib
from html import escape
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

_WIDTH = 380
_HEAD = 26

#: Between two boxes of one lane, and where something is handed over between them.
_GAP, _WIDE_GAP = 20, 48

#: The height of a line of text in a box, and the average width of a capital letter in it.
_LINE, _CAPITAL = 14, 7.3

#: The room for arrows at both sides of a lane.
_SIDE = 8

_STYLE = 'fill="none" stroke="currentColor" stroke-opacity=".75"'


def draw(steps: tuple[Any, ...]) -> str:
    """Return the way as SVG."""
    lanes = _lanes(steps)
    boxes = _boxes(steps, lanes)
    height = max(bottom for _, _, _, bottom in boxes.values()) + 8
    summary = "; ".join(f"{number}. {step.thread}: {step.method}()" for number, step in enumerate(steps, 1))
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
            'aria-labelledby="job-way-title job-way-text" font-family="sans-serif" font-size="11" fill="currentColor" '
            'style="width:100%;max-width:520px;height:auto">'
            '<title id="job-way-title">The way of a job through the threads</title>'
            f'<desc id="job-way-text">{escape(summary)}. The list below says the same in words.</desc>'
            '<defs><marker id="way-tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L10 5L0 10z" fill="currentColor"/></marker></defs>'
        )
    ]
    for thread, (left, right) in lanes.items():
        parts.append(
            f'<rect x="{left}" y="0" width="{right - left}" height="{height:.0f}" rx="6" fill-opacity=".06"/>'
            f'<text x="{(left + right) / 2}" y="17" text-anchor="middle" font-weight="bold" font-size="11">'
            f"{escape(thread)}</text>"
        )
    for step in steps:
        for before, through in step.after.items():
            if before in boxes:
                parts.append(_arrow(boxes, before, step.method, through, lanes))
            else:
                parts.append(_beginning(before, boxes[step.method]))
    for number, step in enumerate(steps, 1):
        parts.append(_box(number, step, boxes[step.method]))
    return "".join([*parts, "</svg>"])


def _lanes(steps: tuple[Any, ...]) -> dict[str, tuple[float, float]]:
    """Left and right of each thread's lane, in the order in which the threads come; wider where more moves are made."""
    threads = list(dict.fromkeys(step.thread for step in steps))
    moves = {thread: sum(len(step.moves) for step in steps if step.thread == thread) for thread in threads}
    busiest = max(threads, key=lambda thread: moves[thread])
    gap = 4
    wide = 160
    narrow = (_WIDTH - wide - gap * (len(threads) - 1)) / (len(threads) - 1)
    lanes, left = {}, 0.0
    for thread in threads:
        right = left + (wide if thread == busiest else narrow)
        lanes[thread] = left, right
        left = right + gap
    return lanes


def _lines(step: Any, width: float) -> list[str]:
    """The moves of a step, each on one line if it fits, else on two."""
    lines = []
    for start, end in step.moves:
        line = f"{start} \N{RIGHTWARDS ARROW} {end}"
        fits = len(line) * _CAPITAL <= width
        lines += [line] if fits else [start, f"\N{RIGHTWARDS ARROW} {end}"]
    return lines


def _boxes(
    steps: tuple[Any, ...], lanes: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float, float, float]]:
    """Left, top, right and bottom of each step's box. What is handed over by the same step stands in one row."""
    boxes: dict[str, tuple[float, float, float, float]] = {}
    last = _HEAD
    for step in steps:
        left, right = lanes[step.thread]
        if right - left > _WIDTH / 3:
            left, right = left + _SIDE + 3, right - _SIDE - 3
        else:
            left, right = left + 3, right - 3
        above = [boxes[before][3] for before in step.after if before in boxes]
        handed = any(step.after.values())
        top = last + 4 + _WIDE_GAP - _GAP if not above else max(above) + _WIDE_GAP if handed else last + _GAP
        # The lane may be taken there.
        top = max([top, *(box[3] + _WIDE_GAP for box in boxes.values() if box[0] == left and box[3] > top - _GAP)])
        bottom = top + 8 + _LINE * (1 + len(_lines(step, right - left)))
        boxes[step.method] = left, top, right, bottom
        last = max(last, bottom)
    return boxes


def _box(number: int, step: Any, box: tuple[float, float, float, float]) -> str:
    left, top, right, bottom = box
    middle = (left + right) / 2
    dashes = "" if step.always else ' stroke-dasharray="4 3"'
    parts = [
        (
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" rx="5" '
            f'fill-opacity=".08" stroke="currentColor"{dashes}/>'
            f'<text x="{middle:.1f}" y="{top + 15:.1f}" text-anchor="middle" font-size="11.5">{number} '
            f'<tspan font-family="monospace" font-size="11">{escape(step.method)}</tspan></text>'
        )
    ]
    for row, line in enumerate(_lines(step, right - left), 2):
        parts.append(
            f'<text x="{middle:.1f}" y="{top + 1 + _LINE * row:.1f}" text-anchor="middle">{escape(line)}</text>'
        )
    return "".join(parts)


def _pill_width(text: str) -> float:
    return len(text) * 6.1 + 8


def _pill(text: str, x: float, y: float) -> str:
    wide = _pill_width(text)
    return (
        f'<rect x="{x - wide / 2:.1f}" y="{y - 9:.1f}" width="{wide:.1f}" height="18" rx="9" fill-opacity=".08" '
        f'stroke="currentColor"/><text x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle" font-style="italic">'
        f"{escape(text)}</text>"
    )


def _beginning(text: str, box: tuple[float, float, float, float]) -> str:
    """The call with which it begins, above the first box."""
    x, y = (box[0] + box[2]) / 2, box[1] - _GAP
    return f'{_pill(text, x, y - 5)}<path d="M{x:.1f} {y + 4:.1f}V{box[1]:.1f}" {_STYLE} marker-end="url(#way-tip)"/>'


def _arrow(
    boxes: dict[str, tuple[float, float, float, float]],
    before: str,
    method: str,
    through: str,
    lanes: dict[str, tuple[float, float]],
) -> str:
    start, end = boxes[before], boxes[method]
    x, y = (start[0] + start[2]) / 2, start[3]
    to_x, to_y = (end[0] + end[2]) / 2, end[1]
    if through:
        turn = to_y - _WIDE_GAP / 2
        # Between the two lanes stands what hands the job over.
        edge = next(right for left, right in lanes.values() if left <= min(x, to_x) <= right) + 2
        wide = _pill_width(through)
        side = 1 if to_x > x else -1
        near, far = edge - side * wide / 2, edge + side * wide / 2
        return (
            f'<path d="M{x:.1f} {y:.1f}V{turn:.1f}H{near:.1f}" {_STYLE}/>{_pill(through, edge, turn)}'
            f'<path d="M{far:.1f} {turn:.1f}H{to_x:.1f}V{to_y:.1f}" {_STYLE} marker-end="url(#way-tip)"/>'
        )
    between = [box for box in boxes.values() if box[0] == start[0] and y < box[1] < to_y and box is not end]
    if to_y < y:
        aside = start[2] + _SIDE
        path = f"M{start[2]:.1f} {(start[1] + y) / 2:.1f}H{aside:.1f}V{to_y + 10:.1f}H{end[2]:.1f}"
    elif between:
        aside = start[0] - _SIDE
        path = f"M{start[0]:.1f} {y - 8:.1f}H{aside:.1f}V{to_y + 10:.1f}H{end[0]:.1f}"
    else:
        path = f"M{x:.1f} {y:.1f}V{to_y:.1f}"
    return f'<path d="{path}" {_STYLE} marker-end="url(#way-tip)"/>'


class JobWay(Directive):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the picture and the list of steps."""
        module, _, name = self.arguments[0].partition(":")
        steps = getattr(importlib.import_module(module), name)
        picture = nodes.raw("", f"<p>{draw(steps)}</p>", format="html")
        listed = nodes.enumerated_list(enumtype="arabic", prefix="", suffix=".")
        for step in steps:
            moves = "".join(f"; {start} to {end}" for start, end in step.moves)
            line = nodes.paragraph("", f"{step.thread[:1].upper()}{step.thread[1:]}, ")
            line += nodes.literal("", f"{step.method}()")
            line += nodes.Text(f": {step.what}{moves}")
            listed += nodes.list_item("", line)
        return [picture, listed]


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("job-way", JobWay)
    return {"parallel_read_safe": True}
