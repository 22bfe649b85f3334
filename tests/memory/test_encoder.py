"""The trainable copy of a decoder."""

import pytest
import torch

import laconic
from laconic.memory.encoder import Encoder


@torch.no_grad()
def test_a_whole_copy_computes_what_the_decoder_does(llama, prompt):
    ids = prompt(2, 9)
    got = Encoder(llama)(llama.get_input_embeddings()(ids))
    torch.testing.assert_close(got, llama.model(ids).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 3])
def test_the_first_layers_give_their_own_states_without_a_norm(llama, prompt, layers):
    ids = prompt(2, 9)
    states = llama.model(ids, output_hidden_states=True).hidden_states
    encoder, ran = Encoder(llama, layers), []
    hooks = [layer.register_forward_hook(lambda *_: ran.append(1)) for layer in llama.model.layers]
    got = encoder(llama.get_input_embeddings()(ids))
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(got, states[layers])
    assert len(encoder.decoder.layers) == layers and not ran


def test_weights_are_copies_that_can_be_trained(make_llama, prompt):
    model = make_llama()
    before = model.model.layers[0].mlp.up_proj.weight.clone()
    encoder = Encoder(model.to(torch.bfloat16), 1)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in encoder.parameters())
    with torch.no_grad():
        for p in encoder.parameters():
            p.add_(1)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, before.bfloat16())


@torch.no_grad()
def test_a_copy_made_inside_a_session_is_a_plain_one(make_llama, prompt):
    model, ids = make_llama(), prompt(1, 9)
    want = model.model(ids).last_hidden_state
    with laconic.compress(model, "random:keep=0.2"):
        encoder = Encoder(model)
    torch.testing.assert_close(encoder(model.get_input_embeddings()(ids)), want)


def test_more_layers_than_there_are_are_refused(llama):
    with pytest.raises(ValueError, match="layers=5: this model has 4"):
        Encoder(llama, 5)
