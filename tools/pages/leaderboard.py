"""Write the second part of LEADERBOARD.md, docs/leaderboard.svg and the checked-in tables from a finished bench folder.

    laconic bench --preset leaderboard --out leaderboard && python -m tools.pages.leaderboard leaderboard

`make leaderboard` is both. Every figure comes from results.jsonl.
"""

from __future__ import annotations

import sys
from pathlib import Path

from laconic.bench.comparison import comparisons
from laconic.bench.specs import NONE
from laconic.bench.store import read
from laconic.bench.summary import Line, summarise
from laconic.bench.table import percent, spread
from tools.pages.heat_map import Block, heat_map
from tools.pages.leaderboard_parts import SHIPPED, arrow, compose, traits, write_results
from tools.pages.parts import DOCS, ROOT

TEXT = comparisons()["text"]
KEEPS = (0.5, 0.25, 0.1, 0.05)
TITLES = {
    "aware": "Question in view",
    "agnostic": "Question comes later",
    "turns_aware": "Several questions, the first in view",
    "turns": "Several questions, all later",
}
CLOSE = 0.15
"""A KV share within this part of the share asked for is not printed beside the result."""
INTRODUCTION = (
    SHIPPED
    + """
The cache methods of the catalogue, those that repeat their prompt and `triattention` aside, on `testbed/lm`
([model card](src/laconic/testbed/lm/README.md)), {samples}
samples for each of {tasks} at {length} tokens, keeping 50, 25, 10 and 5 % of the cache. Made with `make leaderboard`
(about {minutes} minutes on one core, resumable).

![Recall by method, budget and way of asking](docs/leaderboard.svg)

A cell is the mean recall over the tasks in percent with its 95 % bootstrap interval. ▲ and ▼: better or worse than
`snapkv` at the closest bytes, with an interval of the paired difference that excludes 0; ○: not distinguishable from
`random`. Bytes are measured: where a method stores another share of the uncompressed bytes than was asked for, that
share follows in parentheses. **Keys and values are float32 here**: shares of the quantisers (`kivi`, `gear`,
`minicache`) are of 32 bits, so on a 16-bit model the same codes are twice the share. `-`: the method
cannot reach this share and refuses it ({refusals}).

`q` marks methods that look at the question in the prompt. Calibrated and trained ones use the
artifacts that ship for this model. The whole table, with every task, paired differences and FLOPs, is
[here](benchmarks/results/leaderboard.md); what it means, and what to pick, is in [findings](docs/findings.md). The
model is small and its contexts are short: the order of the methods means something, the distances between them say
little about your model.
"""
)


def column(line: Line) -> float:
    """The share asked for; for a method with its own budget, the listed share closest to what it kept."""
    return line.keep if line.keep in KEEPS else min(KEEPS, key=lambda keep: abs(keep - line.achieved))


def cell(line: Line | None) -> str:
    """``98 [95, 100] ▲``, with the stored share where it is not the one asked for."""
    if line is None:
        return "-"
    text = spread(line.mean)
    if "snapkv" in line.gains:
        gain = line.gains["snapkv"].interval
        text += arrow(gain)
    if "random" in line.gains and line.gains["random"].interval.low <= 0 <= line.gains["random"].interval.high:
        text += " ○"
    if line.keep is None or abs(line.achieved / line.keep - 1) > CLOSE:
        text += f" ({100 * line.achieved:.0f} %)"
    return text


def grouped(lines: list[Line], mode: str) -> dict[str, dict[float, Line]]:
    """Method -> share -> line, the best first: by the mean over all shares, with `random` in place of refused ones."""
    found: dict[str, dict[float, Line]] = {}
    for line in lines:
        if line.mode == mode and line.method != NONE:
            found.setdefault(line.method, {})[column(line)] = line
    return dict(sorted(found.items(), key=lambda pair: -_mean(pair[1], found[TEXT.references[0]])))


def _mean(of: dict[float, Line], filler: dict[float, Line]) -> float:
    return sum(of.get(keep, filler[keep]).mean.mean for keep in KEEPS) / len(KEEPS)


