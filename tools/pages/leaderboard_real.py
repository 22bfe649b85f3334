"""From a bench folder on a real model, finished or not: the first part of LEADERBOARD.md, the short tables of README and
findings, and the checked-in tables.

    laconic bench --preset real --out leaderboard-real && python -m tools.pages.leaderboard_real leaderboard-real

`make leaderboard-real` is both, and goes on from the rows that are checked in. Every figure comes from results.jsonl; the
questions behind each row are counted in the last column.
"""

from __future__ import annotations

import gzip
import sys
from collections import defaultdict
from pathlib import Path
from textwrap import fill

from laconic.bench.comparison import comparisons
from laconic.bench.specs import NONE
from laconic.bench.store import Row, read
from laconic.bench.summary import Line, summarise
from laconic.bench.table import spread
from laconic.tasks.text.documents import CONTINUATION_TOKENS
from tools.pages.leaderboard_parts import compose, traits, write_results
from tools.pages.parts import RESULTS, ROOT
from tools.pages.real_summary import insert, short

DOCUMENT = comparisons()["document"]
KEEPS = DOCUMENT.keeps
LEAST = 0.6
"""Sections in which the uncompressed model answers fewer questions are left out."""
WANTED = {"later": 120, "in view": 60}
"""Questions that a finished section asks of every method."""
CLOSE = 0.1
"""A share of bytes within this part of the share asked for is not printed beside the result."""
TITLES = {"later": "The question comes later", "in view": "The question is in view"}
INTRODUCTION = """# Leaderboard

On a real model first: the cache methods of the catalogue on SmolLM2-135M-Instruct (30 layers, 3 KV heads each;
`laconic.load("smollm2")`), over {source}. After it, [the same on the shipped model of four
layers](#on-the-shipped-model), which is fast enough for every task and misleads about some methods. Methods for
visual tokens have [their own page](docs/leaderboard-images.md). What it means, and what to pick, is in
[findings](docs/findings.md).

Eight facts about a few places are planted in each document: codes, names, years and colours, two of each form, so
that each has a distractor. Questions are natural sentences through the chat template, and the answer's opening is
given. A cell is the share of questions, in percent, whose **whole answer** (several tokens) is what greedy decoding
says, over the questions that the uncompressed model answers; its own share stands above each table. [..]: 95 %
bootstrap interval over documents. ○: not distinguishable from `random` at the same budget. In parentheses: the share
of bytes that was really stored, where it is not the one asked for (float32: a quantiser's share is twice that on a
16-bit model). `-`: refused, or not measured yet. `q`: the choice depends on the question in the prompt.

Made with `make leaderboard-real`, which goes on where it was stopped. {state} A document is read once, and the
recorded pass serves all methods and budgets that leave the reading as it is ([how](docs/design.md)); times are
measured elsewhere ([speed](benchmarks/results/speed.md)). The whole table is
[here](benchmarks/results/leaderboard-real.md)."""


Columns = set[tuple[str, float | None]]


def finished(rows: list[Row], wanted: Columns | None = None) -> list[Row]:
    """Rows of the documents that have every column: methods are compared over the same documents.

    Args:
        wanted: (method, keep) that a document must have; None: those of the first document of its section.
    """
    columns: dict[tuple[str, int], dict[int, Columns]] = defaultdict(lambda: defaultdict(set))
    for row in rows:
        columns[row["mode"], row["length"]][row["seed"]].add((row["method"], row["keep"]))
    whole = {
        (*section, seed)
        for section, seeds in columns.items()
        for seed, found in seeds.items()
        if found >= (seeds[min(seeds)] if wanted is None else wanted)
    }
    return [row for row in rows if (row["mode"], row["length"], row["seed"]) in whole]


