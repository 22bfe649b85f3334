"""Write benchmarks/results/trained-images.md from a finished bench: what trained methods answer at their sizes, beside
training-free methods at equal FLOPs.

    laconic bench --preset images_leaderboard --samples 30 --methods hicom:tokens=20,divprune,... --out trained
    python -m tools.pages.trained trained

A trained method serves few sizes, so each is a row of its own, given as ``NAME:tokens=N``. Every figure comes from
results.jsonl.
"""

from __future__ import annotations

import sys
from pathlib import Path

from laconic.bench.specs import NONE
from laconic.bench.store import read
from laconic.bench.summary import Line, summarise
from laconic.bench.table import flops, spread
from tools.pages.leaderboard_parts import write_results
from tools.pages.paired import difference, trained
from tools.pages.parts import RESULTS

NAME = "trained-images"
INTRODUCTION = """# Trained compressors beside training-free ones

`testbed/vlm` and its shipped weights, {samples} scenes for each of {kinds} kinds of question, of seeds that no training has
seen. Uncompressed: {whole}. A line is one size of one trained method: visual tokens kept of 144, prefill FLOPs of the
uncompressed decoder's, the method's own network included, right answers in percent with 95 % intervals, and the difference
to each training-free method at equal achieved FLOPs (between its two nearest budgets; †: it takes up to 5 % more, which is
as low as it goes; `-`: it cannot go as low). ▲ and ▼: the interval of the paired difference excludes 0. Training is not
counted.
"""


def free_of(lines: list[Line]) -> list[str]:
    """Methods of the run that need no training, in the order in which they ran."""
    names = dict.fromkeys(line.method for line in lines if line.method != NONE)
    return [name for name in names if not trained(name)]


def main(folder: Path) -> None:
    """Read the rows of a finished bench in `folder`, write the page and the lines as JSON."""
    rows = read(folder / "results.jsonl")
    lines = summarise(rows, rows[0]["grid_seed"])
    whole, free = next(line for line in lines if line.method == NONE), free_of(lines)
    text = INTRODUCTION.format(samples=whole.samples // len(whole.tasks), kinds=len(whole.tasks), whole=spread(whole.mean))
    titles = ["method", "kept", "FLOPs", "right", *(f"vs `{name}`" for name in free)]
    out = [text, "| " + " | ".join(titles) + " |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for line in sorted((x for x in lines if x.method != NONE and trained(x.method)), key=lambda x: x.cost):
        cells = [f"{100 * line.achieved:.1f} %", flops(line), spread(line.mean)]
        for name in free:
            cells.append(difference(line, [x for x in lines if x.method in (name, NONE)], None))
        out.append(f"| `{line.method}` | " + " | ".join(cells) + " |")
    write_results(NAME, rows, lines)
    page = RESULTS / f"{NAME}.md"
    page.write_text("\n".join([*out, "", page.read_text(encoding="utf-8")]), encoding="utf-8")
    print(f"{len(rows)} rows -> {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
