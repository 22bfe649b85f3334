"""Factors on the learning rate."""

import pytest

from laconic.fit.schedules import linear_decay, warmup_cosine


def test_linear_decay_falls_to_zero_after_the_last_step():
    assert [linear_decay(step, 4) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]


def test_warmup_rises_to_one_and_the_cosine_falls():
    rates = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3]) and max(rates) == 1.0 == rates[10] and 0 < rates[-1] < 0.01
    assert rates[55] == pytest.approx(0.5) and rates[10:] == sorted(rates[10:], reverse=True)
    assert warmup_cosine(0, 100, 0.0) == 1.0
    assert warmup_cosine(0, 4, 0.05) == 1.0  # a warm-up of less than a step