def tables(lines: list[Line]) -> list[str]:
    """One markdown table for each way of asking."""
    out = []
    for mode in TITLES:
        whole = next(line for line in lines if line.mode == mode and line.method == NONE)
        names = ", ".join(whole.tasks)
        out += [
            "",
            f"## {TITLES[mode]}",
            "",
            f"Mode `{TEXT.shown(mode)}`: {TEXT.meanings[mode]}. Tasks: {names}. Uncompressed: {spread(whole.mean)}.",
            "",
        ]
        out += ["| method | | 50 % | 25 % | 10 % | 5 % |", "|---|---|---:|---:|---:|---:|"]
        for method, row in grouped(lines, mode).items():
            out.append(f"| `{method}` | {traits(method)} | " + " | ".join(cell(row.get(keep)) for keep in KEEPS) + " |")
    return out


def by_question(lines: list[Line]) -> list[str]:
    """Which methods fail at later questions: recall of the first question and of those after it."""
    out = ["", "## The first question and the later ones", ""]
    out += [
        "Recall in percent at a quarter of the cache when the first question was in view: of that question, and of those"
    ]
    out += ["after it. Methods that look at the question keep what the first question needs.", ""]
    out += [
        "| method | looks at the question | first | second | third | fourth | last |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for method, row in grouped(lines, "turns_aware").items():
        line = row.get(0.25)
        if line is not None:
            turns = " | ".join(percent(score) for score in line.turns)
            out.append(f"| `{method}` | {'yes' if line.query_aware else 'no'} | {turns} |")
    return out


def figure(lines: list[Line]) -> str:
    """A heat map: a row for each method, a column for each way of asking and share."""
    order = sorted({line.method for line in lines} - {NONE}, key=lambda name: -_over_modes(lines, name))

    def block(mode: str, title: str) -> Block:
        rows = grouped(lines, mode)

        def score(method: str, column: int) -> float | None:
            line = rows.get(method, {}).get(KEEPS[column])
            return line.mean.mean if line else None

        return Block(title, tuple(f"{100 * keep:g} %" for keep in KEEPS), score)

    return heat_map(order, [block(mode, title) for mode, title in TITLES.items()])


def _over_modes(lines: list[Line], method: str) -> float:
    return sum(_mean(rows.get(method, {}), rows[TEXT.references[0]]) for rows in (grouped(lines, mode) for mode in TITLES))


def main(folder: Path) -> None:
    """Read the rows of a finished bench in `folder`, write the files."""
    rows = read(folder / "results.jsonl")
    lines = summarise(rows, rows[0]["grid_seed"])
    wanted = {line.method for line in lines} - {NONE}
    refused = [
        f"{name.partition(':')[0]} {100 * keep:g} %"
        for name in sorted(wanted)
        for keep in KEEPS
        if _lacks(lines, name, keep)
    ]
    counts = {len({row["seed"] for row in rows if row["mode"] == mode}) for mode in TITLES}
    text = INTRODUCTION.format(
        samples=" or ".join(map(str, sorted(counts))),
        tasks=", ".join(dict.fromkeys(row["task"] for row in rows)),
        length=" and ".join(map(str, sorted({row["length"] for row in rows}))),
        minutes=25,
        refusals=", ".join(refused),
    )
    write_results("leaderboard", rows, lines)
    (DOCS / "leaderboard.svg").write_text(figure(lines), encoding="utf-8")
    shipped = "\n".join([text.rstrip(), *tables(lines), *by_question(lines), ""])
    (ROOT / "LEADERBOARD.md").write_text(compose(ROOT / "LEADERBOARD.md", shipped=shipped), encoding="utf-8")
    print(f"{len(rows)} rows -> LEADERBOARD.md, docs/leaderboard.svg, benchmarks/results/leaderboard.{{json,md}}")


def _lacks(lines: list[Line], method: str, keep: float) -> bool:
    own = [line for line in lines if line.method == method]
    return all(line.keep is not None for line in own) and all(column(line) != keep for line in own)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
