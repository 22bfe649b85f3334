"""Rate and distortion of partitions against loops, and k-means."""

import math

import numpy as np
import pytest

from laconic.methods.lens.tokens_to_thoughts.agreement import mutual_information, table
from laconic.methods.lens.tokens_to_thoughts.partition import (
    balanced,
    complexity,
    distortion,
    kmeans,
    lagrangian,
    normalised,
    spectrum_entropy,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5))


def slow(vectors, labels):
    """I and D by loops over items."""
    n = len(labels)
    bits = math.log2(n) - sum(math.log2(sum(b == a for b in labels)) for a in labels) / n
    spread = 0.0
    for i in range(n):
        own = [vectors[j] for j in range(n) if labels[j] == labels[i]]
        spread += sum((vectors[i][k] - sum(v[k] for v in own) / len(own)) ** 2 for k in range(vectors.shape[1]))
    return bits, spread / n


def test_1_singletons_and_one_cluster():
    alone, together = np.arange(24), np.zeros(24, np.int64)
    assert complexity(alone) == pytest.approx(math.log2(24), abs=1e-9) and distortion(X, alone) == pytest.approx(0, abs=1e-9)
    assert lagrangian(X, alone, 7) == pytest.approx(math.log2(24), abs=1e-9)
    assert complexity(together) == pytest.approx(0, abs=1e-9)
    assert lagrangian(X, together, 2) == pytest.approx(2 * X.var(0).sum(), abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_2_and_3_random_partitions_are_those_of_the_loops(seed):
    labels = np.random.default_rng(seed).integers(0, 6, 24)
    bits, spread = slow(X, labels.tolist())
    assert complexity(labels) == pytest.approx(bits, abs=1e-9) and distortion(X, labels) == pytest.approx(spread, abs=1e-9)
    assert lagrangian(X, labels, 0.3) == pytest.approx(bits + 0.3 * spread, abs=1e-9)
    joint = table(np.arange(24), labels)  # every item is as likely as every other
    assert complexity(labels) == pytest.approx(mutual_information(joint) / math.log(2), abs=1e-9)
    assert complexity(labels) <= math.log2(len(np.unique(labels))) + 1e-9


def test_3_splitting_a_cluster_never_adds_distortion():
    labels = np.zeros(24, np.int64)
    before = distortion(X, labels)
    for c in range(1, 8):
        split = labels.copy()
        split[RNG.permutation(24)[:4]] = c
        after = distortion(X, np.unique(split + 100 * labels, return_inverse=True)[1])
        assert after <= before + 1e-12
        labels, before = np.unique(split + 100 * labels, return_inverse=True)[1], after


def test_4_k_means_has_no_more_distortion_than_human_categories():
    centres = RNG.normal(size=(4, 5)) * 4
    human = np.repeat(np.arange(4), 12)
    x = centres[human] + RNG.normal(size=(48, 5))
    assert distortion(x, kmeans(x, 4)) <= distortion(x, human) + 1e-9
    noise = RNG.normal(size=(48, 5))
    assert distortion(noise, kmeans(noise, 4)) < distortion(noise, human)
    assert np.array_equal(kmeans(x, 4, seed=3), kmeans(x, 4, seed=3))


def test_k_means_stands_equal_items_and_more_clusters_than_places():
    labels = kmeans(np.repeat(np.eye(2), 5, 0), 4)
    assert len(labels) == 10 and distortion(np.repeat(np.eye(2), 5, 0), labels) == 0


def test_6_scaling_changes_the_distortion_alone():
    labels = RNG.integers(0, 4, 24)
    assert distortion(3 * X, labels) == pytest.approx(9 * distortion(X, labels))
    for how in ("unit_norm", "unit_variance"):
        assert distortion(normalised(3 * X, how), labels) == pytest.approx(distortion(normalised(X, how), labels))
    assert normalised(X, "unit_variance").var(0).sum() == pytest.approx(1)
    assert np.allclose(np.linalg.norm(normalised(X, "unit_norm"), axis=1), 1) and normalised(X, "none") is X
    with pytest.raises(ValueError, match="normalise='half': choose one of none, unit_norm, unit_variance"):
        normalised(X, "half")


def test_baselines_and_the_entropy_of_clusters():
    assert sorted(np.bincount(balanced(10, 4)).tolist()) == [2, 2, 3, 3]
    line = np.outer(np.arange(6.0), [1, 0, 0])
    square = np.array([[1, 1.0, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]])
    assert spectrum_entropy(line, np.zeros(6, np.int64)) == pytest.approx(0)
    assert spectrum_entropy(square, np.zeros(4, np.int64)) == pytest.approx(1)
    assert spectrum_entropy(np.zeros((3, 2)), np.zeros(3, np.int64)) == 0
