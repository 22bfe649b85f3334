"""Differences between methods at equal achieved FLOPs: against named rivals, and trained against training-free ones."""

from __future__ import annotations

from collections.abc import Container, Sequence

from laconic.bench.specs import NONE
from laconic.bench.summary import Line, gain_at_equal_cost
from laconic.method import find
from tools.pages.leaderboard_parts import arrow

NEAR = 1.05
"""A rival is still compared with a method if its lowest cost is at most this many times the method's."""
Part = tuple[str, Container[tuple[str, int]] | None]
"""The name of a part of the samples, and (task, seed) of those in it; None: all."""
WORTH = """
## Is training worth it?

Each trained method minus methods that need no training, in points at equal achieved FLOPs, the trained network's own work
included; intervals and marks as in the table before. A method that takes more FLOPs than the uncompressed model is compared
with that one. The training itself is not counted."""


def rivals(
    lines: Sequence[Line], pairs: dict[str, tuple[str, ...]], keeps: Sequence[float], parts: Sequence[Part]
) -> list[str]:
    """A row for each method, rival and part of the samples; a rival that did not run is left out."""
    titles = ["method", "over", *(["samples"] if len(parts) > 1 else []), *(f"{100 * keep:g} %" for keep in keeps)]
    out = ["| " + " | ".join(titles) + " |", "|---" * (len(titles) - len(keeps)) + "|" + "---:|" * len(keeps)]
    for method, others in pairs.items():
        own = {line.keep: line for line in lines if line.method == method}
        for other in others:
            reference = [line for line in lines if line.method in (other, NONE)]
            for name, only in parts if len(reference) > 1 else ():
                cells = [difference(own.get(keep), reference, only) for keep in keeps]
                head = [f"`{method}`", f"`{other}`", *([name] if len(parts) > 1 else [])]
                out.append("| " + " | ".join([*head, *cells]) + " |")
    return out


def difference(line: Line | None, reference: list[Line], only: Container[tuple[str, int]] | None) -> str:
    """``+3 [1, 5] ▲`` in points; † where the rival costs a little more; `-` where it costs much more."""
    gain = gain_at_equal_cost(line, reference, 0, only) if line else None
    if line is None or gain is None or (least := min(x.cost for x in reference)) > NEAR * line.cost:
        return "-"
    low, high = gain.interval.low, gain.interval.high
    text = f"{100 * gain.interval.mean:+.0f} [{100 * low:.0f}, {100 * high:.0f}]"
    return text + arrow(gain.interval) + (" †" if least > line.cost else "")


def trained(method: str) -> bool:
    """Whether a method, with parameters or without, needs a training."""
    return find(method.partition(":")[0]).training == "trained"


def worth(lines: Sequence[Line], free: tuple[str, ...], keeps: Sequence[float], parts: Sequence[Part]) -> list[str]:
    """The section on trained methods beside `free` ones; empty without a trained method."""
    names = dict.fromkeys(line.method for line in lines if line.method != NONE)
    pairs = {name: free for name in names if trained(name)}
    return [*WORTH.splitlines(), "", *rivals(lines, pairs, keeps, parts)] if pairs else []
