"""Which frames are shown: those on screen in the middle of equal segments of the time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def middles(total: int, count: int) -> list[int]:
    """Numbers of the frames in the middle of `count` equal segments of `total`: floor((i + 1/2) total / count)."""
    count = min(total, count)
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def on_screen(edges: Sequence[int], count: int) -> list[int]:
    """Numbers of the frames on screen in the middle of `count` equal segments of the time, ascending; all frames if there
    are no more than `count`. A frame that is on screen in the middle of several segments is listed once.

    Args:
        edges: when each frame appears, and when the last one ends; whole units of any length, not descending.
    """
    total = len(edges) - 1
    if total <= count or steady(edges):
        return middles(total, count)
    start, length = 2 * count * edges[0], edges[-1] - edges[0]
    doubled = [2 * count * edge for edge in edges[:-1]]
    return sorted({bisect_right(doubled, start + (2 * i + 1) * length) - 1 for i in range(count)})


def steady(edges: Sequence[int]) -> bool:
    """Whether all frames last equally long. Containers round times to their own unit, so edges may be off by two units, but
    not by half a frame."""
    total, first = len(edges) - 1, edges[0]
    length = edges[-1] - first
    slack = min(2 * total, length / 2)
    return all(abs((edge - first) * total - i * length) <= slack for i, edge in enumerate(edges))
