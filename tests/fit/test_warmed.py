"""Trainings with a warm-up."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from laconic.fit.warmed import WarmedFit


@dataclass(kw_only=True)
class Fit(WarmedFit):
    method: ClassVar[str] = "test"


def test_the_rate_is_a_cosine_after_its_warm_up():
    rates = [Fit(steps=100, warmup=0.1).rate(step) for step in range(100)]
    assert max(rates) == 1 and rates[0] < 0.2 and rates[-1] < 0.01 and rates.index(1) < 11
    assert Fit(steps=100, warmup=0.0).rate(0) == 1


@pytest.mark.parametrize("wrong", [1.0, 2.0, -0.1])
def test_a_warm_up_leaves_steps_after_it(wrong):
    with pytest.raises(ValueError, match=f"test: warmup={wrong} must be at least 0"):
        Fit(warmup=wrong)
