"""How many tokens an image gets: as few as a quality takes, or its share of what many images have together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def shortest(quality: Callable[[int], float], target: float, most: int) -> int:
    """The smallest k of 1 .. `most` with ``quality(k) >= target``, by binary search; `most` where none reaches it.

    Quality that falls now and then as k grows makes the answer a little too large, never too small to reach the target.
    """
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if quality(middle) >= target:
            high = middle
        else:
            low = middle + 1
    return low


def shared(quality: Tensor, mean: float) -> Tensor:
    """Lengths [M] of M images, `mean` tokens each on average or a little less, for the highest sum of qualities.

    Every image moves along the upper concave hull of its curve, the steepest step of all images first, so that at the end
    all have about the same gain per token.

    Args:
        quality: of each image at 1 .. N tokens, [M, N].
    """
    steps = [step for m, curve in enumerate(quality.tolist()) for step in _hull(m, curve)]
    lengths, left = torch.ones(len(quality), dtype=torch.long), int(mean * len(quality)) - len(quality)
    full: set[int] = set()
    for _, m, length in sorted(steps, key=lambda step: (-step[0], step[1], step[2])):
        more = length - int(lengths[m])
        if more > left or m in full:
            full.add(m)  # what comes later on this curve is farther still
            continue
        lengths[m], left = length, left - more
    return lengths


def _hull(m: int, curve: list[float]) -> list[tuple[float, int, int]]:
    """Rising steps along the upper concave hull from 1 token on: gain per token, the image, the length after it."""
    steps, at = [], 0
    while at < len(curve) - 1:
        slopes = [(curve[i] - curve[at]) / (i - at) for i in range(at + 1, len(curve))]
        best = max(slopes)
        if best <= 0:
            break
        at += 1 + slopes.index(best)
        steps.append((best, m, at + 1))
    return steps
