"""results/vision.json -> results/vision.md: what removing visual tokens saves, method by method.

python -m tools.pages.vision
"""

from __future__ import annotations

import sys

from tools.pages.parts import Row, machine, results, spread, table, write_page


def bold(value: float, limit: float, text: str) -> str:
    """A figure over its limit in bold."""
    return f"**{text}**" if value > limit else text


def line(row: Row, peaks: dict[str, float]) -> list[str]:
    """One method at one prompt length."""
    name = row["method"].partition(":")[0]
    took = row["time"]["ratio"]
    peak = peaks.get(name)
    return [
        f"`{row['method']}`",
        f"{row['achieved']:.3f}",
        f"{row['ms'][name]:.0f}",
        spread(row["time"]) + ("" if took < 1 else " (not faster)"),
        f"{row['flops']:.3f}",
        bold(row["time/flops"], 1.1, f"{row['time/flops']:.2f}"),
        bold(row["overhead"], 0.05, f"{row['overhead']:.1%}"),
        "" if peak is None else bold(peak / peaks["none"], 1, f"{peak / peaks['none']:.2f}"),
    ]


def page() -> str | None:
    """The whole page; None where nothing has been measured."""
    data = results("vision")
    if data is None:
        return None
    rows = [row for row in data["rows"] if row.get("section") == "vision"]
    memory = [row for row in data["rows"] if row.get("section") == "vision memory"]
    wanted = [row for row in data["rows"] if row.get("kind") == "target"]
    out = [
        "# Fewer visual tokens, measured",
        f"{machine(data['machine'])}; {data['machine']['date']}. Random models (LLaVA-1.5's class, LLaVA-NeXT's class), "
        "decoder of 8 layers x 512, fp32. Written by `tools/pages/vision.py`.",
        f"{sum(row['reached'] for row in wanted)} of {len(wanted)} targets reached: prefill time within 10 % of what FLOPs "
        "predict, own work under 5 % of the uncompressed prefill, peak memory below the uncompressed one. **Bold**: not "
        "reached. Time and FLOPs are those of the LLM, own work and the embedding of images included, as shares of the "
        "uncompressed prefill.",
    ]
    head = ["method", "mean visual tokens", "prefill ms", "time", "FLOPs", "time / FLOPs", "own work", "peak memory"]
    for tokens in sorted({row["tokens"] for row in rows}):
        here = [row for row in rows if row["tokens"] == tokens]
        peaks = {row["method"]: row["peak_mb"] for row in memory if row["tokens"] == tokens}
        whole = here[0]["ms"]["none"]
        out += [
            f"## {tokens} visual tokens, keep={here[0]['keep']:g}",
            f"Uncompressed: {whole:.0f} ms" + (f", {peaks['none']:.0f} MB above the model." if peaks else "."),
            table(head, [line(row, peaks) for row in here]),
        ]
    return "\n\n".join(out) + "\n"


if __name__ == "__main__":
    sys.exit(write_page("vision", page(), "vision.py"))
