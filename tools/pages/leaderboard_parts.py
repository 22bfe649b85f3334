"""What the leaderboards share: marks of cells and methods, the tables that are checked in, and the page of two parts."""

from __future__ import annotations

import json
from pathlib import Path

from laconic.bench.statistics import Interval
from laconic.bench.store import Row
from laconic.bench.summary import Line
from laconic.bench.table import markdown
from laconic.method import find
from tools.pages.parts import RESULTS


def arrow(difference: Interval) -> str:
    """`` ▲`` or `` ▼`` where the interval of a difference excludes 0."""
    return " ▲" if difference.low > 0 else " ▼" if difference.high < 0 else ""


def traits(method: str) -> str:
    """``q`` if a method looks at the question, and what was learned offline for it: ``q trained``."""
    entry = find(method.partition(":")[0])
    return " ".join(["q"] * entry.query_aware + [entry.training] * (entry.training != "none"))


def write_results(name: str, rows: list[Row], lines: list[Line]) -> None:
    """The lines as benchmarks/results/`name`.json and, as one table, .md."""
    plain = {"machine": rows[0]["machine"], "settings": rows[0]["settings"], "lines": [line.as_dict() for line in lines]}
    (RESULTS / f"{name}.json").write_text(json.dumps(plain) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.md").write_text(markdown(lines), encoding="utf-8")


SHIPPED = "# On the shipped model\n"
"""Opens the second part of LEADERBOARD.md."""


def compose(page: Path, *, real: str | None = None, shipped: str | None = None) -> str:
    """The text of the page with one part replaced: the one on a real model, or, from its title on, the one on the shipped
    model."""
    known = page.read_text(encoding="utf-8") if page.exists() else ""
    first, title, second = known.partition(SHIPPED)
    first, second = real if real is not None else first, shipped if shipped is not None else title + second
    return "\n\n".join(filter(None, (first.strip(), second.strip()))) + "\n"
