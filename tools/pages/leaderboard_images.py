"""Write docs/leaderboard-images.md, its figure and the checked-in table from a finished bench over scenes.

    laconic bench --preset images_leaderboard --out leaderboard-images
    python -m tools.pages.leaderboard_images leaderboard-images

`make leaderboard-images` is both. Every figure comes from results.jsonl.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from laconic.bench.comparison import comparisons
from laconic.bench.specs import NONE
from laconic.bench.statistics import Interval
from laconic.bench.store import read
from laconic.bench.summary import Line, gain_at_equal_cost, summarise
from laconic.bench.table import flops, percent, spread
from tools.pages.heat_map import Block, heat_map
from tools.pages.leaderboard_parts import arrow, traits, write_results
from tools.pages.parts import DOCS

KEEPS = (0.5, 0.25, 0.11, 0.055)
REFERENCE = comparisons()["image"].references[0]
SHARES = tuple(f"{100 * keep:g} %" for keep in KEEPS)
NAMED = {
    "fitprune": ("fastv", "vtw"),
    "dyvte": ("fastv", "vtw"),
    "globalcom2": ("fastv", "sparsevlm", "prumerge"),
    "apet": ("visionzip", "pyramiddrop", "sparsevlm", "fastv"),
    "recoverable_compression:text=llm": ("prumerge", "tome"),
}
"""Methods, and the baselines that their papers beat."""
NEAR = 1.05
"""A baseline is still compared with a method if its lowest cost is at most this many times the method's."""
CLOSE = 0.15
"""Achieved shares of visual tokens within this part of the share asked for are not printed beside the result."""
INTRODUCTION = """# Leaderboard for images

Every method that removes or merges visual tokens on `testbed/vlm` ([model
card](../src/laconic/testbed/vlm/README.md): 144 visual tokens, eight decoder layers), {samples} scenes for each kind
of question, keeping 50, 25, 11 and 5.5 % of the visual tokens. No training and no calibration has seen the
seeds of these scenes. Made with `make leaderboard-images`, resumable.

![Right answers by method, budget and part](leaderboard-images.svg)

A share kept is the mean over all decoder layers, so methods in one column have the model run about the same prefill FLOPs,
whether they cut once before the decoder or between its layers. FLOPs are these and the method's own work
([below](#what-the-methods-take)); where a method ran at another share than was asked for, that
share follows in parentheses. A cell is the mean over the seven kinds of question in percent with its 95 % bootstrap
interval. ▲ and ▼: better or worse than `random_visual` at equal achieved FLOPs (on the straight line between its two nearest
budgets), with an interval of the paired difference that excludes 0. `-`: the method cannot reach this share and
refuses it ({refusals}). `q`: the choice depends on the question.

The **hard part** is the {hard} of {all} samples that the uncompressed model answers wrongly once the sides of the
image are four times shorter. What survives that says little about a choice of tokens. The whole table, with
differences to `random_visual`, `downsample` and `pool`, FLOPs, bytes and times, is
[here](../benchmarks/results/leaderboard-images.md); what it means is in [findings](findings.md#visual-tokens).
"""


def rows_of(lines: list[Line]) -> dict[str, dict[float, Line]]:
    """Method -> share -> line, the best first: by the mean lead over `random_visual` at the shares that it reaches."""
    found: dict[str, dict[float, Line]] = {}
    for line in lines:
        if line.method != NONE and line.keep is not None:
            found.setdefault(line.method, {})[line.keep] = line
    filler = found[REFERENCE]

    def height(row: dict[float, Line]) -> float:
        return sum(line.mean.mean - filler[keep].mean.mean for keep, line in row.items()) / len(row)

    return dict(sorted(found.items(), key=lambda pair: -height(pair[1])))


def cell(line: Line | None, interval: Interval | None) -> str:
    """``98 [95, 100] ▲``, with the achieved share where it is not the one asked for."""
    if line is None or interval is None:
        return "-"
    text = spread(interval)
    if interval is line.mean and REFERENCE in line.gains:
        text += arrow(line.gains[REFERENCE].interval)
    if interval is line.mean and line.keep and abs(line.achieved / line.keep - 1) > CLOSE:
        text += f" ({100 * line.achieved:.0f} %)"
    return text


def table(rows: dict[str, dict[float, Line]], pick: Callable[[Line], Interval | None]) -> list[str]:
    """One markdown table; `pick` says which interval of a line is shown."""
    out = ["| method | | " + " | ".join(SHARES) + " |", "|---|---|" + "---:|" * len(KEEPS)]
    for method, row in rows.items():
        cells = [cell(row.get(keep), pick(row[keep]) if keep in row else None) for keep in KEEPS]
        out.append(f"| `{method}` | {traits(method)} | " + " | ".join(cells) + " |")
    return out


