"""Block influence by hand; layers that are gone, in sessions and in folders."""

import pytest
import torch
from helpers.session_tools import GREEDY, assert_same_state, state
from helpers.weight_tools import logits, windows
from transformers import AutoModelForCausalLM

import laconic
from laconic.artifact import Artifact
from laconic.methods.weights.layer_drop import LayerDropFit
from laconic.weights.restored import restored


def method(model, influence=(0.0, 0.3, 0.1, 0.2), keep=0.5):
    made = laconic.LayerDrop(keep=keep)
    made.fitted = Artifact.of("layer_drop", "measured", model, {"influence": list(influence)})
    return made


def test_influence_token_by_token(llama):
    fit = LayerDropFit(windows=3, tokens=12)
    ids = windows(llama, 1, 200)[0].tolist()
    fit.build(llama, lambda text, **more: {"input_ids": ids})
    found = fit.facts()["influence"]
    with torch.no_grad():
        states = llama.model(input_ids=fit._ids.long(), output_hidden_states=True).hidden_states
    for layer in range(3):  # what transformers calls the last state is normalised
        pairs = zip(states[layer].flatten(0, 1), states[layer + 1].flatten(0, 1), strict=True)
        cosines = [float(x @ y / (x.norm() * y.norm())) for x, y in pairs]
        assert found[layer] == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-5)
    assert len(found) == 4


def without(model, gone):
    other = torch.nn.ModuleList(layer for i, layer in enumerate(model.model.layers) if i not in gone)
    for number, layer in enumerate(other):
        layer.self_attn.layer_idx = number
    model.model.layers, model.config.num_hidden_layers = other, len(other)
    return model


def test_the_least_influential_are_gone_but_never_layer_0(make_llama, prompt, tmp_path):
    model, ids = make_llama(seed=3), prompt(1, 12)
    want = without(make_llama(seed=3), (2, 3))
    before, drop = state(model), method(model)
    with laconic.compress(model, drop, laconic.SnapKV(keep=1.0)) as session:
        torch.testing.assert_close(model(input_ids=ids).logits, logits(want, ids), atol=1e-5, rtol=1e-5)
        got = model.generate(input_ids=ids, **GREEDY)
        assert session.stats.entries == [17.0, 17.0, 0.0, 0.0]
        flops = session.stats.prefill_flops
    assert torch.equal(got, want.generate(input_ids=ids, **GREEDY))
    with laconic.compress(want) as session:
        want.generate(input_ids=ids, **GREEDY)
    assert flops == session.stats.prefill_flops
    assert_same_state(model, before)
    with restored(model):
        drop.prepare(model)
        assert drop.edit(model) == {"layers": 2, "layers removed": "2 3"}
        model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.num_hidden_layers == 2
    torch.testing.assert_close(logits(loaded, ids), logits(want, ids))


def test_beside_a_method_for_the_cache(llama, prompt):
    with laconic.compress(llama, method(llama), laconic.SnapKV(keep=0.5, window=4)) as session:
        llama.generate(input_ids=prompt(1, 20), **GREEDY)
        assert session.stats.asked == pytest.approx(0.25)


def test_too_few_layers(llama):
    with pytest.raises(laconic.BudgetError, match="leaves none of 4 layers"):
        laconic.compress(llama, method(llama, keep=0.1))
