"""Beacons: window after window, their entries replace the tokens' and move together."""

import pytest
import torch
from transformers import Phi3Config, Phi3ForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from laconic.errors import BudgetError, UnsupportedModelError
from laconic.memory.prefix import read
from laconic.methods.memory.beacon.network import PROJECTIONS, Beacons


@pytest.fixture
def network(llama):
    torch.manual_seed(1)
    made = Beacons(llama, 8, 3)
    for p in made.projections.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    return made


def equal(one, two, atol=1e-5):
    assert one.seen == two.seen
    for a, b in zip(one.keys + one.values, two.keys + two.values, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("keep", "beacons"), [(0.5, 8), (0.25, 4), (0.125, 2)])
def test_8_every_full_window_leaves_its_beacons_and_the_rest_stays(llama, prompt, network, keep, beacons):
    made = network(llama, prompt(1, 2, seed=3)[0], prompt(2, 19), keep)
    assert made.entries == made.seen == 2 + beacons + 3  # floor(16 / a), and three tokens of an unfinished window


@torch.no_grad()
def test_8_without_a_full_window_it_is_the_model(llama, prompt, network):
    opening, ids = prompt(1, 2, seed=3)[0], prompt(1, 7)
    equal(network(llama, opening, ids, 0.25), read(llama, torch.cat([opening[None], ids], 1)))


@torch.no_grad()
def test_8_window_by_window_equals_all_at_once(llama, prompt, network):
    opening, ids = prompt(1, 2, seed=3)[0], prompt(2, 21)
    made = network(llama, opening, ids[:, :8], 0.25)
    made = network._window(llama, ids[:, 8:16], 4, made)
    equal(read(llama, ids[:, 16:], made), network(llama, opening, ids, 0.25))


@torch.no_grad()
def test_entries_are_rotated_to_their_new_places(llama, prompt, network):
    """Keys before rotation, noted at the projections, rotated by transformers' own function to contiguous positions."""
    ids, noted = prompt(1, 8), {}
    hooks = [
        getattr(layer.self_attn, name).register_forward_hook(
            lambda module, args, out, at=(i, name): noted.update({at: args[0]})
        )
        for i, layer in enumerate(llama.model.layers)
        for name in ("k_proj", "v_proj")
    ]
    try:
        made = network(llama, ids[0, :0], ids, 0.25)
    finally:
        for hook in hooks:
            hook.remove()
    cos, sin = llama.model.rotary_emb(torch.zeros(1, 2, 1), torch.arange(2)[None])
    for i, own in enumerate(network.projections):
        states = noted[i, "k_proj"][:, [4, 9]]  # a beacon after every fourth token
        keys, values = (own[name](states).view(1, 2, 2, 8).transpose(1, 2) for name in ("k_proj", "v_proj"))
        turned = apply_rotary_pos_emb(keys, keys, cos, sin)[1]
        torch.testing.assert_close(made.keys[i], turned, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(made.values[i], values, atol=1e-5, rtol=1e-4)


def test_only_beacons_pass_through_their_projections_and_the_model_stays_as_it_is(llama, prompt, network):
    ids, before = prompt(1, 8), llama(prompt(1, 9)).logits
    made = network(llama, ids[0, :0], ids, 0.25)
    llama(prompt(1, 3), past_key_values=made.cache(llama.dtype), position_ids=made.after(3)).logits.sum().backward()
    grads = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.projections.parameters()]
    assert sum(grads) >= len(grads) - 1 and network.embedding.grad.abs().sum() > 0  # a last query acts on nothing
    hooked = [getattr(layer.self_attn, name)._forward_hooks for layer in llama.model.layers for name in PROJECTIONS]
    assert not any(hooked) and torch.equal(llama(prompt(1, 9)).logits, before)
    with pytest.raises(IndexError), network._beside(llama, torch.tensor([99])):
        llama(ids)
    assert not any(hooked)


def test_untrained_beacons_are_tokens_of_the_model(llama, prompt):
    network, ids = Beacons(llama, 4, 3), prompt(1, 4)
    with torch.no_grad():
        made = network(llama, ids[0, :0], ids, 0.25)
        own = read(llama, torch.cat([ids, torch.tensor([[3]])], 1))
    torch.testing.assert_close(made.values[3], own.values[3][:, :, 4:], atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_is_refused(llama, network):
    for keep in (0.3, 1 / 3):
        with pytest.raises(BudgetError, match="divides 8"):
            network.ratio(keep)
    config = Phi3Config(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=20, pad_token_id=0
    )
    with pytest.raises(UnsupportedModelError, match="has no q_proj"):
        Beacons(Phi3ForCausalLM(config), 8, 3)
