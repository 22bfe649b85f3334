"""What the settings of fits mean."""

import pytest

from laconic.fit.find import fits
from laconic.fit.meanings import meanings, said

DOC = """A fit.

Args:
    first, second: of both; each step draws one.
    third: of a text; empty: all of it. `fourth`: most of
        its tokens (30).
    other: nothing that is asked for.

Raises:
    ValueError: third: is out of range.
"""


def test_entries_may_share_a_line_and_have_colons():
    told = said(DOC, ["first", "second", "third", "fourth"])
    both = "of both; each step draws one"
    assert told == {
        "first": both,
        "second": both,
        "third": "of a text; empty: all of it",
        "fourth": "most of its tokens (30)",
    }


def test_a_docstring_without_a_section_says_nothing():
    assert said("A fit.", ["first"]) == {} and said("", ["first"]) == {}


@pytest.mark.parametrize("name", sorted(fits()))
def test_every_setting_of_every_fit_is_explained(name):
    assert [setting for setting, meaning in meanings(fits()[name]).items() if not meaning] == []


def test_a_class_goes_before_those_it_inherits_from():
    told = meanings(fits()["eas"])
    assert told["lr"].startswith("of AdamW")  # a training's own says "at its peak"
    assert told["steps"] == "of the optimiser"
    assert "renderer" not in meanings(fits()["selftok"])["heads"]