def questions(rows: list[Row]) -> dict[tuple[str, int, str], int]:
    """(mode, length, method) -> questions asked at the budget that has the fewest."""
    found: dict[tuple[str, int, str], dict[float | None, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        found[row["mode"], row["length"], row["method"]][row["keep"]] += len(row["asked_turns"])
    return {key: min(counts.values()) for key, counts in found.items()}


def cell(line: Line | None) -> str:
    """``98 [95, 100]``, with its mark, and with the stored share where it is not the one asked for."""
    if line is None:
        return "-"
    text, gain = spread(line.mean), line.gains.get("random")
    if gain is not None and gain.interval.low <= 0 <= gain.interval.high:
        text += " ○"
    if line.keep is None or abs(line.kv_share / line.keep - 1) > CLOSE:
        text += f" ({100 * line.kv_share:.0f} %)"
    return text


def section(lines: list[Line], counts: dict[tuple[str, int, str], int], mode: str, length: int) -> list[str]:
    """One table: a row for each method, the best first by its mean over all shares, refused shares as `random`."""
    own = [line for line in lines if line.section == (mode, length)]
    whole = next(line for line in own if line.method == NONE)
    head = [
        f"## {TITLES[mode]}, {length:,} tokens",
        "",
        DOCUMENT.meanings[mode][:1].upper() + DOCUMENT.meanings[mode][1:] + ".",
    ]
    head += [
        f"Uncompressed: {spread(whole.mean)} of {counts[mode, length, NONE]} questions about {whole.samples} documents.",
        "",
    ]
    if whole.mean.mean < LEAST:
        return [*head, f"The model answers under {LEAST:.0%} itself, so methods are not compared.", ""]
    by_method: dict[str, dict[float | None, Line]] = defaultdict(dict)
    for line in own:
        if line.method != NONE:
            by_method[line.method][line.keep] = line
    fill = by_method.get("random", {})

    def mean(method: str) -> float:
        scores = [by_method[method].get(keep, fill.get(keep)) for keep in KEEPS]
        return sum(line.mean.mean for line in scores if line is not None) / len(KEEPS)

    head += ["| method | | " + " | ".join(f"{100 * keep:g} %" for keep in KEEPS) + " | questions |"]
    head += ["|---|---|" + "---:|" * (len(KEEPS) + 1)]
    for method in sorted(by_method, key=mean, reverse=True):
        cells = " | ".join(cell(by_method[method].get(keep)) for keep in KEEPS)
        head.append(f"| `{method}` | {traits(method)} | {cells} | {counts[mode, length, method]} |")
    return [*head, ""]


def continuations(rows: list[Row]) -> list[str]:
    """How well documents go on after their beginnings were compressed: likelihood of the true text, and agreement."""
    if not rows:
        return []
    whole = {(row["length"], row["seed"]): row["nll"] for row in rows if row["method"] == NONE}
    found: dict[str, dict[float, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["method"] != NONE and row["keep"] is not None:
            gap = row["nll"] - whole[row["length"], row["seed"]]
            found[row["method"]][row["keep"]].append((gap, row["score"]))

    def means(method: str, keep: float) -> tuple[float, float] | None:
        pairs = found[method].get(keep)
        return None if not pairs else (sum(a for a, _ in pairs) / len(pairs), sum(b for _, b in pairs) / len(pairs))

    def worst(method: str) -> float:
        known = [pair[0] for keep in KEEPS if (pair := means(method, keep)) is not None]
        return sum(known) / len(known)

    lengths = ", ".join(f"{length:,}" for length in sorted({row["length"] for row in rows}))
    own = sum(whole.values()) / len(whole)
    head = ["## How a document goes on", ""]
    documents = f"{len(whole)} document{'s' * (len(whole) > 1)}"
    head += [f"{documents} of {lengths} tokens, compressed before the last {CONTINUATION_TOKENS} are read: by how"]
    head += [
        f"many nats per token the true text becomes less likely (uncompressed: {own:.2f} nats), and, after the stroke, with"
    ]
    head += ["how many percent of the tokens of the uncompressed model's greedy continuation the compressed one agrees.", ""]
    head += ["| method | | " + " | ".join(f"{100 * keep:g} %" for keep in KEEPS) + " |", "|---|---|" + "---:|" * len(KEEPS)]
    for method in sorted(found, key=worst):
        pairs = [means(method, keep) for keep in KEEPS]
        cells = " | ".join("-" if pair is None else f"{pair[0]:+.2f} / {100 * pair[1]:.0f}" for pair in pairs)
        head.append(f"| `{method}` | {traits(method)} | {cells} |")
    return [*head, ""]


def state(counts: dict[tuple[str, int, str], int], sections: list[tuple[str, int]]) -> str:
    """What is finished and what is not, in a sentence."""
    left = []
    for mode, length in sections:
        least = min(count for (m, n, method), count in counts.items() if (m, n) == (mode, length) and method != NONE)
        if least < WANTED[mode]:
            left.append(f"{least} of {WANTED[mode]} questions {mode} at {length:,} tokens")
    return (
        f"**Not finished**: so far {', '.join(left)} for every method; where a table has few documents, its "
        "intervals are only a hint."
        if left
        else ""
    )


def wrapped(text: str) -> str:
    """Paragraphs in lines of at most 118 characters; a title stays as it is."""
    title, _, rest = text.partition("\n\n")
    paragraphs = [
        fill(" ".join(part.split()), 118, break_long_words=False, break_on_hyphens=False) for part in rest.split("\n\n")
    ]
    return "\n\n".join([title, *paragraphs])


def archive(rows: Path) -> None:
    """The rows themselves, from which anyone can go on, in results/; equal rows give equal bytes."""
    (RESULTS / "leaderboard-real.jsonl.gz").write_bytes(gzip.compress(rows.read_bytes(), mtime=0))


def main(folder: Path) -> None:
    """Read the rows of a bench in `folder`, write the files."""
    every = read(folder / "results.jsonl")
    rows = finished([row for row in every if row["task"] == "facts"])
    lines, counts = summarise(rows, rows[0]["grid_seed"]), questions(rows)
    sections = sorted({line.section for line in lines}, key=lambda pair: (list(TITLES).index(pair[0]), pair[1]))
    text = INTRODUCTION.format(
        source=f"Python's own documentation ({rows[0]['settings']['data']})", state=state(counts, sections)
    )
    parts = [part for mode, length in sections for part in section(lines, counts, mode, length)]
    asked = {(row["method"], row["keep"]) for row in rows if row["mode"] == "later"}
    parts += continuations(finished([row for row in every if row["task"] == "continuation"], asked))
    write_results("leaderboard-real", rows, lines)
    archive(folder / "results.jsonl")
    for page in (ROOT / "README.md", ROOT / "docs" / "findings.md"):
        insert(page, short(lines))
    (ROOT / "LEADERBOARD.md").write_text(
        compose(ROOT / "LEADERBOARD.md", real="\n".join([wrapped(text), "", *parts])), encoding="utf-8"
    )
    print(f"{len(rows)} rows -> LEADERBOARD.md, {RESULTS.name}/leaderboard-real.{{json,md,jsonl.gz}}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
