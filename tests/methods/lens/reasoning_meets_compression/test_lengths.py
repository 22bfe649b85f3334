"""Lengths by right and wrong answers: halves that add up, and answers that never ended told apart."""

import pytest

from laconic.methods.lens.reasoning_meets_compression.lengths import Length, report


def test_8_halves_weighted_by_their_counts_are_the_whole():
    answers = [
        Length(tokens, right, False) for tokens, right in zip([5, 9, 9, 9, 3, 20, 31], [1, 1, 0, 1, 0, 0, 1], strict=True)
    ]
    found = report(answers)
    halves = [found[name] for name in ("short", "long")]
    assert [half["answers"] for half in halves] == [5, 2] and found["median"] == 9
    assert sum(half["answers"] * half["right"] for half in halves) == pytest.approx(7 * found["right"])
    assert found["tokens"] == {"right": (5 + 9 + 9 + 31) / 4, "wrong": (9 + 3 + 20) / 3}


def test_answers_that_were_cut_off_are_wrong_and_in_no_mean():
    answers = [Length(4, True, False), Length(6, False, False), Length(100, True, True)]
    found = report(answers)
    assert found["right"] == pytest.approx(1 / 3) and (found["ended"], found["cut"]) == (2, 1)
    assert found["tokens"] == {"right": 4, "wrong": 6} and found["median"] == 5


def test_quarters_go_from_short_to_long():
    answers = [Length(i, i <= 4, False) for i in range(1, 9)]
    assert report(answers)["quarters"] == [1, 1, 0, 0]
    assert report([Length(1, True, False)])["quarters"].count(None) == 3


def test_nothing_is_no_report():
    with pytest.raises(ValueError, match="no answers"):
        report([])
    assert report([Length(9, False, True)])["tokens"] == {"right": None, "wrong": None}
