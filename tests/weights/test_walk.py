"""A text layer by layer: what each layer reads, before and after a layer was changed."""

import torch
from helpers.weight_tools import windows
from torch import nn

from laconic.weights.gram import grams
from laconic.weights.matrices import matrices
from laconic.weights.restored import restored
from laconic.weights.walk import inputs_of, walk


def read_by(model, name, ids):
    """Inputs of one map in the model's own forward pass, [rows, in]."""
    seen = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda m, args: seen.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    handle.remove()
    return torch.cat(seen)


def test_inputs_are_those_of_the_models_own_pass(llama):
    ids, layers = windows(llama), matrices(llama, "x")
    for number, run in walk(llama, ids):
        found = {}
        with inputs_of(layers[number], lambda name, x, found=found: found.setdefault(name, []).append(x)) as leader:
            run()
        assert len(found) == 4 and len(leader) == 7  # q, k and v read one tensor; gate and up another
        for name in layers[number]:
            torch.testing.assert_close(torch.cat(found[leader[name]]), read_by(llama, name, ids), atol=1e-4, rtol=1e-4)


def test_later_layers_read_what_changed_layers_give(make_llama):
    model, ids = make_llama(seed=1), windows(make_llama())
    layers, seen = matrices(model, "x"), {}
    with restored(model):
        for number, run in walk(model, ids):
            name = next(iter(layers[number]))
            seen[name] = grams(layers[number], run)[name]
            down = model.model.layers[number].mlp.down_proj
            down.weight = nn.Parameter(down.weight * 0)
        for name, gram in seen.items():
            x = read_by(model, name, ids)
            torch.testing.assert_close(gram, x.T @ x, atol=1e-2, rtol=1e-4)
