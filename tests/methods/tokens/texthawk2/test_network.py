"""TextHawk2's networks against their equations. "line n" is what the card must show."""

import math

import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from laconic.methods.tokens.texthawk2.network import Block, Proposal, Resampler, TwoSteps, tokens


def noisy(module, size=0.1):
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(torch.randn_like(weight) * size)
    return module.eval().requires_grad_(False)


def test_queries_are_proposed_cell_by_cell():
    """line 4: equal cells propose equal queries, others do not; the stride says how many"""
    net = noisy(Proposal(8, 2))
    x = torch.randn(2, 4, 4, 8)
    found = net(x, 2)
    for number in range(4):
        row, col = divmod(number, 2)
        cell = x[:, 2 * row : 2 * row + 2, 2 * col : 2 * col + 2].flatten(1, 2)
        want = cell.mean(1) + net.out(net.mlp(cell).amax(1))
        torch.testing.assert_close(found[:, number], want)
    same = net(torch.ones(1, 4, 4, 8), 2)
    torch.testing.assert_close(same, same[:, :1].expand_as(same))
    assert bool(((found[:, 0] - found[:, 1]).abs().amax(-1) > 1e-2).all())
    assert [net(x, pool).shape[1] for pool in (1, 2, 4)] == [16, 4, 1]


def attention(net, query, key, value):
    """Multi-head attention of one sequence, from its weights."""
    w_q, w_k, w_v = net.in_proj_weight.chunk(3)
    b_q, b_k, b_v = net.in_proj_bias.chunk(3)
    size, found = query.shape[1] // net.num_heads, []
    for h in range(net.num_heads):
        part = slice(size * h, size * h + size)
        logits = (query @ w_q.T + b_q)[:, part] @ (key @ w_k.T + b_k)[:, part].T / math.sqrt(size)
        found.append(logits.softmax(-1) @ (value @ w_v.T + b_v)[:, part])
    return torch.cat(found, 1) @ net.out_proj.weight.T + net.out_proj.bias


def norm(net, x):
    return layer_norm(x, x.shape[-1:], net.weight, net.bias)


@pytest.mark.parametrize("first", [True, False])
def test_a_block_equals_its_equation(first):
    net = noisy(Block(8, 2, 3, first))
    queries, at, stage, places = (torch.randn(1, n, 8) for n in (3, 3, 5, 5))
    q = queries[0]
    if not first:
        own = norm(net.own_norm, q)
        q = q + attention(net.own, own, own, own)
    seen = norm(net.stage_norm, stage[0])
    q = q + attention(net.cross, norm(net.query_norm, q) + at[0], seen + places[0], seen)
    wide, narrow = net.mlp[0], net.mlp[2]
    q = q + gelu(norm(net.mlp_norm, q) @ wide.weight.T + wide.bias) @ narrow.weight.T + narrow.bias
    torch.testing.assert_close(net(queries, at, stage, places)[0], q, rtol=1e-4, atol=1e-5)


def test_routing_to_one_stage_reads_that_stage_alone():
    """line 5"""
    stages = [torch.randn(1, 4, 4, 8) for _ in range(4)]
    net = noisy(Resampler(8, 2, (3, 3), 1))
    found = net(stages, 2, 4)
    torch.testing.assert_close(net([stages[3]] * 4, 2, 4), found)
    net.routing = (3, 1)
    mixed = net(stages, 2, 4)
    assert (mixed - found).abs().max() > 1e-3
    others = [torch.zeros_like(stages[0]), stages[1], torch.zeros_like(stages[2]), stages[3]]
    torch.testing.assert_close(net(others, 2, 4), mixed)


def test_tiles_are_independent_and_know_where_they_are():
    """line 6"""
    stages = [torch.randn(1, 8, 8, 8) for _ in range(2)]
    net = noisy(Resampler(8, 2, (1, 0), 1))
    found = net(stages, 2, 4)
    changed = [x.clone() for x in stages]
    changed[0][0, 5, 2] += torch.randn(8)  # of the tile below on the left
    moved = (net(changed, 2, 4) - found).abs().amax(-1)[0] > 1e-5
    want = torch.zeros(4, 4, dtype=torch.bool)
    want[2:, :2] = True
    assert torch.equal(moved, want)
    swapped = net([x.roll(4, 2) for x in stages], 2, 4).roll(2, 2)
    assert (swapped - found).abs().max() > 1e-4  # other places in the image


def test_untrained_it_is_the_projector_of_averages(vlm):
    net = TwoSteps(vlm, (3, 0), (1, 4), 1)
    x = torch.randn(1, 12, 12, 192)
    cells = x.view(1, 6, 2, 6, 2, 192).mean((2, 4)).reshape(9, 4, 192).mean(1)
    want = vlm.model.multi_modal_projector(cells)
    torch.testing.assert_close(net([x] * 4, 2, 12)[0], want, rtol=1e-4, atol=1e-4)


def test_numbers_of_tokens():
    """line 1: sixteen for a tile of 16 x 16 patches; 3 x 4 tiles make 192"""
    assert tokens((16, 16), 2, (1, 4)) == 16 and tokens((48, 64), 2, (1, 4)) == 192
    assert tokens((12, 12), 2, (1, 4)) == tokens((12, 12), 4, (1, 1)) == tokens((12, 12), 2, (2, 2)) == 9
    assert tokens((12, 12), 5, (1, 4)) is None and tokens((12, 12), 2, (4, 1)) is None and tokens((6, 6), 2, (1, 4)) is None
