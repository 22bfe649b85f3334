"""Draw docs/accuracy.svg from the leaderboard. Run: python -m tools.pages.accuracy (needs matplotlib)

One panel per way of asking: mean recall over the tasks against the share of the KV bytes that was actually stored.
"""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from tools.pages.parts import DOCS, results

FIGURE = DOCS / "accuracy.svg"
TITLES = {"aware": "question in view", "agnostic": "question comes later"}
# Okabe and Ito's palette: colour-blind readers can tell them apart
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8A8A8A"]
SHOWN = ["snapkv", "kivi", "expected_attention", "keydiff", "fastkv", "compresskv", "streaming_llm", "random"]


def curves(lines: list[dict[str, Any]], mode: str) -> dict[str, list[tuple[float, float]]]:
    """Method -> (share of KV bytes, mean recall), by share."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        name = line["method"].partition(":")[0]
        if line["mode"] == mode and name in SHOWN:
            found.setdefault(name, []).append((line["kv_share"], line["mean"]["mean"]))
    return {name: sorted(found[name]) for name in SHOWN if name in found}


def main() -> None:
    """Read the lines, draw, write."""
    found = results("leaderboard")
    if found is None:
        raise SystemExit("no results yet; run make leaderboard")
    lines = found["lines"]
    plt.rcParams.update({"font.size": 10, "svg.hashsalt": "laconic", "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, len(TITLES), figsize=(9.6, 3.9), sharey=True)
    for axis, (mode, title) in zip(axes, TITLES.items(), strict=True):
        full = 100 * next(x["mean"]["mean"] for x in lines if x["mode"] == mode and x["method"] == "none")
        axis.axhline(full, color="#777777", linestyle=":", linewidth=1)
        axis.text(0.055, full + 1.5, "uncompressed", color="#777777", fontsize=8)
        for (name, points), colour in zip(curves(lines, mode).items(), COLOURS, strict=False):
            x, y = zip(*points, strict=True)
            axis.plot(x, [100 * v for v in y], marker="o", markersize=4, color=colour, label=name, linewidth=1.6)
        axis.set_title(title)
        axis.set_xscale("log")
        axis.set_xticks([0.05, 0.1, 0.25, 0.5, 1.0], ["5 %", "10 %", "25 %", "50 %", "100 %"])
        axis.minorticks_off()
        axis.set_xlabel("KV bytes stored, of uncompressed (float32)")
    axes[0].set_ylabel("recall, %")
    axes[0].set_ylim(0, 108)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    figure.tight_layout()
    figure.savefig(FIGURE, metadata={"Date": None})
    print(f"wrote {FIGURE}")


if __name__ == "__main__":
    main()
