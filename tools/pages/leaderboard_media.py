"""Write docs/leaderboard-videos.md or docs/leaderboard-sounds.md, its figure and the checked-in table from a finished bench.

    laconic bench --preset videos --out leaderboard-videos
    python -m tools.pages.leaderboard_media leaderboard-videos

`make leaderboard-videos` and `make leaderboard-sounds` are both. Every figure comes from results.jsonl.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from laconic.bench.comparison import comparisons
from laconic.bench.specs import NONE
from laconic.bench.store import read
from laconic.bench.summary import summarise
from laconic.bench.table import spread
from laconic.tasks import find_task
from tools.pages.board import Board, complete, kinds_table, of_kind
from tools.pages.heat_map import heat_map
from tools.pages.leaderboard_parts import write_results
from tools.pages.paired import worth
from tools.pages.parts import DOCS


@dataclass(frozen=True)
class Page:
    """What a page says of its modality: the name of its files, the model's card, what was shown, what tokens are; `free`:
    training-free methods that the trained ones are compared with."""

    name: str
    model: str
    shown: str
    tokens: str
    prefix: str
    free: tuple[str, ...]


PAGES = {
    "video": Page(
        "videos",
        "testbed/video",
        "clips of 8 and of 32 frames, 9 visual tokens a frame",
        "visual tokens",
        "clip_",
        ("divprune", "dart", "vidcom2", "uniform_frames"),
    ),
    "audio": Page(
        "sounds", "testbed/audio", "sounds of up to 8 seconds, 12.5 audio tokens a second", "audio tokens", "sound_", ()
    ),
}
INTRODUCTION = """# Leaderboard for {name}

Every method that removes or merges {tokens} on `{model}` ([model card](../src/laconic/{model}/README.md)): {shown};
{samples} questions of each kind, keeping {shares} of the tokens. No training and no calibration has seen the seeds
of these {name}. Made with `make leaderboard-{name}`, resumable.

![Right answers by method, budget and kind of question](leaderboard-{name}.svg)

A share kept is the mean over all decoder layers, so methods in one column have the model run about the same prefill FLOPs.
A cell is the mean over the kinds of question in percent with its 95 % bootstrap interval. ▲ and ▼: better or worse than
`{reference}` at equal achieved FLOPs (on the straight line between its two nearest budgets), with an interval of the paired
difference that excludes 0; where a method ran at another share than was asked for, that share follows in parentheses.
`-`: the method cannot reach this share, or not for every kind of question ({refusals}). `q`: the choice depends on the
question. The whole table, with differences to {references}, FLOPs and bytes, is
[here](../benchmarks/results/leaderboard-{name}.md).
"""


def main(folder: Path) -> None:
    """Read the rows of a finished bench in `folder`, write the files."""
    rows = read(folder / "results.jsonl")
    modality = find_task(rows[0]["task"]).modality
    page, known = PAGES[modality], comparisons()[modality]
    lines = complete(summarise(rows, rows[0]["grid_seed"]))
    board = Board(modality, tuple(sorted({line.keep for line in lines if line.keep and line.method != NONE}, reverse=True)))
    whole, by_method = next(line for line in lines if line.method == NONE), board.rows_of(lines)
    kinds = {task: " ".join(task.removeprefix(page.prefix).split("_")) for task in whole.tasks}
    text = INTRODUCTION.format(
        name=page.name,
        model=page.model,
        shown=page.shown,
        tokens=page.tokens,
        samples=whole.samples // len(kinds),
        shares=", ".join(board.shares),
        reference=board.reference,
        refusals=board.refusals(by_method),
        references=", ".join(f"`{name}`" for name in known.references),
    )
    parts = [text.rstrip(), "", "## All kinds of question", "", f"Uncompressed: {spread(whole.mean)}.", ""]
    parts += [*board.table(by_method, lambda line: line.mean), "", "## What the methods take", ""]
    parts += ["Prefill FLOPs of the uncompressed decoder's: what the decoder runs, and the method's own work, counted as it"]
    parts += ["ran. Those of the encoder are left out.", "", *board.costs(by_method)]
    parts += worth(lines, page.free, board.keeps, [("all", None)])
    for keep, share in zip(board.keeps, board.shares, strict=True):
        parts += ["", f"## Kinds of question at {share}", "", *kinds_table(by_method, keep, kinds)]
    write_results(f"leaderboard-{page.name}", rows, lines)
    blocks = [board.block("All", by_method, lambda line: line.mean)]
    blocks += [board.block(title.capitalize(), by_method, of_kind(kind)) for kind, title in kinds.items()]
    (DOCS / f"leaderboard-{page.name}.svg").write_text(heat_map(list(by_method), blocks), encoding="utf-8")
    (DOCS / f"leaderboard-{page.name}.md").write_text("\n".join([*parts, ""]), encoding="utf-8")
    print(f"{len(rows)} rows -> docs/leaderboard-{page.name}.{{md,svg}} and benchmarks/results/")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
