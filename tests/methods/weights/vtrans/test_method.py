"""Sliced models are masked models; sizes, budgets, folders."""

import pytest
import torch
from helpers.session_tools import GREEDY, assert_same_state, state
from helpers.weight_tools import logits
from helpers.zoo import Tiny
from transformers import AutoModelForCausalLM

import laconic
from laconic.artifact import Artifact, numbers
from laconic.methods.weights.vtrans.method import kept, sliced
from laconic.methods.weights.vtrans.network import Gates, Sizes
from laconic.methods.weights.vtrans.placed import drawn, fixed, placed
from laconic.weights.restored import restored

KINDS = {
    "gqa": Tiny("Llama"),
    "mha": Tiny("Llama", {"num_key_value_heads": 4}),
    "tied": Tiny("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": Tiny("Qwen3"),
}
NAMES = pytest.mark.parametrize("name", KINDS)


def gates_of(model, seed=0):
    """Random gates with mixed kept sets; means away from 0 and 1."""
    torch.manual_seed(seed)
    gates = Gates(Sizes.of(model)).eval().requires_grad_(False)
    for name in gates.mu:
        gates.mu[name].uniform_(0.5, 1.5)
        gates.logvar[name].normal_(0, 2)
    return gates


def masked(model, gates, units, ids):
    with placed(model, gates, fixed(gates, units), units["width"].sum()):
        return logits(model, ids)


@NAMES
def test_sliced_is_masked(name, prompt):
    model, ids = KINDS[name].build(), prompt(2, 15)
    gates = gates_of(model)
    units = kept(gates, 0.4)
    want = masked(model, gates, units, ids)
    assert not torch.allclose(want, logits(model, ids), atol=0.1)
    with restored(model):
        sliced(model, gates, units)
        torch.testing.assert_close(logits(model, ids), want, atol=1e-5, rtol=1e-5)


@NAMES
def test_gates_that_are_one_and_sure_are_the_model(name, prompt):
    model, ids = KINDS[name].build(), prompt(1, 11)
    gates = Gates(Sizes.of(model), logvar=-40.0).requires_grad_(False)
    for mu in gates.mu.values():
        mu.fill_(1)
    want = logits(model, ids)
    units = kept(gates, 0.0)
    assert all(x.all() for x in units.values())
    torch.testing.assert_close(masked(model, gates, units, ids), want, atol=1e-5, rtol=1e-5)
    with placed(model, gates, drawn(gates), gates.soft("width").sum()):
        torch.testing.assert_close(logits(model, ids), want, atol=1e-4, rtol=1e-4)
    with restored(model):
        sliced(model, gates, units)
        torch.testing.assert_close(logits(model, ids), want, atol=1e-5, rtol=1e-5)


@NAMES
def test_parameters_are_those_of_the_formula(name):
    model = KINDS[name].build()
    gates = gates_of(model)
    units = kept(gates, 0.4)
    counts = [int(units[unit].sum(-1).flatten()[0]) for unit in ("width", "heads", "neurons")]
    with restored(model):
        sliced(model, gates, units)
        layers = list(model.model.layers)
        matrices = [p.numel() for layer in layers for p in layer.parameters() if p.ndim == 2]
        norms = [p.numel() for layer in layers for n, p in layer.named_parameters() if "layernorm" in n]
    found = sum(matrices) + sum(norms)
    assert found == Sizes.of(model).parameters(*counts)
    assert abs(1 - found / Sizes.of(model).dense - 0.4) < 0.02


def made(model, path, sparsity=0.4):
    gates = gates_of(model)
    Artifact.of("vtrans", "trained", model, {"sparsity": sparsity}, numbers(gates)).save(path)
    return str(path)


def test_a_session_and_a_folder(prompt, tmp_path):
    model, ids = KINDS["gqa"].build(), prompt(1, 12)
    method, before = laconic.VTrans(artifact=made(model, tmp_path / "g.safetensors")), state(model)
    with restored(model):
        method.prepare(model)
        facts = method.edit(model)
        want = model.generate(input_ids=ids, **GREEDY)
        model.save_pretrained(tmp_path / "small")
        flops = laconic.seams.Shape.of(model, model.model).prefill_flops([12] * 4)
    with laconic.compress(model, method, laconic.SnapKV(keep=1.0)) as session:
        assert torch.equal(model.generate(input_ids=ids, **GREEDY), want)
        assert session.stats.prefill_flops == flops
    assert_same_state(model, before)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    assert torch.equal(loaded.generate(input_ids=ids, **GREEDY), want)
    assert abs(facts["sparsity of layers"] - 0.4) < 0.02 and loaded.config.hidden_size == facts["width"] < 64
    assert loaded.model.embed_tokens.weight.shape == (97, facts["width"])


def test_bad_budgets_and_models(llama, tmp_path):
    model = KINDS["gqa"].build()
    path = made(model, tmp_path / "g.safetensors")
    with pytest.raises(laconic.BudgetError, match=r"keeps 0\.6: leave keep out"):
        laconic.compress(model, laconic.VTrans(artifact=path, keep=0.5))
    with pytest.raises(laconic.ArtifactError, match="laconic fit vtrans"):
        laconic.compress(llama, laconic.VTrans())
    with pytest.raises(laconic.UnsupportedModelError, match="gates fit layers like those of Llama"):
        Sizes.of(Tiny("Gemma2", {"layer_types": ["full_attention"] * 4}).build())
