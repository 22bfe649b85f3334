"""Seeded bootstrap intervals: of a score, and of the difference of two methods on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its interval."""

    mean: float
    low: float
    high: float


def bootstrap(groups: Sequence[Sequence[float]], seed: int = 0, draws: int = DRAWS, level: float = LEVEL) -> Interval:
    """Percentile interval of the mean of the groups' means.

    Samples are drawn with replacement inside each group (a task), so every task keeps its weight. For the paired difference
    of two methods pass the differences per sample.

    Args:
        groups: values per task; each group holds at least one.
        seed: of the draws; the same input gives the same interval.

    Raises:
        ValueError: no group, or an empty one.
    """
    if not groups or not all(len(group) for group in groups):
        raise ValueError(f"bootstrap needs at least one value in every group; got sizes {[len(g) for g in groups]}.")
    generator = np.random.default_rng(seed)
    means = np.zeros(draws)
    for group in groups:
        values = np.asarray(group, dtype=float)
        means += values[generator.integers(0, len(values), (draws, len(values)))].mean(1) / len(groups)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    mean = float(np.mean([np.mean(group) for group in groups]))
    return Interval(mean, float(low), float(high))
