"""Write docs/leaderboard-weights.md from benchmarks/results/weights.json and mixtures.json.

Run: python -m tools.pages.leaderboard_weights [--check]
"""

from __future__ import annotations

from tools.pages.parts import DOCS, Row, not_measured, percent, results, table, write_results

PAGE = DOCS / "leaderboard-weights.md"
INTRODUCTION = """# Leaderboard: weights

Generated from `benchmarks/results/weights.json` and `mixtures.json` by `python -m tools.pages.leaderboard_weights`; do not
edit.

Right answers to questions about needles in documents that no calibration reads, with the 95 % interval of Wilson; the
perplexity of how other such documents go on; the bytes that `laconic bake` stores; and the seconds of one document with its
questions, where they were measured. "Beside" is a method for the cache that cuts the document, before its questions are
known, to the share of its entries that is named. "dense" is the model as it is. Zeros are stored as zeros, so pruning of
single weights saves no bytes. [What each method saves](weights.md).
"""
HEAD = ("weights", "beside", "right, %", "95 %", "questions", "perplexity", "bytes, MB", "seconds")


def line(row: Row) -> list[str]:
    """One method on one model, alone or beside a method for the cache."""
    right, low, high = percent(row, "right", "low", "high")
    beside = f"`{row['cache']}`, {row['keep']:.0%}" if row["cache"] else ""
    seconds = "not timed" if row["seconds"] is None else f"{row['seconds']:.2f}"
    numbers = (f"{row['perplexity']:.2f}", f"{row['bytes'] / 1e6:.1f}")
    return [f"`{row['weights']}`", beside, right, f"{low} to {high}", row["questions"], *numbers, seconds]


MIXTURES = """## testbed/moe

A mixture of experts ([card](../src/laconic/testbed/moe/README.md)) with fewer or narrower experts
(`benchmarks/mixtures.py`): its surprise at unseen texts of eight languages, over that of the tables that wrote them, and the
share of needles that it finds in contexts of 256 tokens.
"""
MIXTURE = ("weights", "parameters, M", "surprise over entropy", "needles, %", "95 %", "questions")


def mixture(row: Row) -> list[str]:
    """One method on the mixture."""
    right, low, high = percent(row, "right", "low", "high")
    numbers = (f"{row['parameters'] / 1e6:.2f}", f"{row['entropy']:.3f}")
    return [row["method"], *numbers, right, f"{low} to {high}", row["questions"]]


def page(rows: list[Row], mixtures: list[Row]) -> str:
    """The page as Markdown: model by model, first methods alone by perplexity, then those beside methods for the cache, so
    that each method for the cache has the dense model and the smaller ones in sequence."""
    parts = [INTRODUCTION]
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        measured = [row for row in own if "right" in row]
        alone = sorted((row for row in measured if not row["cache"]), key=lambda x: x["perplexity"])
        beside = sorted((row for row in measured if row["cache"]), key=lambda x: (x["cache"], x["perplexity"]))
        parts.append(f"## {model}\n")
        if measured:
            told = measured[0]
            parts.append(f"Questions of the task `{told['task']}`, documents of {told['tokens']} tokens, {told['data']}.\n")
            parts += [table(HEAD, [line(row) for row in (*alone, *beside)]), ""]
        parts += not_measured(own, "weights")
    if mixtures:
        ordered = sorted(mixtures, key=lambda x: x["entropy"])
        parts += [MIXTURES, table(MIXTURE, [mixture(row) for row in ordered]), ""]
    return "\n".join(parts).rstrip("\n") + "\n"


def main() -> int:
    """The exit status."""
    return write_results(PAGE, "weights", lambda rows: page(rows, results("mixtures") or []))  # type: ignore[arg-type]


if __name__ == "__main__":
    raise SystemExit(main())
