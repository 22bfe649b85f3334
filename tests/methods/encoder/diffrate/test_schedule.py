"""Schedules and what they cost. "line n" is what the card must show."""

import pytest

from laconic.methods.encoder.diffrate.schedule import Schedule, embedding_macs, macs, steady

DEIT_S = Schedule(
    (197, 196, 190, 168, 150, 139, 129, 117, 99, 78, 58, 3), (197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3)
)
DEIT_B = Schedule(
    (197, 197, 197, 188, 170, 154, 139, 123, 107, 72, 43, 3), (197, 197, 192, 178, 158, 145, 127, 111, 94, 50, 35, 3)
)


def whole(schedule, width):
    return macs(schedule.counts(197), width, 4 * width) + embedding_macs(196, width, 16, 1000)


@pytest.mark.parametrize("schedule, width, published", [(DEIT_S, 384, 2.905e9), (DEIT_B, 768, 11.517e9)])
def test_published_schedules_cost_what_was_published(schedule, width, published):
    """line 6"""
    assert whole(schedule, width) == pytest.approx(published, rel=5e-4)


def test_full_counts_cost_twelve_n_c_squared():
    """line 6: 12 N C^2 + 2 N^2 C per layer, and the ends"""
    n, c = 197, 384
    assert whole(Schedule((n,) * 12, (n,) * 12), c) == 12 * (12 * n * c**2 + 2 * n**2 * c) + 196 * c * 768 + c * 1000


def test_counts_never_grow():
    """line 7, second half: published lists are not monotone"""
    assert Schedule((10, 6, 9, 4), (8, 6, 9, 9)).counts(9) == [(9, 9, 8), (8, 6, 6), (6, 6, 6), (6, 4, 4)]


def test_a_steady_schedule_merges_equally_many():
    assert steady(145, 37, 4).merge == (118, 91, 64, 37) and steady(145, 37, 4).prune == (145,) * 4
