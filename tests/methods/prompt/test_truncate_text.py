"""`truncate_text` drops words from one side."""

import pytest

import laconic

TEXT = "a b c d e f g h i j"


@pytest.mark.parametrize(("side", "text"), [("right", "a b c d"), ("left", " g h i j"), ("middle", "a b i j")])
def test_the_side_that_is_cut(side, text):
    assert laconic.shorten(TEXT, laconic.TruncateText(keep=0.4, side=side)).text == text


def test_an_odd_word_goes_to_the_beginning():
    assert laconic.shorten(TEXT, laconic.TruncateText(keep=0.3, side="middle")).text == "a b j"


def test_other_sides_are_refused():
    with pytest.raises(ValueError, match="side='top'"):
        laconic.TruncateText(side="top")
