"""Checks of parameters: what passes, and what the errors say."""

from types import SimpleNamespace

import pytest

from laconic import checks


def method(**parameters):
    return SimpleNamespace(name="some", **parameters)


@pytest.mark.parametrize("value", ["left", "right", None])
def test_one_of_the_allowed_passes(value):
    checks.one_of(method(side=value), "side", "left", "right", None)


def test_others_are_refused_with_all_that_are_allowed():
    with pytest.raises(ValueError, match=r"^some: side='up': choose 'left', 'right' or None\.$"):
        checks.one_of(method(side="up"), "side", "left", "right", None)
    with pytest.raises(ValueError, match=r"^some: side=None: choose 'left' or 'right'\.$"):
        checks.one_of(method(side=None), "side", "left", "right")


@pytest.mark.parametrize("value", [1, 7])
def test_whole_numbers_pass(value):
    checks.whole(method(window=value), "window", 1)


@pytest.mark.parametrize("value", [0, -3, 2.0, "8", None])
def test_other_values_are_not_whole_numbers(value):
    with pytest.raises(ValueError, match=f"^some: window={value!r} must be a whole number of at least 1\\.$"):
        checks.whole(method(window=value), "window", 1)


def test_limits_are_included():
    checks.at_least(method(beta=1.0), "beta", 1)
    for value in (-1, 0, 1):
        checks.between(method(theta=value), "theta", -1, 1)


def test_numbers_beyond_the_limits_are_refused():
    with pytest.raises(ValueError, match=r"^some: beta=0\.9 must be at least 1\.$"):
        checks.at_least(method(beta=0.9), "beta", 1)
    for value in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"^some: share={value} must be between 0 and 1\\.$"):
            checks.between(method(share=value), "share")
