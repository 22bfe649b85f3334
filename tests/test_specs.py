"""One budget for several methods, and what compress() takes."""

import pytest

import laconic
from laconic.errors import BudgetError, UnknownNameError
from laconic.method import create_method
from laconic.specs import create_methods, methods_of, split_methods


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


def test_a_budget_for_none_of_the_methods_is_refused():
    for specs in (["knorm:tokens=30"], ["knorm:tokens=30", "gear"]):
        with pytest.raises(BudgetError, match=r"keep=0.5 is for no method: 'knorm:tokens=30' has a budget of its own"):
            create_methods(specs, keep=0.5)
    assert create_methods(["knorm:tokens=30"], keep=None) == [create_method("knorm", tokens=30)]


def test_budgets_that_were_not_given_do_not_count():
    assert create_methods(["snapkv"], keep=None, tokens=64, bytes=None) == [create_method("snapkv", tokens=64)]


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="did you mean snapkv"):
        create_methods(["snapk:window=3"])


def test_compress_takes_methods_as_objects_or_text(llama):
    method = laconic.KNorm(keep=0.5)
    assert methods_of([method, "gear:keep=0.5"]) == (method, create_method("gear", keep=0.5))
    assert methods_of([]) == ()
    assert laconic.compress(llama, "snapkv:keep=0.1").methods == (laconic.SnapKV(keep=0.1),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (laconic.SnapKV, r"got the class SnapKV: write SnapKV\(keep=0\.25\)\."),
        (laconic.EAS, r"got the class EAS: write EAS\(\.\.\.\)\."),
        ([laconic.KNorm(keep=0.5)], r"one by one; got a list: write compress\(model, \*methods\)\."),
        (0.1, r"takes methods such as Random\(keep=0\.1\) or 'random:keep=0\.1'; got 0\.1\."),
    ],
)
def test_anything_else_is_answered_with_the_line_to_write(llama, given, message):
    with pytest.raises(TypeError, match=message):
        laconic.compress(llama, given)


def test_a_misspelt_method_is_offered_the_known_one(llama):
    with pytest.raises(UnknownNameError, match="did you mean snapkv"):
        laconic.compress(llama, "snapkw")


def test_splitting_keeps_parameters_with_their_method():
    given = ["snapkv:window=16,kernel=7,h2o", "adakv:scorer=snapkv:window=8,alpha=0.1"]
    assert split_methods(given) == ("snapkv:window=16,kernel=7", "h2o", "adakv:scorer=snapkv:window=8,alpha=0.1")
