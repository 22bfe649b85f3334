"""Narrower experts from an artifact, in sessions and folders."""

import pytest
import torch
from helpers.moe_tools import MIXTRAL, moe
from helpers.session_tools import assert_same_state, state
from helpers.weight_tools import in_session, logits
from transformers import AutoModelForCausalLM

import laconic
from laconic.artifact import Artifact, numbers
from laconic.weights.experts import mixtures, resized
from laconic.weights.restored import restored


def artifact(model, neurons, seed=0):
    """A narrower model whose weights are other ones, too."""
    student = moe(MIXTRAL)
    for block in mixtures(student, "x"):
        block.narrow(torch.arange(neurons).expand(6, -1))
    resized(student, width=neurons)
    torch.manual_seed(seed)
    for p in student.parameters():
        p.data += 0.01 * torch.randn_like(p)
    return student, Artifact.of("slimmoe", "trained", model, {"neurons": neurons}, numbers(student))


def test_the_model_is_the_artifacts_and_comes_back(prompt, tmp_path):
    model, ids = moe(MIXTRAL), prompt(1, 12)
    student, made = artifact(model, 32)
    method, before = laconic.SlimMoE(), state(model)
    method.fitted = made
    with laconic.compress(model, method), torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, logits(student, ids), atol=1e-5, rtol=1e-5)
    assert_same_state(model, before)
    with restored(model):
        method.prepare(model)
        assert method.edit(model) == {"neurons": 32, "neurons before": 96}
        model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded, ids), logits(student, ids), atol=1e-5, rtol=1e-5)


def test_all_neurons_are_the_model(prompt):
    model, ids = moe(MIXTRAL), prompt(1, 12)
    method = laconic.SlimMoE()
    method.fitted = Artifact.of("slimmoe", "trained", model, {"neurons": 96}, numbers(model))
    torch.testing.assert_close(in_session(model, laconic.SlimMoE(keep=1.0), ids), logits(model, ids))
    want = logits(model, ids)
    with laconic.compress(model, method), torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, want, atol=1e-5, rtol=1e-5)


def test_bad_models_and_budgets(llama):
    model = moe(MIXTRAL)
    method = laconic.SlimMoE(keep=0.5)
    _, method.fitted = artifact(model, 32)
    with pytest.raises(laconic.BudgetError, match=r"the artifact keeps 0\.333"):
        laconic.compress(model, method)
    dense = laconic.SlimMoE()
    dense.fitted = method.fitted
    with pytest.raises(laconic.UnsupportedModelError, match="no mixture of experts"):
        laconic.compress(llama, dense)
    cut = laconic.SlimMoE()
    cut.fitted = Artifact.of("slimmoe", "trained", model, {"neurons": 32}, {"lm_head.weight": torch.ones(1)})
    with pytest.raises(laconic.ArtifactError, match=r"has no model\.embed_tokens\.weight"):
        laconic.compress(model, cut)


@pytest.mark.parametrize("neurons", [20, 0, 104])
def test_widths_that_no_kernel_takes_or_no_expert_has(neurons):
    model = moe(MIXTRAL)
    method, before = laconic.SlimMoE(), state(model)
    method.fitted = Artifact.of("slimmoe", "trained", model, {"neurons": neurons}, {"lm_head.weight": torch.ones(1)})
    with pytest.raises(laconic.ArtifactError, match=f"keeps {neurons} of 96 neurons; grouped kernels take multiples of 8"):
        laconic.compress(model, method)
    assert_same_state(model, before)
