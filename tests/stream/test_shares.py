"""Spreading a number of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import BudgetError
from laconic.stream.shares import spread


@pytest.mark.parametrize(
    ("total", "weights", "most", "expected"),
    [
        (10, [1, 1, 1], [9, 9, 9], [4, 3, 3]),
        (12, [1, 2, 3], [9, 9, 9], [2, 4, 6]),
        (12, [1, 2, 3], [9, 9, 3], [3, 6, 3]),  # what the last cannot use goes to the others as 1 : 2
        (4, [0, 0, 5], [9, 9, 9], [1, 1, 2]),
        (99, [1, 5], [4, 2], [4, 2]),
        (7, [3], [9], [7]),
        (0, [], [], []),
    ],
)
def test_examples(total, weights, most, expected):
    assert spread(total, weights, most) == expected


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 40)), min_size=1, max_size=6), st.integers(0, 100))
def test_sum_and_limits(parts, extra):
    weights, most = zip(*parts, strict=True)
    total = len(parts) + extra
    counts = spread(total, weights, most)
    assert sum(counts) == min(total, sum(most))
    assert all(1 <= count <= top for count, top in zip(counts, most, strict=True))
    for a, b in [(i, j) for i in range(len(parts)) for j in range(len(parts)) if weights[i] > weights[j]]:
        assert counts[a] >= counts[b] or counts[a] == most[a]  # more weight never means less, except at the limit


def test_each_gets_one_or_the_budget_is_too_small():
    with pytest.raises(BudgetError, match="leaves 2 visual tokens to 3"):
        spread(2, [1, 1, 1], [5, 5, 5])
