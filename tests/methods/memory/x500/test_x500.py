"""500xCompressor: the keys and values at the memory tokens, segment by segment, at positions that go on."""

import pytest
import torch

from laconic.memory.prefix import read
from laconic.methods.memory.x500.network import KeyValueSlots


@pytest.fixture
def network(llama):
    torch.manual_seed(1)
    return KeyValueSlots(llama, 8, 4)


@torch.no_grad()
def test_the_entries_are_the_models_own_at_the_memory_tokens(llama, prompt, network):
    """An untrained encoder is the model, so a plain call on each segment with its memory tokens gives them, too."""
    opening, ids = prompt(1, 2, seed=3)[0], prompt(2, 20)
    made = network(llama, opening, ids, 0.5)
    assert (made.entries, made.seen) == (2 + 4 + 4 + 2, 2 + 20 + 10)
    embed, start, at = llama.get_input_embeddings(), 2, 2
    for piece, slots in ((ids[:, :8], 4), (ids[:, 8:16], 4), (ids[:, 16:], 2)):
        mixed = torch.cat([embed(piece), network.table[:slots].expand(2, -1, -1)], 1)
        positions = torch.arange(start, start + mixed.shape[1])[None].expand(2, -1)
        cache = llama(inputs_embeds=mixed, position_ids=positions, use_cache=True).past_key_values
        for layer, own in enumerate(cache.layers):
            torch.testing.assert_close(
                made.keys[layer][:, :, at : at + slots], own.keys[:, :, -slots:], atol=1e-5, rtol=1e-5
            )
            torch.testing.assert_close(
                made.values[layer][:, :, at : at + slots], own.values[:, :, -slots:], atol=1e-5, rtol=1e-5
            )
        start, at = start + mixed.shape[1], at + slots
    first = read(llama, opening.expand(2, -1))
    torch.testing.assert_close(made.keys[3][:, :, :2], first.keys[3], atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_segment_sees_nothing_of_the_others(llama, prompt, network):
    ids = prompt(1, 16)
    other = ids.clone()
    other[0, 12] = (other[0, 12] + 1) % 96 + 1
    one, two = (network(llama, ids[0, :0], given, 0.25) for given in (ids, other))
    assert one.entries == 4
    assert all(torch.equal(a[:, :, :2], b[:, :, :2]) for a, b in zip(one.values, two.values, strict=True))
    assert not torch.equal(one.values[-1][:, :, 2:], two.values[-1][:, :, 2:])


@torch.no_grad()
def test_7_entries_of_every_layer_cost_more_bytes_than_soft_tokens(llama, prompt, network):
    made = network(llama, prompt(1, 1)[0, :0], prompt(1, 8), 0.5)
    slots, layers, heads, dim, hidden = 4, 4, 2, 8, 32
    assert {x.shape for x in made.keys + made.values} == {(1, heads, slots, dim)} and len(made.keys) == layers
    assert made.nbytes == 2 * layers * heads * dim * slots * 4 > hidden * slots * 4


def test_the_encoder_learns_and_the_model_does_not(llama, prompt, network):
    made = network(llama, prompt(1, 2)[0], prompt(1, 8, seed=1), 0.25)
    llama(prompt(1, 3), past_key_values=made.cache(llama.dtype), position_ids=made.after(3)).logits.sum().backward()
    assert network.table.grad[:2].abs().sum() > 0 and network.table.grad[2:].abs().sum() == 0
    assert all(p.grad is None for p in llama.parameters())
