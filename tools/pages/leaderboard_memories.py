"""Write docs/leaderboard-memories.md from benchmarks/results/memories.json.

Run: python -m tools.pages.leaderboard_memories [--check]
"""

from __future__ import annotations

from tools.pages.parts import DOCS, Row, not_measured, percent, table, write_results

PAGE = DOCS / "leaderboard-memories.md"
INTRODUCTION = """# Leaderboard: learned memories

Generated from `benchmarks/results/memories.json` by `python -m tools.pages.leaderboard_memories`; do not edit.

Right answers on `testbed/facts` to a question that comes after its context was compressed, with the 95 % interval of Wilson;
a guess is right in one of eight. "Another's": the share of right answers where the questions are asked of another context's
memory; what is right there did not come from a memory. "Cache": what one context takes, with what opens its prompt; methods
for the cache have as many entries as a memory of that rate. FLOPs are those of reading the context and one question, the
compressor's own among them, over those of the uncompressed model. What was trained: [learned memories](memories.md).
"""
HEAD = ("method", "right, %", "95 %", "another's, %", "cache, KB", "FLOPs")


def line(row: Row) -> list[str]:
    """One method at one rate."""
    right, low, high = percent(row, "right", "low", "high")
    (swapped,) = percent(row, "swapped") if "swapped" in row else [""]
    return [f"`{row['method']}`", right, f"{low} to {high}", swapped, f"{row['kv_bytes'] / 1000:.1f}", f"{row['flops']:.2f}"]


def page(rows: list[Row]) -> str:
    """The page as Markdown: a table for each rate and length of context, the best first."""
    parts = [INTRODUCTION]
    for keep in sorted({row["keep"] for row in rows}, reverse=True):
        for facts in sorted({row["facts"] for row in rows}):
            own = [row for row in rows if (row["facts"], row["keep"]) == (facts, keep)]
            if not own:
                continue
            measured = sorted((row for row in own if "right" in row), key=lambda row: -row["right"])
            parts.append(f"## {1 / keep:g}x, {facts} facts\n\n{measured[0]['n']} contexts.\n")
            parts += [table(HEAD, [line(row) for row in measured]), ""]
            parts += not_measured(own, "method")
    return "\n".join(parts).rstrip("\n") + "\n"


def main() -> int:
    """The exit status."""
    return write_results(PAGE, "memories", page)


if __name__ == "__main__":
    raise SystemExit(main())
