"""Filling a budget with the most important units."""

from hypothesis import given
from hypothesis import strategies as st

from laconic.shortening.choose import fill


def test_the_last_unit_is_cut_where_the_budget_ends():
    assert fill([[4, 5], [0, 1, 2]], [1] * 6, 4) == [0, 1, 4, 5]


def test_it_stops_at_the_first_piece_that_does_not_fit():
    assert fill([[0, 1, 2]], [2, 3, 1], 4) == [0]


def test_forced_pieces_are_paid_for_first():
    assert fill([[0, 1, 2, 3]], [1] * 4, 2, {3}) == [0, 3]
    assert fill([[0, 1]], [1, 1, 1], 1, {1, 2}) == [1, 2]  # more than the budget, and nothing else


def test_one_piece_stays_unless_none_need():
    assert fill([[0]], [9], 1) == [0] and fill([[0]], [9], 1, least=0) == []


@given(st.permutations(range(12)), st.lists(st.integers(1, 4), min_size=12, max_size=12), st.integers(1, 40))
def test_the_budget_holds(order, sizes, budget):
    kept = fill([order], sizes, budget)
    spent = sum(sizes[i] for i in kept)
    assert kept == sorted(set(kept)) and (spent <= budget or len(kept) == 1)
    assert len(kept) == 12 or spent + max(sizes) > budget
