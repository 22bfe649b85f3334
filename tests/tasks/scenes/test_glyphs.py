"""The bitmap font: all glyphs differ clearly, enlargement repeats pixels, unknown characters are refused."""

import numpy as np
import pytest

from laconic.tasks.scenes.glyphs import ALPHABET, HEIGHT, WIDTH, glyph


def test_glyphs_fill_their_box_and_differ():
    inks = {character: glyph(character) for character in ALPHABET}
    for character, ink in inks.items():
        assert ink.shape == (HEIGHT, WIDTH)
        assert ink[0].any() and ink[-1].any(), character
    least = min((inks[a] != inks[b]).sum() for a in ALPHABET for b in ALPHABET if a < b)
    assert least >= 2


def test_an_L_is_drawn_as_an_L():
    rows = ["".join("#" if on else "." for on in row) for row in glyph("L")]
    assert rows == ["#...."] * 6 + ["#####"]


def test_enlarging_repeats_pixels():
    np.testing.assert_array_equal(glyph("R", 3)[1::3, 1::3], glyph("R"))
    assert glyph("R", 3).shape == (3 * HEIGHT, 3 * WIDTH)


@pytest.mark.parametrize("character", ["a", "", "AB", "?"])
def test_what_the_font_does_not_hold_is_refused(character):
    with pytest.raises(ValueError, match="is not in the font"):
        glyph(character)
