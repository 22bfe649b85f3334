"""What stays in any case."""

import pytest

from laconic.errors import ProtectError
from laconic.shortening.forced import forced, occurrences, protected_spans
from laconic.shortening.pieces import words

PIECES = words("one two, 3 four two.")


def test_spans_strings_and_digits():
    assert forced(PIECES, [(2, 6)], (), False) == {0, 1}
    assert forced(PIECES, [], ("two",), False) == {1, 4}
    assert forced(PIECES, [], ("wo, 3",), False) == {1, 2}
    assert forced(PIECES, [], (".",), True) == {2, 4}
    assert forced(PIECES, [], (), False) == frozenset()


def test_occurrences_do_not_overlap():
    assert occurrences("aaaa", "aa") == [(0, 2), (2, 4)] and occurrences("abc", "x") == []


@pytest.mark.parametrize("spec", ["five", "", "system", ((0, 2),), (0, 2)])
def test_what_is_not_in_the_text_is_refused(spec):
    with pytest.raises(ProtectError, match="protect="):
        protected_spans(PIECES.text, spec)


def test_strings_are_found_wherever_they_are():
    assert protected_spans(PIECES.text, ["two", "3"]) == [(4, 7), (16, 19), (9, 10)]
