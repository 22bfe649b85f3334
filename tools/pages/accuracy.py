"""Draw docs/accuracy.svg from the leaderboard on a real model. Run: python -m tools.pages.accuracy (needs matplotlib)

One panel per way of asking: whole answers right, of those that the uncompressed model gives, against the share of the KV
bytes that was actually stored.
"""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from laconic.bench.specs import NONE
from tools.pages.parts import DOCS, results

FIGURE = DOCS / "accuracy.svg"
LENGTH, LEAST = 1024, 4
"""Tokens of the documents, and how many of them a panel needs."""
TITLES = {"later": "question comes later", "in view": "question in view"}
# Okabe and Ito's palette: colour-blind readers can tell them apart
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8A8A8A"]
SHOWN = [
    "kvzip",
    "attention_matching",
    "kivi:residual=32",
    "compresskv",
    "snapkv",
    "expected_attention",
    "keydiff",
    "random",
]


def curves(lines: list[dict[str, Any]], mode: str) -> dict[str, list[tuple[float, float]]]:
    """Method -> (share of KV bytes, share of right answers), by share."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        if (line["mode"], line["length"]) == (mode, LENGTH) and line["method"] in SHOWN:
            found.setdefault(line["method"], []).append((line["kv_share"], line["mean"]["mean"]))
    return {name.partition(":")[0]: sorted(found[name]) for name in SHOWN if name in found}


def main() -> None:
    """Read the lines, draw, write."""
    found = results("leaderboard-real")
    if found is None:
        raise SystemExit("no results yet; run make leaderboard-real")
    lines = found["lines"]
    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "laconic", "axes.spines.top": False, "axes.spines.right": False})
    known = {line["mode"]: line["samples"] for line in lines if line["method"] == NONE and line["length"] == LENGTH}
    shown = {mode: title for mode, title in TITLES.items() if known.get(mode, 0) >= LEAST}
    figure, axes = plt.subplots(1, len(shown), figsize=(2.2 + 3.7 * len(shown), 3.9), sharey=True, squeeze=False)
    axes = axes[0]
    for axis, (mode, title) in zip(axes, shown.items(), strict=True):
        axis.axhline(100, color="#777777", linestyle=":", linewidth=1)
        axis.text(0.055, 101.5, "uncompressed", color="#777777", fontsize=8)
        for (name, points), colour in zip(curves(lines, mode).items(), COLOURS, strict=False):
            x, y = zip(*points, strict=True)
            axis.plot(x, [100 * v for v in y], marker="o", markersize=4, color=colour, label=name, linewidth=1.6)
        axis.set_title(title)
        axis.set_xscale("log")
        axis.set_xticks([0.05, 0.1, 0.25, 0.5, 1.0], ["5 %", "10 %", "25 %", "50 %", "100 %"])
        axis.minorticks_off()
        axis.set_xlabel("KV bytes stored, of uncompressed (float32)")
    axes[0].set_ylabel("answers right, %, of the uncompressed model's")
    axes[0].set_ylim(0, 108)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.tight_layout()
    figure.savefig(FIGURE, metadata={"Date": None})
    print(f"wrote {FIGURE}")


if __name__ == "__main__":
    main()
