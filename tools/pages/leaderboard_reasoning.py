"""Write docs/leaderboard-reasoning.md from benchmarks/results/reasoning.json.

Run: python -m tools.pages.leaderboard_reasoning [--check]
"""

from __future__ import annotations

from tools.pages.parts import DOCS, Row, percent, table, write_results

PAGE = DOCS / "leaderboard-reasoning.md"
INTRODUCTION = """# Leaderboard: thinking

Generated from `benchmarks/results/reasoning.json` by `python -m tools.pages.leaderboard_reasoning`; do not edit.

Right answers beside what was thought, on [`testbed/reasoner`](../src/laconic/testbed/reasoner/README.md): problems of 2 to 8
steps, numbers from 1,000,000 on, greedy, with the 95 % interval of Wilson. "none" is the model as it is; a step is a token
that was written, or a vector. "closed" are answers that came to their mark. Nothing was timed. `siri`, `length_penalty`,
`coconut` and `colar` were trained as their pages say, and only the weights of `siri` are shipped.
"""
HEAD = ("method", "right, %", "95 %", "problems", "steps in words", "without words", "closed, %")


def line(row: Row) -> list[str]:
    """One method on one task."""
    right, low, high, closed = percent(row, "right", "low", "high", "closed")
    steps = (f"{row[name]:.1f}" for name in ("written", "latent"))
    return [f"`{row['method']}`", right, f"{low} to {high}", row["n"], *steps, closed]


def page(rows: list[Row]) -> str:
    """The page as Markdown: the tasks in their order, methods by right answers, of equals the shorter thinking first."""
    measured = sorted((row for row in rows if "right" in row), key=lambda x: (-x["right"], x["written"] + x["latent"]))
    parts = [INTRODUCTION]
    for task in dict.fromkeys(row["task"] for row in rows):
        parts += [f"## {task}\n", table(HEAD, [line(row) for row in measured if row["task"] == task]), ""]
    return "\n".join(parts)


def main() -> int:
    """The exit status."""
    return write_results(PAGE, "reasoning", page)


if __name__ == "__main__":
    raise SystemExit(main())
