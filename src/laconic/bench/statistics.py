"""Seeded bootstrap intervals, of a score and of the difference of two methods on the same samples; and what few answers that
are right or wrong say, where a bootstrap of answers that all agree has no width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95
Z = 1.959964
"""Standard normal quantile of `LEVEL`, two-sided."""


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


def wilson(right: int, total: int) -> Interval:
    """A share with its 95 % interval after Wilson (1927), which has width even when all of few answers agree."""
    share, spread = right / total, Z * Z / total
    middle = share + spread / 2
    reach = Z * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    low, high = ((middle + sign * reach) / (1 + spread) for sign in (-1, 1))
    return Interval(share, max(0.0, low), min(1.0, high))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact probability of so uneven a split if wins and losses were equally likely (McNemar's exact test)."""
    n, few = wins + losses, min(wins, losses)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(few + 1)) / 2**n)
