"""Spaces of types: turned copies, names, and corpora that share a structure."""

import numpy as np
import pytest

from laconic.methods.lens.visual_language_statistics import topology


def turned(x, seed):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(x.shape[1],) * 2))
    return x @ q


def test_7_a_turned_moved_and_scaled_copy_is_at_distance_zero():
    x = np.random.default_rng(0).normal(size=(30, 5))
    assert topology.procrustes(x, 3 * turned(x, 1) + 7) == pytest.approx(0, abs=1e-9)
    assert topology.procrustes(x, np.random.default_rng(2).normal(size=(30, 5))) > 0.3


def test_7_names_do_not_matter_when_rows_are_matched():
    x = np.random.default_rng(0).normal(size=(30, 5))
    order = np.random.default_rng(1).permutation(30)
    other = turned(x, 2)[order]
    found = topology.matched(x, other)
    assert np.array_equal(order[found], np.arange(30))
    assert topology.procrustes(x, other[found]) == pytest.approx(0, abs=1e-9)
    assert topology.procrustes(x, other) > 0.3


def chained(seed, n=40, types=24):
    """Documents that walk along a line of types in small steps."""
    rng = np.random.default_rng(seed)
    return [np.clip(12 + rng.integers(-2, 3, 60).cumsum(), 0, types - 1) for _ in range(n)]


def test_7_two_corpora_of_one_structure_are_nearer_than_one_and_its_shuffle():
    types = list(range(24))
    a, b = (topology.vectors(chained(seed), types, 8) for seed in (0, 1))
    rng = np.random.default_rng(5)
    mixed = topology.vectors([rng.permutation(24)[d] for d in chained(2)], types, 8)
    assert topology.procrustes(a, b) < 0.5 * topology.procrustes(a, mixed)


def test_vectors_are_those_of_a_loop():
    corpus = [np.array([0, 1, 2, 1]), np.array([2, 0])]
    near = np.zeros((3, 3))
    for d in corpus:
        for i in range(len(d)):
            for j in range(len(d)):
                if 0 < abs(i - j) <= 2:
                    near[d[i], d[j]] += 1
    p = near / near.sum()
    with np.errstate(divide="ignore"):
        information = np.maximum(np.log(p / np.outer(p.sum(1), p.sum(1))), 0)
    made = topology.vectors(corpus, [0, 1, 2], 3, window=2)
    u, s, _ = np.linalg.svd(information)
    assert np.allclose(made @ made.T, u @ np.diag(s) @ u.T, atol=1e-9)
    assert topology.vectors(corpus, [0, 1, 2], 5).shape == (3, 5)
