import numpy as np
import pytest

from laconic.bench.statistics import Z, bootstrap, sign_test, wilson


def test_the_interval_of_a_mean_is_the_closed_one():
    values = np.random.default_rng(0).normal(0.6, 0.2, 400)
    found = bootstrap([values], draws=20_000)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - error, abs=0.03 * error * 2)
    assert found.high == pytest.approx(values.mean() + error, abs=0.03 * error * 2)


def test_groups_count_the_same_whatever_their_size():
    a, b = np.random.default_rng(1).random(300), np.random.default_rng(2).random(20)
    found = bootstrap([a, b], draws=20_000)
    error = 1.96 / 2 * np.sqrt(a.var() / len(a) + b.var() / len(b))
    assert found.mean == pytest.approx((a.mean() + b.mean()) / 2)
    assert found.high - found.low == pytest.approx(2 * error, rel=0.05)


def test_coverage_is_what_it_says():
    generator = np.random.default_rng(3)
    hits = 0
    for trial in range(400):
        found = bootstrap([generator.random(40) < 0.6], seed=trial, draws=400)
        hits += found.low <= 0.6 <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_paired_differences_are_sharper_than_scores():
    generator = np.random.default_rng(4)
    hard = generator.random(60)
    a, b = np.clip(hard + 0.1, 0, 1), hard
    paired = bootstrap([a - b])
    assert paired.low > 0
    single = bootstrap([a])
    assert paired.high - paired.low < (single.high - single.low) / 2


def test_two_values_give_their_ends():
    found = bootstrap([[0.0, 1.0]])
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_one_value_and_equal_values_have_no_width():
    for values in ([0.25], [0.25] * 9):
        found = bootstrap([values])
        assert found.low == found.mean == found.high == 0.25


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(5).random(30)
    assert bootstrap([values], 1) == bootstrap([values], 1) != bootstrap([values], 2)


@pytest.mark.parametrize("groups", [[], [[]], [[1.0], []]])
def test_nothing_has_no_mean(groups):
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap(groups)


def test_wilson_has_width_where_all_agree():
    found = wilson(8, 10)
    assert (found.mean, round(found.low, 3), round(found.high, 3)) == (0.8, 0.490, 0.943)  # Brown, Cai and DasGupta (2001)
    assert wilson(5, 5).low == pytest.approx(5 / (5 + Z * Z)) and wilson(5, 5).high == 1 and wilson(0, 5).low == 0


def test_the_sign_test_is_exact():
    assert sign_test(5, 0) == sign_test(0, 5) == 2 / 2**5 and sign_test(6, 0) == 2 / 2**6
    assert sign_test(1, 9) == pytest.approx(2 * 11 / 2**10) and sign_test(0, 0) == sign_test(3, 3) == 1
