"""Helpers of methods that score tokens."""

import math

from helpers.text_tools import source_of

from laconic.shortening.scoring import ids_of, leading, mean, per_piece


def test_a_piece_of_several_tokens_has_their_mean():
    source = source_of("a🦊b")
    size = source.pieces.sizes[1]
    scores = [5.0, *range(size), 7.0]
    assert per_piece(source, range(3), scores) == [5.0, (size - 1) / 2, 7.0]
    assert ids_of(source, [2, 0]) == [*source.pieces.ids[2], *source.pieces.ids[0]]


def test_the_mean_leaves_out_what_is_not_known():
    assert mean([math.inf, 1.0, 3.0]) == 2.0 and mean([math.inf]) == 0.0


def test_units_are_taken_until_the_limit_is_passed():
    units, sizes = [range(0, 2), range(2, 4), range(4, 6)], [1] * 6
    assert leading(units, [1.0, 3.0, 2.0], sizes, 2) == [1, 2]  # two tokens do not pass a limit of two
    assert leading(units, [1.0, 3.0, 2.0], sizes, 1) == [1]
    assert leading(units, [1.0, 1.0, 1.0], sizes, 9) == [0, 1, 2]
