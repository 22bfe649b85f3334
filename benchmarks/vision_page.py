"""results/vision.json -> results/vision.md: what removing visual tokens saves, method by method.

python benchmarks/vision_page.py
"""

from __future__ import annotations

import json
import sys
from typing import Any

from common import RESULTS
from tables import spread, table


def bold(value: float, limit: float, text: str) -> str:
    """A figure over its limit stands out."""
    return f"**{text}**" if value > limit else text


def line(row: dict[str, Any], peaks: dict[str, float]) -> list[str]:
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


def main() -> int:
    path = RESULTS / "vision.json"
    if not path.exists():
        print("no results yet; run benchmarks/vision.py", file=sys.stderr)
        return 1
    data = json.loads(path.read_text())
    machine = data["machine"]
    rows = [row for row in data["rows"] if row.get("section") == "vision"]
    memory = [row for row in data["rows"] if row.get("section") == "vision memory"]
    wanted = [row for row in data["rows"] if row.get("kind") == "target"]
    out = [
        "# Fewer visual tokens, measured",
        f"{machine['cpu']}, {machine['threads']} threads; torch {machine['torch']}, transformers {machine['transformers']}; "
        f"{machine['date']}. Random models (LLaVA-1.5's class, LLaVA-NeXT's class), decoder of 8 layers x 512, fp32. "
        "Written by `benchmarks/vision_page.py`.",
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
    (RESULTS / "vision.md").write_text("\n\n".join(out) + "\n")
    print(f"wrote {RESULTS / 'vision.md'}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
