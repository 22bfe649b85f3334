"""How far two partitions agree (AMI, NMI, ARI), and two rankings (Spearman)."""

from __future__ import annotations

from math import lgamma

import numpy as np
from numpy.typing import NDArray

from laconic.methods.lens.tokens_to_thoughts.partition import Labels


def table(a: Labels, b: Labels) -> NDArray[np.int64]:
    """How many items have each pair of labels."""
    (rows, i), (columns, j) = (np.unique(x, return_inverse=True) for x in (a, b))
    counts = np.zeros((len(rows), len(columns)), np.int64)
    np.add.at(counts, (i, j), 1)
    return counts


def mutual_information(counts: NDArray[np.int64]) -> float:
    """In nats, from a table of counts."""
    p = counts / counts.sum()
    outer = np.outer(p.sum(1), p.sum(0))
    there = p > 0
    return float((p[there] * np.log(p[there] / outer[there])).sum())


def ami(a: Labels, b: Labels) -> float:
    """Adjusted mutual information: 0 on average for labels drawn at random, 1 for equal partitions. The mean of
    both entropies is what it is measured by (Vinh, Epps and Bailey 2010)."""
    counts = table(a, b)
    if counts.shape[0] == counts.shape[1] == 1 or counts.shape[0] == counts.shape[1] == len(a):
        return 1.0
    expected = _expected(counts)
    most = (_entropy(counts.sum(1)) + _entropy(counts.sum(0))) / 2
    return (mutual_information(counts) - expected) / (most - expected)


def nmi(a: Labels, b: Labels) -> float:
    """Mutual information over the mean of both entropies."""
    counts = table(a, b)
    most = (_entropy(counts.sum(1)) + _entropy(counts.sum(0))) / 2
    return mutual_information(counts) / most if most else 1.0


def ari(a: Labels, b: Labels) -> float:
    """Adjusted Rand index: agreement over pairs of items, 0 on average for labels drawn at random."""

    def pairs(x: NDArray[np.int64]) -> float:
        return float((x * (x - 1) / 2).sum())

    counts = table(a, b)
    both, rows, columns = pairs(counts), pairs(counts.sum(1)), pairs(counts.sum(0))
    expected = rows * columns / pairs(np.array([len(a)]))
    most = (rows + columns) / 2
    return (both - expected) / (most - expected) if most != expected else 1.0


def spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Rank correlation; equal values share the mean of their ranks. nan where one of them does not vary."""
    a, b = (_ranks(v) - (len(v) - 1) / 2 for v in (x, y))
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else float("nan")


def _ranks(x: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    first = np.concatenate([[0], counts.cumsum()[:-1]])
    ranks: NDArray[np.float64] = (first + (counts - 1) / 2)[place]
    return ranks


def _entropy(sizes: NDArray[np.int64]) -> float:
    p = sizes[sizes > 0] / sizes.sum()
    return float(-(p * np.log(p)).sum())


def _expected(counts: NDArray[np.int64]) -> float:
    """Mutual information of two partitions with these sizes whose items meet at random (hypergeometric counts)."""
    rows, columns, n = counts.sum(1), counts.sum(0), int(counts.sum())
    total = 0.0
    for a in rows.tolist():
        for b in columns.tolist():
            fixed = lgamma(a + 1) + lgamma(b + 1) + lgamma(n - a + 1) + lgamma(n - b + 1) - lgamma(n + 1)
            for k in range(max(1, a + b - n), min(a, b) + 1):
                chance = fixed - lgamma(k + 1) - lgamma(a - k + 1) - lgamma(b - k + 1) - lgamma(n - a - b + k + 1)
                total += k / n * np.log(n * k / (a * b)) * np.exp(chance)
    return float(total)
