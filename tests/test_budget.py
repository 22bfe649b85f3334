"""Budgets: what is refused, what is counted, how layers share."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.budget import Budget, pyramid, share
from laconic.errors import BudgetError


@pytest.mark.parametrize("keep", [0, -0.5, 1.0001, 2, math.nan, math.inf])
def test_keep_out_of_range(keep):
    with pytest.raises(BudgetError, match=f"keep={keep} is out of range.*0 < keep <= 1"):
        Budget(keep=keep)


@pytest.mark.parametrize("name", ["tokens", "bytes"])
@pytest.mark.parametrize("value", [0, -3, 2.5, math.nan, math.inf])
def test_counts_out_of_range(name, value):
    with pytest.raises(BudgetError, match=f"{name}={value} is out of range.*whole number of at least 1"):
        Budget(**{name: value})


@pytest.mark.parametrize("name", ["keep", "tokens", "bytes"])
@pytest.mark.parametrize("value", [True, False, "0.5", [1]])
def test_values_that_are_not_numbers(name, value):
    with pytest.raises(BudgetError, match=f"{name}=.*must be a number"):
        Budget(**{name: value})


def test_exactly_one_is_given():
    with pytest.raises(BudgetError, match="none of them"):
        Budget()
    with pytest.raises(BudgetError, match=r"exactly one of.*'keep': 0.5.*'tokens': 3"):
        Budget(keep=0.5, tokens=3)
    with pytest.raises(BudgetError, match="exactly one"):
        Budget(tokens=3, bytes=3)


def test_errors_are_value_errors():
    with pytest.raises(ValueError):
        Budget(keep=3)


@given(st.floats(0.001, 1), st.integers(1, 5000))
def test_a_share_is_rounded_down(keep, seen):
    count = Budget(keep=keep).entries(seen, 1)
    assert 1 <= count <= seen
    assert count == max(1, int(seen * keep + 1e-6))


def test_shares_that_binary_numbers_miss():
    assert Budget(keep=0.3).entries(10, 1) == 3  # 0.3 * 10 = 2.999...
    assert Budget(keep=0.29).entries(100, 1) == 29
    assert Budget(keep=0.1).entries(19, 1) == 1


def test_counts():
    assert Budget(tokens=7).entries(100, 1) == 7
    assert Budget(tokens=7).entries(5, 1) == 5
    assert Budget(tokens=7.0).entries(100, 1) == 7
    assert Budget(bytes=1000).entries(100, 64) == 15
    assert isinstance(Budget(bytes=1e3).entries(100, 64), int)
    assert Budget(bytes=10**9).entries(100, 64) == 100


def test_bytes_too_few_for_a_token():
    with pytest.raises(BudgetError, match="bytes=63 is too little for a single token: a token costs 64 bytes"):
        Budget(bytes=63).entries(100, 64)


def test_neutral_means_that_nothing_may_be_removed():
    assert Budget(keep=1).neutral and Budget(keep=1.0).neutral
    assert not Budget(keep=0.999).neutral and not Budget(tokens=10**9).neutral


def test_text():
    assert str(Budget(keep=0.25)) == "keep=0.25" and str(Budget(bytes=10)) == "bytes=10"


@given(st.floats(1, 1000), st.floats(1, 50), st.integers(1, 60), st.floats(1, 3))
def test_pyramid_keeps_its_mean_falls_evenly_and_respects_the_ceiling(mean, beta, layers, room):
    ceiling = mean * room
    slope = pyramid(mean, beta, layers, ceiling)
    assert len(slope) == layers
    assert math.fsum(slope) / layers == pytest.approx(mean)
    steps = [a - b for a, b in pairwise(slope)] or [0.0]
    assert min(steps) >= -1e-9 * mean and max(steps) - min(steps) < 1e-6 * mean
    assert slope[-1] >= mean / beta - 1e-9
    assert slope[0] <= ceiling + 1e-9


def test_one_layer_gets_the_mean():
    assert pyramid(100, 20, 1, 1000) == [100]


def test_the_share_asked_for_is_the_one_given():
    assert Budget(keep=0.0995).share([18, 7], 1) == 0.0995  # not the one entry of 18 that it comes to
    assert Budget(tokens=10).share([40, 5], 1) == 15 / 45
    assert Budget(bytes=96).share([40], 8) == 12 / 40


@pytest.mark.parametrize(("text", "expected"), [("0.1", 0.1), ("10%", 0.1), (" 9.95 % ", 0.0995), ("1", 1.0)])
def test_shares_from_text(text, expected):
    assert share(text) == pytest.approx(expected, rel=1e-12)


def test_text_that_is_no_share():
    for text in ("ten", "10%%", "%", ""):
        with pytest.raises(ValueError, match="float"):
            share(text)


def test_a_percentage_without_its_sign_is_shown_how_it_is_written():
    with pytest.raises(BudgetError, match=r"keep=10 is out of range.*for 10 percent write 0\.1 or 10%"):
        Budget(keep=10)
    with pytest.raises(BudgetError, match=r"\(keep=1.0 keeps all\)\.$"):  # 110 % was meant, hardly 1.1 %
        Budget(keep=share("110%"))
