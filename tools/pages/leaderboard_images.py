"""Write docs/leaderboard-images.md, its figure and the checked-in table from a finished bench over scenes.

    laconic bench --preset images_leaderboard --out leaderboard-images
    python -m tools.pages.leaderboard_images leaderboard-images

`make leaderboard-images` is both. Every figure comes from results.jsonl.
"""

from __future__ import annotations

import sys
from pathlib import Path

from laconic.bench.specs import NONE
from laconic.bench.statistics import Interval
from laconic.bench.store import read
from laconic.bench.summary import Line, summarise
from laconic.bench.table import spread
from tools.pages.board import Board, kinds_table, of_kind
from tools.pages.heat_map import heat_map
from tools.pages.leaderboard_parts import write_results
from tools.pages.paired import Part, rivals, worth
from tools.pages.parts import DOCS

KEEPS = (0.5, 0.25, 0.11, 0.055)
BOARD = Board("image", KEEPS)
SHARES = BOARD.shares
NAMED = {
    "fitprune": ("fastv", "vtw"),
    "dyvte": ("fastv", "vtw"),
    "globalcom2": ("fastv", "sparsevlm", "prumerge"),
    "apet": ("visionzip", "pyramiddrop", "sparsevlm", "fastv"),
    "recoverable_compression:text=llm": ("prumerge", "tome"),
}
"""Methods, and the baselines that their papers beat."""
FREE = ("divprune", "visionzip:positions=gather", "fastv", "pool:positions=gather")
"""Training-free methods beside which the trained ones stand: the best two, one that reads the question, averages."""
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


def hard_mean(line: Line) -> Interval | None:
    """The mean over the hard part; each sample counts the same."""
    return line.hard.mean if line.hard else None


def main(folder: Path) -> None:
    """Read the rows of a finished bench in `folder`, write the files."""
    rows = read(folder / "results.jsonl")
    lines = summarise(rows, rows[0]["grid_seed"])
    whole, by_method = next(line for line in lines if line.method == NONE), BOARD.rows_of(lines)
    kinds = list(whole.tasks)
    assert whole.hard is not None
    text = INTRODUCTION.format(
        samples=whole.samples // len(kinds),
        hard=whole.hard.samples,
        all=whole.samples,
        refusals=BOARD.refusals(by_method),
    )
    parts = [text.rstrip(), "", "## All samples", "", f"Uncompressed: {spread(whole.mean)}.", ""]
    parts += [
        *BOARD.table(by_method, lambda line: line.mean),
        "",
        "## The hard part",
        "",
        "Each sample counts the same here: some kinds of question have few.",
        "",
    ]
    parts += [f"Uncompressed: {spread(whole.hard.mean)}." if whole.hard.mean else "", ""]
    parts += BOARD.table(by_method, hard_mean)
    parts += ["", "## Against the baselines that the papers name", ""]
    parts += [
        "Points of difference at equal achieved FLOPs, with 95 % intervals of paired differences. `-`: one of the two cannot"
    ]
    parts += ["reach this share. †: the baseline takes up to 5 % more FLOPs, which is as low as it goes.", ""]
    samples: list[Part] = [("all", None), ("hard", {(row["task"], row["seed"]) for row in rows if row["hard"]})]
    parts += rivals(lines, NAMED, KEEPS, samples)
    parts += worth(lines, FREE, KEEPS, samples)
    parts += ["", "## What the methods take", ""]
    parts += [
        "Prefill FLOPs of the uncompressed decoder's: what the decoder runs, and the method's own work, counted as it ran."
    ]
    parts += ["Those of the vision encoder are left out.", "", *BOARD.costs(by_method)]
    for keep, share in zip(KEEPS, SHARES, strict=True):
        parts += ["", f"## Kinds of question at {share}", ""]
        parts += ["Score and interval over all samples, and after the slash the score on the hard ones.", ""]
        parts += kinds_table(by_method, keep, {kind: kind for kind in kinds})
    write_results("leaderboard-images", rows, lines)
    blocks = [
        BOARD.block("All samples", by_method, lambda line: line.mean),
        BOARD.block("The hard part", by_method, hard_mean),
    ]
    blocks += [BOARD.block(kind.capitalize(), by_method, of_kind(kind)) for kind in kinds]
    (DOCS / "leaderboard-images.svg").write_text(heat_map(list(by_method), blocks), encoding="utf-8")
    (DOCS / "leaderboard-images.md").write_text("\n".join([*parts, ""]), encoding="utf-8")
    print(f"{len(rows)} rows -> docs/leaderboard-images.{{md,svg}}, benchmarks/results/leaderboard-images.{{json,md}}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
