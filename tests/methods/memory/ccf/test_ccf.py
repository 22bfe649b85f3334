"""CCF: what memory tokens see, what they become, and the contract of a prefix."""

import pytest
import torch

from laconic.memory.prefix import read
from laconic.methods.memory.ccf.network import SegmentStates, visible


@pytest.fixture
def network(llama):
    torch.manual_seed(1)
    made = SegmentStates(llama, 8, 3)
    for p in (*made.keys.parameters(), *made.values.parameters()):
        p.data.add_(0.1 * torch.randn_like(p))
    return made


@torch.no_grad()
def test_1_without_a_full_segment_it_is_the_model(llama, prompt, network):
    opening, ids = prompt(1, 2, seed=3)[0], prompt(2, 7)
    made, own = network(llama, opening, ids, 0.5), read(llama, torch.cat([opening.expand(2, -1), ids], 1))
    assert made.seen == own.seen
    for a, b in zip(made.keys + made.values, own.keys + own.values, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_2_the_mask_is_its_definition():
    tokens, slots = 9, 4
    got = visible(tokens, slots, torch.device("cpu"))
    for i in range(tokens + slots):
        for j in range(tokens + slots):
            text = j <= i if i < tokens else j < (i - tokens + 1) * 2
            assert bool(got[i, j]) == ((text and j < tokens) or i == j)


@torch.no_grad()
def test_2_a_memory_depends_on_its_part_of_the_segment_alone(llama, prompt, network):
    ids = prompt(1, 8)
    base = network.encode(llama, ids, 4)
    assert base.shape == (4, 1, 4, 32)
    for changed in range(8):
        other = ids.clone()
        other[0, changed] = other[0, changed] % 96 + 1
        moved = (network.encode(llama, other, 4) != base).any(-1).any(0)[0].tolist()
        assert moved == [changed < (i + 1) * 2 for i in range(4)]
    assert torch.equal(base[0, 0, 0], base[0, 0, 3])  # nothing of the context has reached the first layer's input


@torch.no_grad()
def test_states_and_entries_are_those_of_a_plain_call(llama, prompt, network):
    """States: inputs of the attention in the model itself under the mask. Entries: rotated by transformers' own function."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    ids, seen = prompt(1, 8), []
    mixed = torch.cat([llama.get_input_embeddings()(ids), network.embedding.expand(1, 2, -1)], 1)
    mask = torch.zeros(1, 1, 10, 10).masked_fill(~visible(8, 2, ids.device), torch.finfo(torch.float32).min)
    hooks = [
        layer.input_layernorm.register_forward_hook(lambda module, args, out: seen.append(out[:, 8:]))
        for layer in llama.model.layers
    ]
    try:
        llama(inputs_embeds=mixed, attention_mask=mask, position_ids=torch.tensor([[*range(8), 4, 8]]))
    finally:
        for hook in hooks:
            hook.remove()
    states = network.encode(llama, ids, 2)
    torch.testing.assert_close(states, torch.stack(seen), atol=1e-5, rtol=1e-5)
    made = network.entries(llama, states, 5)
    cos, sin = llama.model.rotary_emb(states[0], torch.tensor([[5, 6]]))
    for i in range(4):
        keys, values = (own[i](states[i]).view(1, 2, 2, 8).transpose(1, 2) for own in (network.keys, network.values))
        torch.testing.assert_close(made.keys[i], apply_rotary_pos_emb(keys, keys, cos, sin)[1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(made.values[i], values)
    assert made.seen == 7


@torch.no_grad()
def test_3_segments_are_encoded_in_isolation(llama, prompt, network):
    ids = prompt(1, 24)
    whole = network(llama, ids[0, :0], ids, 0.25)
    other = torch.cat([prompt(1, 8, seed=5), ids[:, 8:]], 1)
    again = network(llama, ids[0, :0], other, 0.25)
    for a, b in zip(whole.keys + whole.values, again.keys + again.values, strict=True):
        assert torch.equal(a[:, :, 2:], b[:, :, 2:])
    assert not torch.equal(whole.values[-1][:, :, :2], again.values[-1][:, :, :2])


@torch.no_grad()
@pytest.mark.parametrize("tokens", [3, 8, 13, 24, 30])
def test_7_the_length_of_the_cache(llama, prompt, network, tokens):
    made = network(llama, prompt(1, 2, seed=3)[0], prompt(1, tokens), 0.25)
    assert made.entries == made.seen == 2 + 2 * (tokens // 8) + tokens % 8


def test_the_model_itself_learns_nothing(llama, prompt, network):
    made = network(llama, prompt(1, 2)[0], prompt(1, 8), 0.5)
    llama(prompt(1, 3), past_key_values=made.cache(llama.dtype), position_ids=made.after(3)).logits.sum().backward()
    for own in (network.embedding, network.keys[0].weight, network.values[3].weight):
        assert own.grad.abs().sum() > 0
    assert all(p.grad is None for p in llama.parameters())
    hooked = [layer.self_attn._forward_pre_hooks for layer in network.encoder.decoder.layers]
    assert not any(hooked)
