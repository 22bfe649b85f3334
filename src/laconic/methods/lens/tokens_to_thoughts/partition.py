"""What a partition of items costs: bits to name an item beyond its cluster, and squared spread inside the clusters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Vectors = NDArray[np.float64]
NORMS = ("none", "unit_norm", "unit_variance")


def complexity(labels: Labels) -> float:
    """``I = log2 n - (1/n) sum_c n_c log2 n_c`` in bits: what the label of a random item says."""
    sizes = np.unique(labels, return_counts=True)[1]
    return float(np.log2(len(labels)) - (sizes * np.log2(sizes)).sum() / len(labels))


def distortion(vectors: Vectors, labels: Labels) -> float:
    """``D = (1/n) sum_c sum_{i in c} |e_i - mean_c|^2`` of vectors [n, d]."""
    return float(
        sum(np.square(vectors[labels == c] - vectors[labels == c].mean(0)).sum() for c in np.unique(labels)) / len(labels)
    )


def lagrangian(vectors: Vectors, labels: Labels, beta: float = 1.0) -> float:
    """``L = I + beta D``."""
    return complexity(labels) + beta * distortion(vectors, labels)


def normalised(vectors: Vectors, how: str) -> Vectors:
    """Vectors as they are, of length one each, or of total variance one: D has a scale, so models are compared at one.

    Raises:
        ValueError: `how` is none of `NORMS`.
    """
    if how == "none":
        return vectors
    if how == "unit_norm":
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if how == "unit_variance":
        return vectors / max(float(np.sqrt(vectors.var(0).sum())), 1e-12)
    raise ValueError(f"normalise={how!r}: choose one of {', '.join(NORMS)}.")


def kmeans(vectors: Vectors, clusters: int, seed: int = 0, restarts: int = 10, steps: int = 100) -> Labels:
    """The labels of least distortion among several starts (k-means++, then Lloyd's steps)."""
    rng, best, least = np.random.default_rng(seed), np.zeros(len(vectors), np.int64), np.inf
    for _ in range(restarts):
        labels = _lloyd(vectors, _spread(vectors, clusters, rng), steps)
        cost = distortion(vectors, labels)
        if cost < least:
            best, least = labels, cost
    return best


def balanced(n: int, clusters: int, seed: int = 0) -> Labels:
    """Baseline: items in random clusters of equal sizes."""
    return np.random.default_rng(seed).permutation(np.arange(n) % clusters).astype(np.int64)


def spectrum_entropy(vectors: Vectors, labels: Labels) -> float:
    """Mean over clusters of the entropy in bits of the normalised eigenvalues of their covariance. The paper's cluster
    entropy is not defined in the text; this is what it may be."""
    found = []
    for c in np.unique(labels):
        own = vectors[labels == c] - vectors[labels == c].mean(0)
        power = np.square(np.linalg.svd(own, compute_uv=False))
        share = power[power > 1e-12 * max(power.max(initial=0), 1e-300)] / max(power.sum(), 1e-300)
        found.append(float(-(share * np.log2(share)).sum()))
    return float(np.mean(found))


def _spread(vectors: Vectors, clusters: int, rng: np.random.Generator) -> Vectors:
    """Starting centres: items far from those chosen before are likelier."""
    chosen = [vectors[rng.integers(len(vectors))]]
    near = np.square(vectors - chosen[0]).sum(1)
    for _ in range(clusters - 1):
        total = near.sum()
        chosen.append(vectors[rng.choice(len(vectors), p=near / total if total else None)])
        near = np.minimum(near, np.square(vectors - chosen[-1]).sum(1))
    return np.stack(chosen)


def _lloyd(vectors: Vectors, centres: Vectors, steps: int) -> Labels:
    labels = np.full(len(vectors), -1, np.int64)
    for _ in range(steps):
        apart = np.square(vectors).sum(1)[:, None] - 2 * vectors @ centres.T + np.square(centres).sum(1)
        now = apart.argmin(1).astype(np.int64)
        if np.array_equal(now, labels):
            break
        labels = now
        centres = np.stack(
            [vectors[labels == c].mean(0) if (labels == c).any() else centre for c, centre in enumerate(centres)]
        )
    return labels
