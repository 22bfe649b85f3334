"""The short table of README and findings: what stays right on the real model, and what it costs."""

from __future__ import annotations

from pathlib import Path

from laconic.bench.specs import NONE
from laconic.bench.summary import Line
from laconic.bench.table import size, spread
from laconic.method import create_method
from tools.pages.parts import Row, results, table

BEGIN, END = "<!-- real: written by tools/pages/leaderboard_real.py -->", "<!-- end -->"
LENGTH = 1024
PICKS = (
    ("later", "kvzip", (0.25, 0.1)),
    ("later", "attention_matching", (0.25, 0.1, 0.05)),
    ("later", "kivi:residual=32", (0.25,)),
    ("later", "expected_attention", (0.25,)),
    ("later", "random", (0.25,)),
    ("in view", "kvzip", (0.25,)),
    ("in view", "compresskv", (0.25, 0.1)),
    ("in view", "snapkv", (0.25, 0.1)),
    ("in view", "random", (0.25,)),
)
"""What stands in the short table: question, method, shares."""


def short(lines: list[Line]) -> str:
    """A row for each of `PICKS` that was measured. Times are from benchmarks/real_times.py, where it has run."""
    measured = results("real-times") or {"rows": []}
    times = {_timed(row["method"]): row for row in measured["rows"]}
    known = {(line.mode, line.method, line.keep): line for line in lines if line.length == LENGTH}
    out = [
        [
            "uncompressed",
            "",
            "100",
            *_bytes(next(line for line in lines if line.length == LENGTH and line.method == NONE)),
            *_times(times.get(("", None))),
        ]
    ]
    for mode, method, keeps in PICKS:
        for keep in keeps:
            line = known.get((mode, method, keep))
            if line is not None:
                own = _times(times.get((method.partition(":")[0], keep)) if mode == "later" else None)
                out.append([f"`{method.partition(':')[0]}` {100 * keep:g} %", mode, spread(line.mean), *_bytes(line), *own])
    head = ["cache", "question", "answers right, %", "KV bytes"]
    head += ["time to first token", "per token"] if times else []
    return table(head, [row if times else row[:4] for row in out])


def _timed(spec: str) -> tuple[str, float | None]:
    """Name and share of what was timed; ("", None) for the uncompressed model."""
    if spec == NONE:
        return "", None
    method = create_method(spec)
    return method.name, method.budget.keep


def _bytes(line: Line) -> list[str]:
    return [size(line.kv_bytes)]


def _times(row: Row | None) -> list[str]:
    return ["", ""] if row is None else [f"{row['first']:.2f} s", f"{1000 * row['token']:.0f} ms"]


def insert(page: Path, text: str) -> None:
    """Put `text` between the marks of a page; a page without marks is left as it is."""
    known = page.read_text(encoding="utf-8") if page.exists() else ""
    if BEGIN in known and END in known:
        before, rest = known.split(BEGIN, 1)
        page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")
