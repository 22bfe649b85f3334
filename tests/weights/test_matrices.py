"""Which weights are pruned and rounded, and models that have none such."""

import pytest
import torch
from helpers.zoo import Tiny

import laconic
from laconic import UnsupportedModelError
from laconic.weights.matrices import matrices

MOE = Tiny("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2})


def test_linear_maps_of_layers_only(llama):
    layers = matrices(llama, "x")
    assert len(layers) == 4 and all(len(layer) == 7 for layer in layers)
    assert "model.layers.2.mlp.up_proj" in layers[2] and not any("head" in name or "embed" in name for name in layers[3])


@pytest.mark.parametrize("name", ["magnitude", "rtn:group=16"])
def test_a_mixture_of_experts_is_refused(name):
    with pytest.raises(UnsupportedModelError, match="mixture of experts"):
        laconic.compress(MOE.build(), name)


def test_weights_that_are_quantised_already_are_refused(make_llama):
    model = make_llama(seed=9)
    linear = model.model.layers[1].mlp.up_proj
    linear.weight = torch.nn.Parameter(linear.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(UnsupportedModelError, match=r"layers\.1\.mlp\.up_proj is quantised"):
        matrices(model, "x")
