"""Methods that edit weights, in sessions: neutral, beside others, and gone without a trace."""

import pytest
import torch
from helpers.session_tools import GREEDY, assert_same_state, state
from helpers.weight_tools import calibrated, in_session, logits

import laconic
from laconic import ArtifactError
from laconic.weights.edit import FittedEdit, WeightEdit
from laconic.weights.restored import restored

SPECS = ["magnitude", "wanda", "sparsegpt", "rtn:group=16", "gptq:group=16"]


def made(spec, model):
    entry = laconic.method.find(spec.partition(":")[0])
    return calibrated(spec, model) if issubclass(entry.cls, FittedEdit) else laconic.create_method(spec)


@pytest.mark.parametrize("spec", SPECS)
def test_a_session_runs_with_the_edited_weights_and_leaves_none(spec, llama, prompt):
    method, ids, before = made(spec, llama), prompt(1, 20), state(llama)
    with restored(llama), torch.no_grad():
        method.prepare(llama)
        method.edit(llama)
        want = logits(llama, ids)
    with laconic.compress(llama, method, laconic.SnapKV(keep=0.5, window=4)) as session:
        assert torch.equal(llama(input_ids=ids, logits_to_keep=0).logits, want) or torch.allclose(
            llama(input_ids=ids).logits, want, atol=1e-5, rtol=1e-5
        )
        llama.generate(input_ids=ids, **GREEDY)
        assert session.stats.achieved == pytest.approx(0.5, abs=0.1)
    assert_same_state(llama, before)
    assert not torch.allclose(want, logits(llama, ids), atol=1e-3)


@pytest.mark.parametrize("name", ["magnitude", "wanda", "sparsegpt", "rtn", "gptq"])
def test_neutral_is_the_model_and_needs_nothing(name, llama, prompt):
    ids = prompt(2, 12)
    with laconic.compress(llama, laconic.create_method(name, keep=1.0)):
        got = llama.generate(input_ids=ids, **GREEDY)
    assert torch.equal(got, llama.generate(input_ids=ids, **GREEDY))
    torch.testing.assert_close(in_session(llama, laconic.create_method(name, keep=1.0), ids), logits(llama, ids))


@pytest.mark.parametrize("name", ["wanda", "sparsegpt", "gptq:group=16"])
def test_without_a_text_the_command_is_named(name, llama):
    with pytest.raises(ArtifactError, match="laconic fit"):
        laconic.compress(llama, name)


def test_a_common_budget_is_for_the_method_that_chooses_entries():
    weights, cache = laconic.specs.create_methods(["magnitude", "snapkv"], keep=0.1)
    assert weights.keep == 0.5 and cache.keep == 0.1
    assert laconic.specs.create_methods(["magnitude"], keep=0.1)[0].keep == 0.1


def test_two_methods_on_weights_are_refused(llama):
    with pytest.raises(laconic.ConflictError):
        laconic.compress(llama, "magnitude", "rtn:group=16")


def test_an_edit_must_be_given():
    with pytest.raises(NotImplementedError, match=r"must define edit"):
        WeightEdit().edit(None)
