"""Tagged parts of a text."""

import pytest

from laconic.errors import BudgetError
from laconic.shortening.tags import Part, parts


def test_parts_in_order():
    text = "<x, compress=False>Keep me.</x>Speaker:<x, rate=0.4> long</x><x>plain</x> < x > y"
    assert parts(text, "x") == [
        Part("Keep me.", 1.0),
        Part("Speaker:"),
        Part(" long", 0.4),
        Part("plain"),
        Part(" < x > y"),
    ]


def test_compress_true_and_rate_together():
    assert parts("<x, compress=True, rate=0.5>a</x><x,rate=0.2,compress=False>b</x>", "x") == [
        Part("a", 0.5),
        Part("b", 1.0),
    ]


def test_blanks_at_the_end_of_a_part_are_apart():
    assert parts("a <x, rate=0.5>b\n</x> ", "x") == [Part("a"), Part(" "), Part("b", 0.5), Part("\n"), Part(" ")]


def test_text_without_tags_is_one_part():
    assert parts("a <b> c", "x") == [Part("a <b> c")] and parts("", "x") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<x>a", "never closed"),
        ("a</x>", "closes nothing"),
        ("<x><x>a</x></x>", "is inside another"),
        ("<x, rate=2>a</x>", "rate=2"),
        ("<x, rate=half>a</x>", "rate=half"),
        ("<x, speed=2>a</x>", "'speed=2' is not understood"),
        ("<x, compress=maybe>a</x>", "'compress=maybe' is not understood"),
    ],
)
def test_wrong_tags_are_refused(text, message):
    with pytest.raises(BudgetError, match=message):
        parts(text, "x")
