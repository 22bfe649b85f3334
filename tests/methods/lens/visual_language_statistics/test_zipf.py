"""Exponents of samples whose law is known, and what fits better."""

import math

import numpy as np
import pytest

from laconic.methods.lens.visual_language_statistics.zipf import (
    _fit,
    _lowest,
    against_exponential,
    against_lognormal,
    curvature,
    power_law,
    summary,
)


def powers(alpha: float, n: int, seed: int, x_min: int = 1) -> np.ndarray:
    """Whole numbers with p(x) ~ x^-alpha, by the inverse of the distribution function of a table."""
    x = np.arange(x_min, 200_000)
    p = x ** -float(alpha)
    return np.random.default_rng(seed).choice(x, n, p=p / p.sum())


@pytest.mark.parametrize("alpha", [1.7, 2.2, 3.0])
def test_1_the_exponent_is_recovered(alpha):
    law = power_law(powers(alpha, 100_000, 0))
    assert law.alpha == pytest.approx(alpha, abs=0.05) and law.ks < 0.01


def test_the_tail_is_found():
    body = np.random.default_rng(0).integers(1, 10, 5000)
    law = power_law(np.concatenate([body, powers(2.5, 5000, 1, x_min=10)]))
    assert 6 <= law.x_min <= 30 and law.alpha == pytest.approx(2.5, abs=0.15)


def test_1_a_lognormal_sample_is_not_taken_for_a_power_law():
    x = np.maximum(1, np.random.default_rng(0).lognormal(4, 0.6, 20_000).round()).astype(np.int64)
    law = _fit(x[x >= 20], 20)  # the bulk: of a short enough tail both are as near
    assert against_lognormal(x, law).ratio < -10 and against_lognormal(x, law).p < 1e-6


def test_1_a_power_law_is_not_taken_for_an_exponential():
    x = powers(2.2, 20_000, 0)
    law = power_law(x)
    assert against_exponential(x, law).ratio > 2.6 and against_exponential(x, law).p < 0.01
    geometric = np.random.default_rng(1).geometric(0.05, 20_000)
    other = type(law)(2.0, 1, 0.0, len(geometric))
    assert against_exponential(geometric, other).ratio < -5


def test_the_exponential_is_a_distribution():
    """Its log-probabilities, as the ratio has them, sum to one over all counts."""
    from laconic.methods.lens.visual_language_statistics import zipf

    seen = {}
    counts = np.repeat(np.arange(3, 400), 2)
    original = zipf._vuong
    try:
        zipf._vuong = lambda one, other, weight: seen.update(one=one, other=other) or original(one, other, weight)
        against_exponential(counts, zipf.PowerLaw(2.0, 3, 0.0, len(counts)))
        assert float(seen["other"].exp().sum()) == pytest.approx(1, abs=0.2)
        against_lognormal(counts, zipf.PowerLaw(2.0, 3, 0.0, len(counts)))
        assert 0.5 < float(seen["other"].exp().sum()) <= 1 + 1e-6
    finally:
        zipf._vuong = original


def test_a_straight_line_has_no_curvature_and_a_lognormal_bends_down():
    straight = (1e6 / np.arange(1, 500) ** 1.1).round().astype(np.int64)
    assert abs(curvature(straight)) < 0.01
    bent = np.sort(np.random.default_rng(0).lognormal(4, 1, 500).astype(np.int64) + 1)
    assert curvature(bent) < -0.05


def test_too_few_types():
    with pytest.raises(ValueError, match="3 types: a power law needs the counts of at least 10"):
        power_law(np.array([1, 2, 3]))
    assert set(summary(powers(2, 500, 0))) >= {"alpha", "x_min", "ks", "tail", "curvature", "against_lognormal"}


def test_the_minimum_of_a_valley():
    assert _lowest(lambda x: (x - math.pi) ** 2, 1, 8) == pytest.approx(math.pi, abs=1e-3)
