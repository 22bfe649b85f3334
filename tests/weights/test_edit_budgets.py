"""Every method that writes weights once: shares that make no sense, and the share that changes nothing."""

import pytest
from helpers.session_tools import assert_same_state, state
from helpers.weight_tools import in_session, logits

import laconic
from laconic.method import CATALOGUE
from laconic.weights.edit import WeightEdit

laconic.list_methods()  # the whole catalogue
EDITS = sorted(name for name, entry in CATALOGUE.items() if issubclass(entry.cls, WeightEdit))


def test_they_are_those_that_can_be_baked():
    assert {"gptq", "layer_drop", "magnitude", "reap", "rtn", "slimmoe", "sparsegpt", "vtrans", "wanda"} <= set(EDITS)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("keep", [0.0, -0.1, 1.5, float("nan"), float("inf")])
def test_a_sparsity_outside_of_its_range_is_refused(name, keep):
    with pytest.raises(laconic.BudgetError, match="keep="):
        laconic.create_method(name, keep=keep)


@pytest.mark.parametrize("name", EDITS)
def test_sparsity_zero_is_the_model_and_needs_nothing(name, llama, prompt):
    ids, before = prompt(1, 8), state(llama)
    want = logits(llama, ids)
    got = in_session(llama, laconic.create_method(name, keep=1.0), ids)
    assert float((got - want).abs().max()) < 1e-5
    assert_same_state(llama, before)
