"""Topology: which types occur near each other, as vectors, and how far two such spaces can be turned onto one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.methods.lens.visual_language_statistics.corpus import Corpus

Vectors = NDArray[np.floating[Any]]


def vectors(corpus: Corpus, types: Sequence[int], size: int = 64, window: int = 2) -> Vectors:
    """Vectors [K, size] of `types`: singular vectors of the positive pointwise mutual information of the types that stand at
    most `window` tokens apart, padded with zeros where there are fewer."""
    place = {type_: i for i, type_ in enumerate(types)}
    near = np.zeros((len(types), len(types)))
    for document in corpus:
        line = np.array([place.get(t, -1) for t in document.ravel().tolist()])
        for apart in range(1, window + 1):
            a, b = line[:-apart], line[apart:]
            known = (a >= 0) & (b >= 0)
            np.add.at(near, (a[known], b[known]), 1)
            np.add.at(near, (b[known], a[known]), 1)
    total, sums = near.sum(), near.sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(near * total / np.outer(sums, sums))
    u, s, _ = np.linalg.svd(np.nan_to_num(np.maximum(information, 0), posinf=0.0))
    found = u[:, :size] * np.sqrt(s[:size])
    return np.pad(found, ((0, 0), (0, max(0, size - found.shape[1]))))


def procrustes(a: Vectors, b: Vectors) -> float:
    """What stays between two spaces [K, d] after the best turn, 0 .. 1: 0 where one is the other turned, moved and scaled.
    Row i of one is compared with row i of the other."""
    a, b = (x / max(float(np.linalg.norm(x)), 1e-12) for x in (a - a.mean(0), b - b.mean(0)))
    return float(max(0.0, 1 - np.linalg.svd(a.T @ b, compute_uv=False).sum() ** 2))


def matched(a: Vectors, b: Vectors) -> NDArray[np.int64]:
    """For each row of `a` a row of `b`, each used once: rows whose distances to all others, sorted, are most alike first.
    It reads distances alone, so names and turns do not matter."""

    def profile(x: Vectors) -> Vectors:
        return np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1), axis=1)

    cost = np.linalg.norm(profile(a)[:, None] - profile(b)[None], axis=-1)
    found = np.full(len(a), -1, np.int64)
    used: set[int] = set()
    for flat in np.argsort(cost, axis=None, kind="stable").tolist():
        i, j = divmod(flat, len(b))
        if found[i] < 0 and j not in used:
            found[i] = j
            used.add(j)
    return found
