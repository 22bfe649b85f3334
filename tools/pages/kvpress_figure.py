"""Draw docs/kvpress.svg from benchmarks/results. Run: python -m tools.pages.kvpress_figure (needs matplotlib)

laconic beside kvpress 0.5.5: recall of every method in two panels, the time of a decoded token and the bytes it reads in a
third.
"""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from tools.pages.parts import DOCS, results

FIGURE = DOCS / "kvpress.svg"
TITLES = {"aware": "recall, question in view", "agnostic": "recall, question comes later"}
# Okabe and Ito's palette: colour-blind readers can tell them apart
COLOURS = {0.25: "#0072B2", 0.1: "#D55E00"}
WHO = {"laconic": "#009E73", "kvpress": "#8A8A8A"}


def recall(axis: Axes, rows: list[dict[str, Any]], mode: str, names: list[str]) -> None:
    """One line per method: kvpress a ring, laconic a dot, joined; the dot fills the ring where both are equal."""
    for row in rows:
        if row["mode"] != mode or row["method"] == "none":
            continue
        y = names.index(row["method"]) + (0.17 if row["keep"] == min(COLOURS) else -0.17)
        mine, theirs = 100 * row["laconic"][0], 100 * row["kvpress"][0]
        colour = COLOURS[row["keep"]]
        axis.plot([mine, theirs], [y, y], color=colour, linewidth=1.2, alpha=0.6)
        axis.plot(theirs, y, "o", markersize=9, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=1.2)
        axis.plot(mine, y, "o", markersize=4, color=colour)
    axis.set_title(TITLES[mode], fontsize=10)
    axis.set_xlim(-5, 105)
    axis.set_xticks([0, 25, 50, 75, 100], ["0", "25", "50", "75", "100 %"])
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()


def decoding(axis: Axes, rows: list[dict[str, Any]]) -> None:
    """Bars: milliseconds of a decoded token, labelled with the stored share."""
    found = {row["who"]: row for row in rows if row.get("section") == "peer decode" and "who" in row}
    names = [name for name in ("none", "snapkv", "adakv") if all(f"{who} {name}" in found for who in WHO)]
    for i, name in enumerate(names):
        for j, (who, colour) in enumerate(WHO.items()):
            row, y = found[f"{who} {name}"], i + 0.38 * j - 0.19
            axis.barh(y, row["ms"], 0.34, color=colour)
            axis.text(row["ms"] + 1, y, f"{row['ms']:.0f} ms, {row['bytes_kept']:.0%} stored", va="center", fontsize=8)
    axis.set_yticks(range(len(names)), ["no method" if name == "none" else name for name in names])
    tokens = next(iter(found.values()))["tokens"]
    axis.set_title(f"a decoded token after {tokens // 1024}k, keep 0.1", fontsize=10)
    axis.set_xlim(0, 1.75 * max(row["ms"] for who, row in found.items() if who.split()[1] in names))
    axis.set_xlabel("ms")
    axis.invert_yaxis()


def main() -> None:
    """Read the results, draw, write."""
    scores, peer = results("agree_scores"), results("peer_decode")
    if scores is None or peer is None:
        raise SystemExit("no results yet; run benchmarks/run_all.py")
    rows = scores["rows"]
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "laconic", "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.4), width_ratios=[1, 1, 1.05])
    names = list(scores["parameters"])
    for axis, mode in zip(axes, TITLES, strict=False):
        recall(axis, rows, mode, names)
    axes[1].set_yticklabels([])
    decoding(axes[2], peer["rows"])
    marks = [Line2D([], [], marker="o", linestyle="", color=c, markersize=6, label=f"keep {k}") for k, c in COLOURS.items()]
    style: dict[str, Any] = {"linestyle": "", "color": "#444444"}
    marks.append(Line2D([], [], marker="o", markersize=4, label="laconic (dot)", **style))
    marks.append(Line2D([], [], marker="o", markersize=9, markerfacecolor="none", label="kvpress (ring)", **style))
    marks += [Line2D([], [], marker="s", linestyle="", markersize=7, color=c, label=who) for who, c in WHO.items()]
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.legend(handles=marks, loc="lower center", ncols=len(marks), frameon=False, fontsize=8.5)
    figure.savefig(FIGURE, metadata={"Date": None})
    print(f"wrote {FIGURE}")


if __name__ == "__main__":
    main()
