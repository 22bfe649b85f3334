"""HICom's network against loops over its equations. "line n" is what the card must show."""

import math

import pytest
import torch

from laconic.methods.tokens.hicom.network import Adapter, Hybrid, axes, blocks, count, groups


@pytest.fixture(scope="module")
def net(vlm):
    """Random weights, none of them zero."""
    torch.manual_seed(0)
    net = Hybrid(vlm, 3, "question").eval().requires_grad_(False)
    for weight in net.parameters():
        weight.add_(torch.randn_like(weight) * 0.05)
    return net


def loop_groups(size, kernel):
    """Equal parts; the short ones begin one earlier."""
    parts = [part.tolist() for part in torch.arange(size).tensor_split(-(-size // kernel))]
    longest = max(map(len, parts))
    return [part if len(part) == longest else [part[0] - 1, *part] for part in parts]


@pytest.mark.parametrize(("size", "kernel"), [(27, 2), (27, 3), (27, 4), (12, 5), (7, 4), (3, 4), (5, 1), (32, 4)])
def test_groups_are_equal_and_overlap_by_one(size, kernel):
    """line 3"""
    found = groups(size, kernel).tolist()
    assert found == loop_groups(size, kernel) and len(found) == math.ceil(size / kernel)
    assert {i for part in found for i in part} == set(range(size))


def test_blocks_equal_a_loop():
    """line 3"""
    x, kernel = torch.randn(2, 3, 5, 7, 4), (2, 3, 4)
    found, number = blocks(x, kernel), 0
    for t in loop_groups(3, 2):
        for h in loop_groups(5, 3):
            for w in loop_groups(7, 4):
                want = torch.stack([x[:, i, j, k] for i in t for j in h for k in w], 1)
                assert torch.equal(found[:, number], want)
                number += 1
    assert number == found.shape[1] == count((3, 5, 7), kernel)


@pytest.mark.parametrize(("frames", "tokens"), [(32, 680), (64, 1328), (128, 2624)])
def test_published_numbers_of_tokens(frames, tokens):
    """line 4"""
    assert count((frames, 27, 27), (4, 3, 3)) + 32 == tokens


def test_single_patches_are_read_out_as_they_are(net):
    """line 1: the softmax is over one key"""
    x = torch.randn(1, 1, 3, 3, 192)
    local = net(x, torch.randn(1, 128), (1, 1, 1))[:, :-3]
    torch.testing.assert_close(local, net.local(net.values(x).flatten(1, 3)), rtol=1e-4, atol=1e-4)


def test_the_whole_equals_a_loop(net):
    x, question, kernel = torch.randn(1, 2, 4, 4, 192), torch.randn(2, 128), (2, 2, 2)
    found = net(x, question, kernel)
    keys, values = blocks(net.keys(x), kernel)[0], blocks(net.values(x), kernel)[0]
    places = torch.zeros(2, 4, 4, 192)
    rates = [10000 ** (-i / 96) for i in range(96)]
    for t in range(2):
        for h in range(4):
            for w in range(4):
                for at in (t, h, w):
                    places[t, h, w] += torch.tensor([math.sin(at * r) for r in rates] + [math.cos(at * r) for r in rates])
    torch.testing.assert_close(axes((2, 4, 4), 192), places, rtol=1e-4, atol=1e-4)
    for q in range(2):
        asks = net.asks(question[q])
        for g in range(4):
            weights = [math.exp(float(asks @ key) / math.sqrt(192)) for key in keys[g]]
            pooled = sum(w / sum(weights) * value for w, value in zip(weights, values[g], strict=True))
            torch.testing.assert_close(found[q, g], net.local(pooled), rtol=1e-3, atol=1e-3)
        scale, shift = net.modulation(question[q]).chunk(2)
        query = net.norm(net.learned) * (1 + scale) + shift
        seen, weights = x.flatten(0, 3), net.attention
        w_q, w_k, w_v = weights.in_proj_weight.chunk(3)
        b_q, b_k, b_v = weights.in_proj_bias.chunk(3)
        heads = []
        for h in range(4):
            part = slice(48 * h, 48 * h + 48)
            a = (query @ w_q.T + b_q)[:, part] @ ((seen + places.flatten(0, 2)) @ w_k.T + b_k)[:, part].T / math.sqrt(48)
            heads.append(a.softmax(-1) @ (seen @ w_v.T + b_v)[:, part])
        out = torch.cat(heads, 1) @ weights.out_proj.weight.T + weights.out_proj.bias
        torch.testing.assert_close(found[q, 4:], net.readout(query + out), rtol=1e-3, atol=1e-3)


def test_a_question_that_prefers_nothing_gives_averages(vlm, net):
    """line 2: constant keys, a query of zero, and a fresh network"""
    x, question = torch.randn(1, 1, 6, 6, 192), torch.randn(1, 128)
    mean = blocks(x, (1, 3, 3)).mean(2)
    fresh = Hybrid(vlm, 0, "question")
    torch.testing.assert_close(fresh(x, question, (1, 3, 3)), fresh.local(mean))
    none = Hybrid(vlm, 0, "none")
    torch.testing.assert_close(none(x, question, (1, 3, 3)), none.local(mean))
    same = torch.ones(1, 1, 6, 6, 192) * torch.randn(192)
    torch.testing.assert_close(net.shares(same, question, (1, 3, 3)), torch.full((1, 4, 9), 1 / 9))


def test_a_patch_changes_its_own_local_token_and_all_global_ones(net):
    """line 5"""
    x, question = torch.randn(1, 1, 6, 6, 192), torch.randn(1, 128)
    other = x.clone()
    other[0, 0, 1, 4] += 1
    moved = (net(x, question, (1, 3, 3)) - net(other, question, (1, 3, 3))).abs().amax(-1)[0] > 1e-5
    assert moved.tolist() == [False, True, False, False, True, True, True]


def test_another_question_gives_other_tokens_and_a_fresh_adapter_is_the_identity(net):
    """line 6"""
    x = torch.randn(1, 1, 6, 6, 192)
    both = net(x, torch.randn(2, 128), (1, 3, 3))
    assert bool(((both[0] - both[1]).abs().amax(-1) > 1e-4).all())
    assert torch.equal(Adapter(8)(x[..., :8]), x[..., :8])


def test_more_frames_than_ever_before(net):
    """line 8"""
    x, question = torch.randn(1, 9, 3, 3, 192), torch.randn(1, 128)
    longer = net(x, question, (2, 3, 3))
    assert longer.shape == (1, 5 + 3, 128)
    torch.testing.assert_close(longer[:, :2], net(x[:, :5], question, (2, 3, 3))[:, :2])


def test_the_unconditional_query_is_the_mean_of_the_block(vlm):
    torch.manual_seed(0)
    net = Hybrid(vlm, 0, "block")
    x, kernel = torch.randn(1, 1, 4, 4, 192), (1, 2, 2)
    keys = blocks(x, kernel)[0]
    for g, share in enumerate(net.shares(x, torch.randn(1, 128), kernel)[0]):
        torch.testing.assert_close(share, (keys[g] @ keys[g].mean(0) / math.sqrt(192)).softmax(-1))
