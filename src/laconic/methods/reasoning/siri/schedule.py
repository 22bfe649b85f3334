"""The cap on the length of answers, by step (arXiv 2509.25176, section 3)."""

from __future__ import annotations

import math
from typing import Literal, get_args

Shape = Literal["cosine", "stair", "stair-cosine"]


def cap_at(step: int, cycle: int, low: int, high: int, shape: Shape = "cosine") -> int:
    """Most tokens of an answer in `step`: from `high` down to `low` in half a cycle, and up again in the other half.

    Raises:
        ValueError: no such shape, a cycle of less than 2 steps, or `low` above `high`.
    """
    if shape not in get_args(Shape):
        raise ValueError(f"shape={shape!r}: choose one of {', '.join(get_args(Shape))}.")
    if cycle < 2 or low > high:
        raise ValueError(f"cycle={cycle} must be at least 2 steps, and low={low} at most high={high}.")
    middle, half, phase = (high + low) / 2, (high - low) / 2, 2 * math.pi * (step % cycle) / cycle
    if shape == "cosine":
        return round(middle + half * math.cos(phase))
    if shape == "stair":
        return low if step % cycle < cycle / 2 else high
    quarter = math.pi / 4
    if phase < quarter or phase >= 7 * quarter:
        return high
    if 3 * quarter <= phase < 5 * quarter:
        return low
    begin = quarter if phase < 3 * quarter else 3 * quarter
    return round(middle + half * math.cos(2 * (phase - begin)))


def phase_after(steps: int, cycle: int) -> str:
    """What a training of so many steps ends with: "low" after a compression, "high" after an expansion, or "between"."""
    if steps % cycle == 0:
        return "high"
    return "low" if 2 * (steps % cycle) == cycle else "between"
