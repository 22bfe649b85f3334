"""A student in the place of its model: sizes, sessions, folders; and what is refused."""

import pytest
import torch
from helpers.moe_tools import MIXTRAL, moe
from helpers.session_tools import assert_same_state, state
from helpers.weight_tools import in_session, logits
from helpers.zoo import Tiny
from transformers import AutoModelForCausalLM

import laconic
from laconic.artifact import Artifact, numbers
from laconic.methods.weights.distillation.method import student_of
from laconic.weights.restored import restored


def fitted(model, share=0.5, seed=0):
    """The method with a student of random weights, and that student."""
    torch.manual_seed(seed)
    student = student_of(model, share)
    method = laconic.Distillation()
    method.fitted = Artifact.of("distillation", "trained", model, {"share": share}, numbers(student))
    return method, student


@pytest.mark.parametrize(
    ("share", "sizes"), [(0.5, (16, 32, 2, 1)), (0.3, (16, 16, 2, 1)), (0.01, (16, 8, 2, 1)), (0.9, (32, 56, 4, 2))]
)
def test_students_are_narrower_and_keep_the_size_of_their_heads(llama, share, sizes):
    config = student_of(llama, share).config
    found = (config.hidden_size, config.intermediate_size, config.num_attention_heads, config.num_key_value_heads)
    assert found == sizes and config.head_dim == 8 and config.num_hidden_layers == llama.config.num_hidden_layers


@pytest.mark.parametrize("tied", [False, True])
def test_the_student_runs_in_its_place_and_the_model_comes_back(prompt, tmp_path, tied):
    model, ids = Tiny("Llama", {"tie_word_embeddings": tied}).build(), prompt(2, 10)
    width, heads = model.config.hidden_size, model.config.num_key_value_heads
    method, student = fitted(model)
    before, want = state(model), logits(student, ids)
    torch.testing.assert_close(in_session(model, method, ids), want, atol=1e-5, rtol=1e-5)
    assert_same_state(model, before)
    assert not torch.allclose(logits(model, ids), want, atol=1e-3)
    with restored(model):
        method.prepare(model)
        assert method.edit(model) == {
            "width": width // 2,
            "width before": width,
            "neurons": student.config.intermediate_size,
        }
        model.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path), ids), want, atol=1e-5, rtol=1e-5)
    assert model.config.hidden_size == width and model.config.num_key_value_heads == heads


def test_beside_a_method_for_the_cache_fewer_heads_are_stored(make_llama, prompt):
    model, ids = make_llama(seed=3), prompt(1, 40)
    method, student = fitted(model)
    with laconic.compress(student, "snapkv:keep=0.5") as session, torch.no_grad():
        want, stored = student(input_ids=ids).logits, session.stats.kv_bytes
    with laconic.compress(model, method, "snapkv:keep=0.5") as session, torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, want, atol=1e-5, rtol=1e-5)
        assert session.stats.kv_bytes == stored


def test_what_does_not_fit_is_refused(llama):
    method, _ = fitted(llama)
    method.keep = 0.25
    with pytest.raises(laconic.BudgetError, match=r"keep=0\.25, but the artifact keeps 0\.5"):
        laconic.compress(llama, method)
    other, before = laconic.Distillation(), state(llama)
    other.fitted = Artifact.of("distillation", "trained", llama, {"share": 0.5}, {"lm_head.weight": torch.ones(1)})
    with pytest.raises(laconic.ArtifactError, match=r"has no model\.embed_tokens\.weight of shape"):
        laconic.compress(llama, other)
    assert_same_state(llama, before)
    with pytest.raises(laconic.UnsupportedModelError, match="no dense language model"):
        student_of(moe(MIXTRAL), 0.5)
