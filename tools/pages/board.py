"""The tables of a leaderboard of methods that shorten media: right answers and FLOPs by method and share, best first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from laconic.bench.comparison import comparisons
from laconic.bench.specs import NONE
from laconic.bench.statistics import Interval
from laconic.bench.summary import Line
from laconic.bench.table import flops, percent, spread
from tools.pages.heat_map import Block
from tools.pages.leaderboard_parts import arrow, traits

CLOSE = 0.15
"""Achieved shares of tokens within this part of the share asked for are not printed beside the result."""
Rows = dict[str, dict[float, Line]]
"""Method -> share -> line."""
Pick = Callable[[Line], Interval | None]
"""Says which interval of a line is shown."""


@dataclass(frozen=True)
class Board:
    """The leaderboard of one modality at some shares of its tokens."""

    modality: str
    keeps: tuple[float, ...]

    @property
    def reference(self) -> str:
        """The method whose lead decides the order: tokens drawn at random."""
        return comparisons()[self.modality].references[0]

    @property
    def shares(self) -> tuple[str, ...]:
        """Titles of the columns."""
        return tuple(f"{100 * keep:g} %" for keep in self.keeps)

    def rows_of(self, lines: list[Line]) -> Rows:
        """The lines, the best method first: by the mean lead over the reference at the shares that it reaches."""
        found: Rows = {}
        for line in lines:
            if line.method != NONE and line.keep is not None:
                found.setdefault(line.method, {})[line.keep] = line
        filler = found[self.reference]

        def height(row: dict[float, Line]) -> float:
            return sum(line.mean.mean - filler[keep].mean.mean for keep, line in row.items()) / len(row)

        return dict(sorted(found.items(), key=lambda pair: -height(pair[1])))

    def refusals(self, rows: Rows) -> str:
        """Methods that do not reach a share."""
        lacking = []
        for method, row in rows.items():
            shares = [share for keep, share in zip(self.keeps, self.shares, strict=True) if keep not in row]
            lacking += [f"`{method}` at {', '.join(shares)}"] if shares else []
        return "; ".join(lacking) or "none"

    def cell(self, line: Line | None, interval: Interval | None) -> str:
        """``98 [95, 100] ▲``, with the achieved share where it is not the one asked for."""
        if line is None or interval is None:
            return "-"
        text = spread(interval)
        if interval is line.mean and self.reference in line.gains:
            text += arrow(line.gains[self.reference].interval)
        if interval is line.mean and line.keep and abs(line.achieved / line.keep - 1) > CLOSE:
            text += f" ({100 * line.achieved:.0f} %)"
        return text

    def table(self, rows: Rows, pick: Pick) -> list[str]:
        """One markdown table."""
        out = ["| method | | " + " | ".join(self.shares) + " |", "|---|---|" + "---:|" * len(self.keeps)]
        for method, row in rows.items():
            cells = [self.cell(row.get(keep), pick(row[keep]) if keep in row else None) for keep in self.keeps]
            out.append(f"| `{method}` | {traits(method)} | " + " | ".join(cells) + " |")
        return out

    def costs(self, rows: Rows) -> list[str]:
        """Prefill FLOPs of every method at every share that it reaches."""
        out = ["| method | " + " | ".join(self.shares) + " |", "|---|" + "---:|" * len(self.keeps)]
        for method, row in rows.items():
            cells = [flops(row[keep]) if keep in row else "-" for keep in self.keeps]
            out.append(f"| `{method}` | " + " | ".join(cells) + " |")
        return out

    def block(self, title: str, rows: Rows, pick: Pick) -> Block:
        """Columns of the figure."""

        def score(method: str, column: int) -> float | None:
            line = rows[method].get(self.keeps[column])
            interval = pick(line) if line else None
            return interval.mean if interval else None

        return Block(title, self.shares, score)


def complete(lines: list[Line]) -> list[Line]:
    """Lines that have every kind of question; a mean over those that a budget is not too small for would flatter it."""
    whole = next(line for line in lines if line.method == NONE)
    return [line for line in lines if line.tasks.keys() == whole.tasks.keys()]


def kinds_table(rows: Rows, keep: float, kinds: dict[str, str]) -> list[str]:
    """All tasks at one share, `kinds` with their titles: score, and score on the hard part where there is one."""
    out = ["| method | " + " | ".join(kinds.values()) + " |", "|---|" + "---:|" * len(kinds)]
    for method, row in rows.items():
        if keep in row:
            line, cells = row[keep], []
            for kind in kinds:
                hard = line.hard.tasks.get(kind) if line.hard else None
                cells.append(spread(line.tasks[kind]) + (f" / {percent(hard.mean)}" if hard else ""))
            out.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return out


def of_kind(kind: str) -> Callable[[Line], Interval]:
    """What picks the interval of one kind of question."""
    return lambda line: line.tasks[kind]
