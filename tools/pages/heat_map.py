"""Scores as a heat map in SVG: a row for each method, blocks of columns side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

LEFT, TOP, WIDE, HIGH, GAP = 250, 58, 46, 22, 14
FULL = (0, 82, 136)
"""The colour of 100 %; 0 % is white, and grey means that there is no result."""


@dataclass(frozen=True)
class Block:
    """Columns with one title; `score(method, column)` is a share, or None."""

    title: str
    columns: tuple[str, ...]
    score: Callable[[str, int], float | None]


def heat_map(methods: list[str], blocks: list[Block]) -> str:
    """The image, as SVG."""
    width = LEFT + sum(len(block.columns) * WIDE + GAP for block in blocks)
    height = TOP + len(methods) * HIGH + 12
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" ']
    out += ['font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>']
    x0 = LEFT
    for block in blocks:
        middle = x0 + len(block.columns) * WIDE / 2
        out.append(
            f'<text x="{middle}" y="20" text-anchor="middle" font-size="11" font-weight="bold">{escape(block.title)}</text>'
        )
        for j, column in enumerate(block.columns):
            out.append(f'<text x="{x0 + (j + 0.5) * WIDE}" y="44" text-anchor="middle" fill="#555">{escape(column)}</text>')
            out += [_cell(block.score(method, j), x0 + j * WIDE, TOP + k * HIGH) for k, method in enumerate(methods)]
        x0 += len(block.columns) * WIDE + GAP
    for k, method in enumerate(methods):
        place = f'x="{LEFT - 8}" y="{TOP + k * HIGH + HIGH / 2 + 3}"'
        out.append(f'<text {place} text-anchor="end" fill="#222">{escape(method)}</text>')
    return "\n".join([*out, "</svg>", ""])


def _cell(share: float | None, x: float, y: float) -> str:
    box = f'<rect x="{x}" y="{y}" width="{WIDE - 2}" height="{HIGH - 2}"'
    if share is None:
        return f'{box} fill="#eee"/>'
    red, green, blue = (round(255 + share * (full - 255)) for full in FULL)
    ink = "#fff" if share > 0.5 else "#222"
    place = f'x="{x + WIDE / 2 - 1}" y="{y + HIGH / 2 + 3}"'
    return (
        f'{box} fill="rgb({red},{green},{blue})"/><text {place} text-anchor="middle" fill="{ink}">{100 * share:.0f}</text>'
    )
