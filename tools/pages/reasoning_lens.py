"""Draw docs/systems/reasoning_meets_compression.svg from benchmarks/results. Run: python -m tools.pages.reasoning_lens

Three panels: what pruning takes from a model that both thinks and knows facts; what 2 % of the weights are worth while all
others are rounded; and how often short and long answers are right. It needs matplotlib.
"""

from __future__ import annotations

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from tools.pages.parts import DOCS, Row, results

FIGURE = DOCS / "systems" / "reasoning_meets_compression.svg"
# Okabe and Ito's palette: colour-blind readers can tell them apart
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8A8A8A"


def lost(axis: Axes, found: Row) -> None:
    """Right answers against sparsity: problems and facts, the quarters of few and of many steps, seen often and seldom."""
    for (name, curve), colour in zip(found.items(), (BLUE, ORANGE), strict=False):
        told = "facts" if name == "facts" else "problems"
        first, last = ("seen most often", "seen least often") if name == "facts" else ("fewest steps", "most steps")
        levels = [float(level) for level in curve["levels"]]
        points = list(curve["levels"].values())
        axis.fill_between(
            levels, [100 * x["low"] for x in points], [100 * x["high"] for x in points], color=colour, alpha=0.15
        )
        axis.plot(levels, [100 * x["right"] for x in points], color=colour, linewidth=2, label=told)
        for quarter, style, what in ((0, ":", first), (3, "--", last)):
            axis.plot(levels, [100 * x["quarters"][quarter] for x in points], style, color=colour, linewidth=1, label=what)
    axis.set_title("what pruning by size takes", fontsize=10)
    axis.set_xlabel("share of the weights that goes")
    axis.set_ylabel("right, %")
    axis.set_ylim(0, 104)
    axis.legend(fontsize=7, frameon=False, loc="lower left")


def protected(axis: Axes, found: Row) -> None:
    """Loss of the model's own answers, as it is and rounded."""
    for y, (name, colour) in enumerate((("as it is", GREY), ("top", GREEN), ("random", ORANGE), ("all rounded", GREY))):
        values = found[name] if name == "random" else [found[name]]
        axis.plot(values, [y] * len(values), "o", color=colour, markersize=6, alpha=0.7 if name == "random" else 1)
    axis.set_yticks(range(4), ["as it is", "top 2 % kept", "random 2 % kept", "all rounded"])
    axis.set_ylim(3.5, -0.5)
    axis.set_title("rounded, but for 2 % of the weights", fontsize=10)
    axis.set_xlabel("loss of its own answers, nats")
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.7)


def by_length(axis: Axes, found: Row) -> None:
    """Right answers by quarters of length."""
    quarters = found["quarters"]
    axis.bar(range(len(quarters)), [100 * (share or 0) for share in quarters], color=BLUE, width=0.7)
    axis.axhline(100 * found["right"], color=GREY, linestyle=":", linewidth=1)
    axis.set_xticks(range(len(quarters)), ["shortest", "", "", "longest"])
    axis.set_ylim(0, 104)
    axis.set_title("right answers by length", fontsize=10)
    axis.set_ylabel("right, %")


def main() -> None:
    """Read, draw, write."""
    thinks, knows = results("reasoning_lens"), results("reasoning_lens_knowing")
    if thinks is None or knows is None:
        raise SystemExit("no results yet; docs/systems/reasoning_meets_compression.md has the commands")
    plt.rcParams.update({"font.size": 9, "svg.hashsalt": "laconic", "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.3), width_ratios=(1.3, 1.1, 0.9))
    lost(axes[0], knows["collapse"])
    protected(axes[1], thinks["protection"])
    by_length(axes[2], thinks["lengths"])
    figure.tight_layout()
    figure.savefig(FIGURE, metadata={"Date": None})
    print(f"wrote {FIGURE}")


if __name__ == "__main__":
    main()
