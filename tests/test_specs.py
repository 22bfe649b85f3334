"""One budget for several methods."""

import pytest

from laconic.errors import UnknownNameError
from laconic.method import create_method
from laconic.specs import create_methods


def test_the_budget_is_for_methods_that_name_none():
    assert create_methods(["snapkv", "knorm:tokens=30"], keep=0.5) == [
        create_method("snapkv", keep=0.5),
        create_method("knorm", tokens=30),
    ]
    assert create_methods([], keep=0.5) == []


def test_a_budget_is_not_spent_twice():
    chooser, packer = create_methods(["snapkv", "gear"], keep=0.2)
    assert (chooser.keep, packer) == (0.2, create_method("gear"))
    assert create_methods(["gear"], keep=0.5) == [create_method("gear", keep=0.5)]
    assert create_methods(["snapkv", "gear:keep=0.5"], keep=0.2)[1] == create_method("gear", keep=0.5)


def test_budgets_that_were_not_given_do_not_count():
    assert create_methods(["snapkv"], keep=None, tokens=64, bytes=None) == [create_method("snapkv", tokens=64)]


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="did you mean snapkv"):
        create_methods(["snapk:window=3"])
