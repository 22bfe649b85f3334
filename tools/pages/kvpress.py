"""results/*.json -> results/kvpress.md: laconic beside kvpress 0.5.5, one page.

    python -m tools.pages.kvpress

Which entries are kept and why they differ, what is answered, and what it costs. A missing
result file leaves its section out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tools.pages.parts import Row, results, table, write_page

WHO = ("laconic", "kvpress")
DECODING = ("tova", "streaming_llm", "h2o")
"""Methods that laconic also lets evict while decoding."""
CAUSES = {
    "snapkv": "a window of 32 is over half of a budget of about 50: laconic forces the newest 25 and lets scores choose the "
    "rest, kvpress forces all 32",
    "adakv": "as snapkv: the scorer's window",
    "pyramidkv": "laconic slopes what the window leaves and adds the window; kvpress slopes all entries, and stays flat "
    "where the last layer would get less than the window. The window as in snapkv",
    "knorm": "ties: in layer 0 a token that repeats has the same norm everywhere, RoPE only turns it; laconic takes the "
    "earlier one, `torch.topk` any",
    "h2o": "laconic keeps the newest half of the budget (H2O), kvpress's ObservedAttention has no recent half",
}
"""Method -> why the kept entries differ."""


def load(name: str) -> Row:
    """A result file; one without rows where nothing has been measured."""
    return results(name) or {"rows": []}


def exactly(share: float) -> str:
    """Three digits; 1 only for exactly 1."""
    return "1" if share == 1 else f"{min(share, 0.999):.3f}"


def kept(data: Row) -> list[str]:
    """Agreement by method: one column per model and length, keep 0.5, 0.25, 0.1 in it."""
    rows = data["rows"]
    columns = list(dict.fromkeys((r["model"], r["tokens"]) for r in rows))
    keeps = list(dict.fromkeys(r["keep"] for r in rows))
    lines = []
    for name, parameters in data["parameters"].items():
        mine = [r for r in rows if r["method"] == name]
        cells = []
        for column in columns:
            found = [r for r in mine if (r["model"], r["tokens"]) == column]
            cells.append("1" if all(r["share"] == 1 for r in found) else " · ".join(exactly(r["share"]) for r in found))
        heads = sum(r["equal"] for r in mine) / len(mine)
        differing = [r for r in mine if r["share"] < 1]
        without = [r["aligned"]["share"] for r in differing if "aligned" in r]
        fixed = exactly(min(without)) if without else ""
        lines.append([f"`{name}`", *cells, f"{heads:.0%}", CAUSES[name] if differing else "", fixed, parameters])
    exact = sum(r["share"] == 1 for r in rows)
    left = sum(not r["explained"] for r in rows)
    prompts = {r["model"]: r["prompts"] for r in rows}
    head = ["method", *(f"{model}, {tokens}" for model, tokens in columns)]
    head += ["heads that agree fully", "why not all", "least share with that taken out", "parameters, both"]
    return [
        "## Which entries are kept",
        f"{exact} of {len(rows)} cells agree entry for entry in every layer and head; {len(rows) - exact - left} more "
        f"differ by the cause named and agree without it (or differ in ties only); {left} unexplained. A number is the "
        "share of laconic's entries that kvpress keeps, too, mean over layers, heads and prompts, at keep "
        f"{' · '.join(map(str, keeps))} (a single 1: at all of them). Prompts: "
        f"{', '.join(f'{n} on {model}' for model, n in prompts.items())}; on testbed/lm one of each suite. *With that taken "
        "out*: `aligned.py`.",
        table(head, lines),
        "Budgets are `int(n * keep)` in both. kvpress computes it from the share removed, so it keeps one entry fewer where "
        "`n * keep` is whole and `1 - (1 - keep)` is not exact: `int(510 * (1 - 0.9))` is 50."
        + ("" if "keydiff" in uneven(rows) else " No prompt of this table has such a length, some of the next one do."),
    ]


def uneven(rows: Sequence[Row]) -> set[str]:
    """Methods that kept other numbers of entries than their peer somewhere."""
    return {r["method"] for r in rows if r["entries"][0] != r["entries"][1]}


def percent(interval: Sequence[float]) -> str:
    mean, low, high = (100 * x for x in interval)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def scores(data: Row, agreed: Row) -> list[str]:
    """Recall of both by method, and the paired difference where there is one."""
    rows = data["rows"]
    slots = list(dict.fromkeys((r["mode"], r["keep"]) for r in rows if r["method"] != "none"))
    names = {"aware": "question in view", "agnostic": "question later"}
    lines = []
    for name in data["parameters"]:
        cells = []
        for mode, keep in slots:
            row = next(r for r in rows if (r["method"], r["mode"], r["keep"]) == (name, mode, keep))
            pair = " / ".join(f"{100 * row[who][0]:.0f}" for who in WHO)
            apart = f", {percent(row['difference'])}" if any(row["difference"]) else ""
            cells.append(f"{pair}{apart}; {row['same_answers'] / row['samples']:.0%}")
        lines.append([f"`{name}`", *cells])
    plain = ", ".join(
        f"{names[r['mode']]} {100 * r['laconic'][0]:.0f} / {100 * r['kvpress'][0]:.0f}"
        for r in rows
        if r["method"] == "none"
    )
    return [
        "## What is answered",
        f"Recall in percent on testbed/lm, {rows[0]['tokens']} tokens, laconic / kvpress, mean of four suites (single, "
        f"multikey, multiquery, multivalue), {rows[0]['samples'] // 4} samples each, greedy. Then the paired difference "
        "with its 95 % bootstrap interval, where any sample differs, and the share of answers that are the same tokens. "
        "Uncompressed: "
        f"{plain}.",
        table(["method", *(f"{names[mode]}, keep {keep}" for mode, keep in slots)], lines),
        f"{followed(rows, agreed['rows'])} `tova`, `streaming_llm` and `h2o` go on evicting while they decode in laconic; "
        "kvpress compresses the prefill only. With the question later laconic stores question and answer whole, so there "
        "that difference is gone. kvpress reads the question token by token here: with several at once its PyramidKV fails "
        "on transformers 5.2 when layers differ in length (the mask is built for the first layer).",
    ]


def followed(answered: Sequence[Row], agreed: Sequence[Row]) -> str:
    """How the answers compare for the methods whose kept entries all agree."""
    same = [
        m for m in dict.fromkeys(r["method"] for r in agreed) if all(r["share"] == 1 for r in agreed if r["method"] == m)
    ]
    rows = [r for r in answered if r["method"] in same and (r["mode"] == "agnostic" or r["method"] not in DECODING)]
    alike, total, alike_even, even = (
        sum(r[key] for r in rows) for key in ("same_answers", "samples", "same_answers_even", "even")
    )
    return (
        f"Methods that keep the same entries everywhere ({', '.join(f'`{m}`' for m in same)}) gave the same tokens in "
        f"{alike} of {total} answers (those that evict while decoding: with the question later only), and in {alike_even} "
        f"of the {even} whose budgets are the same number."
    )


def cost(scorers: Row, decoding: Row, memory: Row) -> list[str]:
    """Own share of prefill, decode time, stored and peak bytes of the methods that both were measured on."""
    share = {(r["method"], r["tokens"]): r["share"] for r in scorers["rows"] if r.get("section") == "scorers"}
    decode = {r["who"]: r for r in decoding["rows"] if r.get("section") == "peer decode" and "who" in r}
    peak = {(r["who"], r["method"]): r for r in memory["rows"] if r.get("section") == "memory"}
    lengths = sorted({tokens for _, tokens in share})
    names = list(dict.fromkeys(["none", *(name for name, _ in share)]))

    def pair(values: list[str | None]) -> str:
        return " / ".join("-" if v is None else v for v in values) if any(values) else ""

    lines = []
    for name in names:
        cells = []
        for tokens in lengths:
            found = share.get((name, tokens), {})
            cells.append(pair([f"{100 * found[who]:.2f}" if who in found else None for who in WHO]))
        rows = [decode.get(f"{who} {name}") for who in WHO]
        cells.append(pair([f"{r['ms']:.1f}" if r else None for r in rows]))
        cells.append(pair([f"{r['bytes_kept']:.3f}" if r else None for r in rows]))
        cells.append(pair([f"{r['peak_mb']:.0f}" if (r := peak.get((who, name))) else None for who in WHO]))
        lines.append([f"`{name}`" if name != "none" else "uncompressed", *cells])
    at = {
        what: next(iter({r["tokens"] for r in rows}), 0) // 1024
        for what, rows in (("decode", decode.values()), ("peak", peak.values()))
    }
    head = ["method", *(f"own share of prefill at {n // 1024}k, %" for n in lengths)]
    head += [f"decode at {at['decode']}k, ms a token", "bytes stored, share", f"peak of a {at['peak']}k prefill, MB"]
    dates = [
        f"{what} {d['machine']['date']}"
        for what, d in (("prefill", scorers), ("decode and bytes", decoding), ("peak", memory))
        if "machine" in d
    ]
    return [
        "## What it costs",
        "Random benchmark model, keep 0.1, fp32, two threads, laconic / kvpress; empty: not measured. Taken: "
        f"{', '.join(dates)}. The whole tables with targets: [speed.md](speed.md). h2o is compared at 1k only, as what it "
        "adds to a whole prefill.",
        table(head, lines),
        "`adakv` frees what its heads give up; kvpress hides it behind a mask at every step and stores the whole cache.",
    ]


def page() -> str | None:
    """The whole page; None where nothing has been measured."""
    agreed, answered = load("agree_kept"), load("agree_scores")
    out = ["# laconic beside kvpress 0.5.5"]
    if agreed["rows"]:
        peer = ", ".join(f"{k} {v}" for k, v in agreed["peer"].items())
        machine = agreed["machine"]
        out.append(
            f"Peer: {peer}. laconic: transformers {machine['transformers']}, torch {machine['torch']}. Entries and answers "
            f"taken {machine['date']}. Written by `tools/pages/kvpress.py`; how to run: `benchmarks/README.md`; figure: "
            "[docs/kvpress.svg](../../docs/kvpress.svg)."
        )
        out += ["QUICK RUN: sizes left out."] * bool(agreed["quick"])
        out += kept(agreed)
    if answered["rows"]:
        out += ["QUICK RUN: samples left out."] * bool(answered["quick"])
        out += scores(answered, agreed)
    parts = [load(name) for name in ("peer_scorers", "peer_decode", "memory")]
    if any(part["rows"] for part in parts):
        out += cost(*parts)
    return "\n\n".join(out) + "\n" if len(out) > 1 else None


if __name__ == "__main__":
    sys.exit(write_page("kvpress", page(), "run_all.py"))
