"""A model whose norms have weights to tell apart; freshly made ones are all ones."""

import pytest
import torch


@pytest.fixture(scope="session")
def llama(make_llama):
    model = make_llama()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in model.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
    return model
