"""Agreement of partitions and ranks against scikit-learn and scipy."""

import numpy as np
import pytest

from laconic.methods.lens.tokens_to_thoughts.agreement import ami, ari, nmi, spearman


@pytest.mark.parametrize("seed", range(6))
def test_5_they_match_scikit_learn(seed):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 2 + seed, 40), rng.integers(0, 5, 40)
    b[:25] = a[:25]
    assert ami(a, b) == pytest.approx(metrics.adjusted_mutual_info_score(a, b), abs=1e-9)
    assert nmi(a, b) == pytest.approx(metrics.normalized_mutual_info_score(a, b), abs=1e-9)
    assert ari(a, b) == pytest.approx(metrics.adjusted_rand_score(a, b), abs=1e-9)


def test_5_equal_partitions_have_1_and_shuffled_ones_about_0():
    a = np.repeat(np.arange(6), 20)
    names = np.array([7, 3, 11, 0, 5, 2])[a]
    for measure in (ami, nmi, ari):
        assert measure(a, names) == pytest.approx(1)
    rng = np.random.default_rng(0)
    assert abs(np.mean([ami(a, rng.permutation(a)) for _ in range(20)])) < 0.02
    assert np.mean([nmi(a, rng.permutation(a)) for _ in range(20)]) > 0.05  # which is why it is adjusted


def test_partitions_that_say_nothing():
    one, alone = np.zeros(5, np.int64), np.arange(5)
    assert ami(one, one) == ami(alone, alone) == ari(alone, alone) == nmi(one, one) == 1
    assert ami(one, np.array([0, 0, 1, 1, 1])) == pytest.approx(0)


def test_ranks_match_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 30).astype(float), rng.normal(size=30)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert spearman(y, y**3) == pytest.approx(1) and np.isnan(spearman(np.ones(30), y))
