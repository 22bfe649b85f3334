"""A model is what it was after a block that changed everything about it."""

import pytest
import torch
from helpers.weight_tools import logits
from torch import nn

from laconic.weights.restored import Snapshot, restored


def changed(model):
    model.model.layers = nn.ModuleList(list(model.model.layers)[:2])
    model.config.num_hidden_layers = 2
    model.config.later = True
    projection = model.model.layers[0].mlp.down_proj
    projection.weight = nn.Parameter(projection.weight * 2)
    projection.in_features = 1
    projection.note = "new"
    model.lm_head.register_buffer("more", torch.ones(1))


def facts(model):
    return {name: (id(p), tuple(p.shape)) for name, p in model.state_dict(keep_vars=True).items()}


def test_everything_is_back_also_after_an_error(make_llama, prompt):
    model, ids = make_llama(seed=2), prompt(1, 9)
    before, sizes, names = logits(model, ids), facts(model), set(vars(model.model.layers[0].mlp.down_proj))
    with pytest.raises(KeyError), restored(model):
        changed(model)
        assert not torch.allclose(logits(model, ids), before)
        raise KeyError
    assert torch.equal(logits(model, ids), before)
    assert facts(model) == sizes and model.config.num_hidden_layers == 4
    assert set(vars(model.model.layers[0].mlp.down_proj)) == names
    assert model.model.layers[0].mlp.down_proj.in_features == 64


def test_a_changed_model_can_be_put_back_as_well(make_llama, prompt):
    model, ids = make_llama(seed=3), prompt(1, 9)
    with restored(model):
        changed(model)
        after, want = Snapshot(model), logits(model, ids)
    with restored(model):
        after.put()
        assert torch.equal(logits(model, ids), want)


def test_hooks_and_the_attention_that_runs_are_left_alone(make_llama):
    model = make_llama(seed=4)
    calls = []
    with restored(model):
        handle = model.lm_head.register_forward_hook(lambda *a: calls.append(1))
        model.config._attn_implementation = "eager"
    assert model.config._attn_implementation == "eager"
    logits(model, torch.ones(1, 3, dtype=torch.long))
    assert calls == [1]
    handle.remove()
    assert not model.lm_head._forward_hooks
