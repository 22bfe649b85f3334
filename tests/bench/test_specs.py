import pytest

from laconic.bench.comparison import comparisons
from laconic.bench.specs import NONE, budget_from_parameters, build, check_spec, resolve
from laconic.errors import BudgetError, UnknownNameError
from laconic.method import CATALOGUE


def test_a_spec_with_a_budget_of_its_own_is_found():
    assert budget_from_parameters("snapkv:window=16,tokens=20") and not budget_from_parameters("adakv:scorer=keydiff")


def test_a_method_with_one_budget_stands_once():
    assert budget_from_parameters("eas") and budget_from_parameters("eas:artifact=FILE") and not budget_from_parameters(NONE)
    assert build("eas", None).budget_from_parameters


def test_a_spec_becomes_a_method_with_its_budget():
    assert build(NONE, 1.0) is None and build("snapkv:window=16", 0.5).keep == 0.5


def test_parameters_that_a_method_refuses_are_said_of_the_spec():
    with pytest.raises(BudgetError, match="'truncate:side=up'"):
        check_spec("truncate:side=up", 0.5)
    with pytest.raises(UnknownNameError, match="snapkv"):
        check_spec("snapvk", 0.5)
    check_spec("snapkv:tokens=20", 7.0)  # the share is not used


def test_patterns_stand_for_methods_of_the_modality_with_the_settings_of_the_bench():
    text, image = comparisons()["text"], comparisons()["image"]
    assert resolve("snapkv", text) == ["snapkv"] and resolve("snap*", text) == ["snapkv:window=16"]
    assert {CATALOGUE[spec.partition(":")[0]].site for spec in resolve("all", text)} == {"cache"}
    assert {CATALOGUE[spec.partition(":")[0]].site for spec in resolve("all", image)} == {"encoder", "tokens"}
    with pytest.raises(UnknownNameError, match="no image method matches 'snap"):
        resolve("snap*", image)
