"""GMSA: group merging, and alignment by a copy of the first block."""

import pytest
import torch

from laconic.memory.compressor import embedded
from laconic.methods.memory.gmsa.network import MergedGroups, merged


@pytest.mark.parametrize(("tokens", "groups", "size"), [(8, 8, 1), (8, 4, 2), (7, 4, 2), (9, 3, 3), (2, 1, 2), (11, 3, 4)])
def test_1_and_2_groups_equal_a_loop(tokens, groups, size):
    states = torch.randn(2, tokens, 5)
    rows = [range(start, min(start + size, tokens)) for start in range(0, tokens, size)]
    want = [sum(states[:, i] for i in row) / len(row) for row in rows]
    assert len(want) == groups
    torch.testing.assert_close(merged(states, groups), torch.stack(want, 1))


def test_2_the_order_inside_a_group_does_not_matter():
    states = torch.randn(1, 8, 5)
    torch.testing.assert_close(merged(states[:, [1, 0, 3, 2, 5, 4, 7, 6]], 4), merged(states, 4))


@torch.no_grad()
def test_3_alignment_starts_as_the_first_block(llama, prompt):
    net, ids = MergedGroups(llama, 8, 2), prompt(2, 8)
    states = llama.model(ids, output_hidden_states=True).hidden_states
    means = states[2].reshape(2, 4, 2, -1).mean(2)
    block = llama.model(inputs_embeds=means, output_hidden_states=True).hidden_states[1]
    torch.testing.assert_close(net(llama, ids, 4), block)
    torch.testing.assert_close(MergedGroups(llama, 8, 2, 0)(llama, ids, 4), means)


def test_3_its_weights_are_copies(make_llama):
    model = make_llama()
    net = MergedGroups(model, 8, 2)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    assert all(float(p.abs().sum()) > 0 for p in model.parameters())


def test_4_gradients_reach_encoder_and_alignment_only(make_llama, prompt):
    model, net = make_llama(), MergedGroups(make_llama(), 8, 2)
    net.contexts(model, prompt(1, 8), 0.5).sum().backward()
    assert all(p.grad is not None for p in net.parameters()) and all(p.grad is None for p in model.parameters())


@torch.no_grad()
def test_5_upper_blocks_do_not_run(llama, prompt):
    net = MergedGroups(llama, 8, 2)
    assert len(net.encoder.decoder.layers) == 2 and len(net.align.decoder.layers) == 1
    assert embedded(llama, prompt(1, 8)).shape == (1, 8, 32)