def kinds_table(rows: dict[str, dict[float, Line]], keep: float, kinds: list[str]) -> list[str]:
    """All kinds of question at one share: score, and score on the hard part."""
    out = ["| method | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)]
    for method, row in rows.items():
        if keep in row:
            line, cells = row[keep], []
            for kind in kinds:
                hard = line.hard.tasks.get(kind) if line.hard else None
                cells.append(spread(line.tasks[kind]) + (f" / {percent(hard.mean)}" if hard else ""))
            out.append(f"| `{method}` | " + " | ".join(cells) + " |")
    return out


def named(lines: list[Line], hard: set[tuple[str, int]]) -> list[str]:
    """Each method minus its paper's baselines at equal achieved FLOPs, over all samples and over the hard ones."""
    out = ["| method | over | samples | " + " | ".join(SHARES) + " |", "|---|---|---|" + "---:|" * len(KEEPS)]
    for method, baselines in NAMED.items():
        own = {line.keep: line for line in lines if line.method == method}
        for baseline in baselines:
            reference = [line for line in lines if line.method in (baseline, NONE)]
            for part, only in (("all", None), ("hard", hard)):
                cells = [difference(own.get(keep), reference, only) for keep in KEEPS]
                out.append(f"| `{method}` | `{baseline}` | {part} | " + " | ".join(cells) + " |")
    return out


def difference(line: Line | None, reference: list[Line], only: set[tuple[str, int]] | None) -> str:
    """``+3 [1, 5] ▲`` in points; † where the baseline costs a little more; `-` where it costs much more."""
    gain = gain_at_equal_cost(line, reference, 0, only) if line else None
    if line is None or gain is None or (least := min(x.cost for x in reference)) > NEAR * line.cost:
        return "-"
    low, high = gain.interval.low, gain.interval.high
    text = f"{100 * gain.interval.mean:+.0f} [{100 * low:.0f}, {100 * high:.0f}]"
    return text + arrow(gain.interval) + (" †" if least > line.cost else "")


def costs(rows: dict[str, dict[float, Line]]) -> list[str]:
    """Prefill FLOPs of every method at every share that it reaches."""
    out = ["| method | " + " | ".join(SHARES) + " |", "|---|" + "---:|" * len(KEEPS)]
    for method, row in rows.items():
        out.append(f"| `{method}` | " + " | ".join(flops(row[keep]) if keep in row else "-" for keep in KEEPS) + " |")
    return out


def hard_mean(line: Line) -> Interval | None:
    """The mean over the hard part; each sample counts the same."""
    return line.hard.mean if line.hard else None


def of_kind(kind: str) -> Callable[[Line], Interval]:
    """What picks the interval of one kind of question."""
    return lambda line: line.tasks[kind]


def block(title: str, rows: dict[str, dict[float, Line]], pick: Callable[[Line], Interval | None]) -> Block:
    """Columns of the figure."""

    def score(method: str, column: int) -> float | None:
        line = rows[method].get(KEEPS[column])
        interval = pick(line) if line else None
        return interval.mean if interval else None

    return Block(title, SHARES, score)


def main(folder: Path) -> None:
    """Read the rows of a finished bench in `folder`, write the files."""
    rows = read(folder / "results.jsonl")
    lines = summarise(rows, rows[0]["grid_seed"])
    whole, by_method = next(line for line in lines if line.method == NONE), rows_of(lines)
    kinds = list(whole.tasks)
    lacking = [
        f"`{method}` at {', '.join(share for keep, share in zip(KEEPS, SHARES, strict=True) if keep not in row)}"
        for method, row in by_method.items()
        if len(row) < len(KEEPS)
    ]
    assert whole.hard is not None
    text = INTRODUCTION.format(
        samples=whole.samples // len(kinds),
        hard=whole.hard.samples,
        all=whole.samples,
        refusals="; ".join(lacking) or "none",
    )
    parts = [text.rstrip(), "", "## All samples", "", f"Uncompressed: {spread(whole.mean)}.", ""]
    parts += [
        *table(by_method, lambda line: line.mean),
        "",
        "## The hard part",
        "",
        "Each sample counts the same here: some kinds of question have few.",
        "",
    ]
    parts += [f"Uncompressed: {spread(whole.hard.mean)}." if whole.hard.mean else "", ""]
    parts += table(by_method, hard_mean)
    parts += ["", "## Against the baselines that the papers name", ""]
    parts += [
        "Points of difference at equal achieved FLOPs, with 95 % intervals of paired differences. `-`: one of the two cannot"
    ]
    parts += ["reach this share. †: the baseline takes up to 5 % more FLOPs, which is as low as it goes.", ""]
    parts += named(lines, {(row["task"], row["seed"]) for row in rows if row["hard"]})
    parts += ["", "## What the methods take", ""]
    parts += [
        "Prefill FLOPs of the uncompressed decoder's: what the decoder runs, and the method's own work, counted as it ran."
    ]
    parts += ["Those of the vision encoder are left out.", "", *costs(by_method)]
    for keep, share in zip(KEEPS, SHARES, strict=True):
        parts += ["", f"## Kinds of question at {share}", ""]
        parts += ["Score and interval over all samples, and after the slash the score on the hard ones.", ""]
        parts += kinds_table(by_method, keep, kinds)
    write_results("leaderboard-images", rows, lines)
    blocks = [block("All samples", by_method, lambda line: line.mean), block("The hard part", by_method, hard_mean)]
    blocks += [block(kind.capitalize(), by_method, of_kind(kind)) for kind in kinds]
    (DOCS / "leaderboard-images.svg").write_text(heat_map(list(by_method), blocks), encoding="utf-8")
    (DOCS / "leaderboard-images.md").write_text("\n".join([*parts, ""]), encoding="utf-8")
    print(f"{len(rows)} rows -> docs/leaderboard-images.{{md,svg}}, benchmarks/results/leaderboard-images.{{json,md}}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
