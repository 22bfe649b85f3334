"""Outliers against plain loops, and against what scikit-learn 1.9.1 gives for the same numbers."""

import numpy as np
import pytest
import torch

from laconic.ops.outliers import iqr_outliers, lof, outlier_share


def slow_lof(values, m):
    """Breunig et al. 2000, definitions 3 to 7, one loop per definition; scikit-learn's 1e-10 against zero distances."""
    n, values = len(values), [float(v) for v in values]
    m = min(m, n - 1)
    near = [sorted((abs(values[i] - values[j]), values[j], j) for j in range(n) if j != i)[:m] for i in range(n)]
    far = [rows[-1][0] for rows in near]
    density = []
    for rows in near:
        reach = [max(distance, far[j]) for distance, _, j in rows]
        density.append(1 / (sum(reach) / m + 1e-10))
    return [sum(density[j] for _, _, j in rows) / m / density[i] for i, rows in enumerate(near)]


def arrays():
    """The arrays that scikit-learn's LocalOutlierFactor(n_neighbors=m, contamination="auto") was given."""
    rng = np.random.default_rng(0)
    return {
        "uniform": rng.random(300),
        "normal": rng.normal(size=577),
        "heavy": rng.standard_cauchy(200),
        "bimodal": np.concatenate([rng.normal(0, 0.1, 150), rng.normal(5, 1, 40)]),
        "few": rng.normal(size=9),
        "softmax": np.exp(rng.normal(size=576) * 2) / 1e4,
        "constant": np.full(50, 0.25),
    }


SKLEARN = {  # name: (m, outliers, sum of all factors)
    "uniform": [(20, 0, 305.217436), (10, 1, 309.195341)],
    "normal": [(20, 11, 614.519757), (10, 13, 616.478909)],
    "heavy": [(20, 40, 440.134392), (10, 20, 386.061652)],
    "bimodal": [(20, 9, 226.299715), (10, 7, 205.448782)],
    "few": [(20, 0, 9.009251), (10, 0, 9.009251)],
    "softmax": [(20, 23, 627.033157), (10, 22, 620.93694)],
    "constant": [(20, 0, 50.0), (10, 0, 50.0)],
}


@pytest.mark.parametrize("name", SKLEARN)
def test_factors_and_share_are_those_of_scikit_learn(name):
    """Recoverable compression, must show 1."""
    x = torch.from_numpy(arrays()[name])
    for m, outliers, total in SKLEARN[name]:
        assert float(lof(x, m).sum()) == pytest.approx(total, rel=1e-6)
        assert outlier_share(x, m) == outliers / len(x)


@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize("m", [1, 5, 20])
def test_factors_equal_the_loops(name, m):
    x = arrays()[name][:60]
    expected = torch.tensor(slow_lof(x, m), dtype=torch.float64)
    torch.testing.assert_close(lof(torch.from_numpy(x), m), expected)


def test_a_distant_value_is_an_outlier_wherever_it_is():
    x = torch.linspace(0, 1, 41)
    x[17] = 9.0
    assert (lof(x, 10) > 1.5).nonzero()[:, 0].tolist() == [17]
    assert lof(x, 10)[17] > 50


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_values(n):
    assert lof(torch.arange(float(n)), 20).shape == (n,)
    assert outlier_share(torch.ones(n), 20) == 0


def test_no_neighbours_is_an_error():
    with pytest.raises(ValueError, match="neighbours=0"):
        lof(torch.ones(4), 0)


@pytest.mark.parametrize("factor", [1.5, 0.5])
def test_quartiles_equal_numpy(factor):
    """Correlation-guided compression, must show 6."""
    x = np.random.default_rng(1).standard_cauchy((6, 37)).astype(np.float32)
    low, high = np.percentile(x, 25, axis=1, keepdims=True), np.percentile(x, 75, axis=1, keepdims=True)
    expected = x > high + factor * (high - low)
    assert expected.any()
    assert iqr_outliers(torch.from_numpy(x), factor).tolist() == expected.tolist()
    assert not iqr_outliers(torch.full((5,), 0.3)).any()
