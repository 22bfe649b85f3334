"""The charts of a report as SVG: scores against cost, one small chart for each task, with a legend above them.

Lines and marks have classes, so that the style sheet colours them for light and for dark pages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from laconic.bench.comparison import Words
from laconic.bench.specs import NONE
from laconic.bench.statistics import Interval
from laconic.bench.summary import Line
from laconic.bench.table import tasks

COLOURS = 7
"""Classes c0, c1 ... of the style sheet."""
MARKS = (
    "M-4,-4L4,4M4,-4L-4,4",
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "M-3.5,-3.5h7v7h-7z",
    "M0,-5L5,0L0,5L-5,0z",
    "M0,-5L4.6,3.5H-4.6z",
    "M0,5L4.6,-3.5H-4.6z",
    "M0,-5V5M-5,0H5",
    "M-5,-2.5H5V2.5H-5z",
)
"""Outlines around (0, 0): as 7 and 8 have no common divisor, 56 methods differ in colour or mark."""
DASHES = ("", "6 3", "2 3", "7 3 2 3")
WIDTH, HEIGHT = 340, 250
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 26, 40


@dataclass(frozen=True)
class Scale:
    """Percent of the cost (logarithmic, from `low`) and of the score to places in a chart."""

    low: float

    @classmethod
    def of(cls, lines: list[Line]) -> Scale:
        """From a little below the smallest cost, and from a half at most."""
        return cls(min(70 * min(line.cost for line in lines), 50))

    def x(self, cost: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(cost / self.low) / math.log(115 / self.low)

    def y(self, score: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (106 - score) / 110


def charts(lines: list[Line]) -> str:
    """One section: a legend, the mean over the tasks where there are several, and every task."""
    methods = [method for method in dict.fromkeys(line.method for line in lines) if method != NONE]
    names = tasks(lines)
    shown: list[str | None] = [*names] if len(names) == 1 else [None, *names]
    panels = "".join(_panel(lines, task, methods) for task in shown)
    return f'<div class="legend">{_legend(methods)}</div>\n<div class="charts">{panels}</div>'


def _legend(methods: list[str]) -> str:
    def entry(name: str, drawing: str, kind: str = "") -> str:
        return f'<span><svg viewBox="-16 -8 32 16"{kind} aria-hidden="true">{drawing}</svg>{escape(name)}</span>'

    rows = [
        entry(
            method,
            f'<path class="curve" d="M-15,0H15"{_dash(i)}/><path class="mark" d="{_mark(i)}"/>',
            f' class="{_colour(i)}"',
        )
        for i, method in enumerate(methods)
    ]
    return "".join([*rows, entry("uncompressed", '<path class="full" d="M-15,0H15"/>')])


def _panel(lines: list[Line], task: str | None, methods: list[str]) -> str:
    words, scale, title = lines[0].comparison.words, Scale.of(lines), task or "mean of the tasks"
    parts = [f'<text class="title" x="{LEFT}" y="16">{escape(title)}</text>', _axes(scale, words)]
    full = next((line for line in lines if line.method == NONE), None)
    if full is not None and (interval := _interval(full, task)) is not None:
        parts.append(_ceiling(interval, scale, words))
    for number, method in enumerate(methods):
        own = [(line, found) for line in lines if line.method == method and (found := _interval(line, task)) is not None]
        parts.append(_curve(sorted(own, key=lambda pair: pair[0].cost), number, scale, words))
    name = escape(f"{title}: {words.score} against {words.cost}", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'


def _axes(scale: Scale, words: Words) -> str:
    parts = []
    for score in (0, 25, 50, 75, 100):
        parts.append(f'<path class="grid" d="M{LEFT},{scale.y(score):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{scale.y(score) + 4:.1f}" text-anchor="end">{score}</text>')
    for cost in (tick for tick in (1, 2, 5, 10, 20, 50, 100) if tick >= scale.low):
        parts.append(f'<path class="grid" d="M{scale.x(cost):.1f},{TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{scale.x(cost):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{cost} %</text>')
    under = escape(f"{words.cost} of uncompressed; up: {words.score}, %")
    return "".join(
        [*parts, f'<text x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{HEIGHT - 6}" text-anchor="middle">{under}</text>']
    )


def _ceiling(interval: Interval, scale: Scale, words: Words) -> str:
    """The uncompressed model as a line over the panel, with its interval as a band."""
    low, high, mean = (scale.y(100 * value) for value in (interval.low, interval.high, interval.mean))
    across = WIDTH - RIGHT - LEFT
    return (
        f"<g><title>{escape(f'uncompressed: {words.score} {_percent(interval)}')}</title>"
        f'<rect class="band" x="{LEFT}" y="{high:.1f}" width="{across}" height="{low - high:.1f}"/>'
        f'<path class="full" d="M{LEFT},{mean:.1f}h{across}"/></g>'
    )


def _curve(points: list[tuple[Line, Interval]], number: int, scale: Scale, words: Words) -> str:
    """One method: a line through its budgets; at each a mark, the interval as a bar, and the figures on hover."""
    if not points:
        return ""
    places = [(scale.x(100 * line.cost), scale.y(100 * found.mean)) for line, found in points]
    path = "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = []
    for (line, found), (x, y) in zip(points, places, strict=True):
        told = (
            f"{line.method}: {words.score} {_percent(found)}, {words.short_cost} {100 * line.cost:.2f} %, "
            f"asked {line.budget}, kept {line.achieved:.4f}"
        )
        bar = f"M{x:.1f},{scale.y(100 * found.high):.1f}V{scale.y(100 * found.low):.1f}"
        marks.append(
            f'<g><title>{escape(told)}</title><path class="bar" d="{bar}"/>'
            f'<path class="mark" transform="translate({x:.1f},{y:.1f})" d="{_mark(number)}"/></g>'
        )
    return f'<g class="{_colour(number)}"><path class="curve" d="M{path}"{_dash(number)}/>{"".join(marks)}</g>'


def _interval(line: Line, task: str | None) -> Interval | None:
    return line.mean if task is None else line.tasks.get(task)


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _colour(number: int) -> str:
    return f"c{number % COLOURS}"


def _mark(number: int) -> str:
    return MARKS[number % len(MARKS)]


def _dash(number: int) -> str:
    dash = DASHES[number // COLOURS % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""
