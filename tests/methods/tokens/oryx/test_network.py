"""Oryx' compressor against loops over its equation. "line n" is what the card must show."""

import math

import pytest
import torch

from laconic.methods.tokens.oryx.network import Dynamic, RegionAttention, regions


def attention(width=8, inner=4):
    """Random weights, none of them zero."""
    torch.manual_seed(0)
    net = RegionAttention(width, inner)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn_like(weight))
    return net


def test_regions_equal_a_loop():
    """line 2"""
    net, x = attention(), torch.randn(2, 4, 6, 8)
    found = net(x, 2)
    for b in range(2):
        for i in range(2):
            for j in range(3):
                f = x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(4, 8)
                p = f.mean(0)
                weights = [math.exp(float(net.query(p) @ net.key(one)) / 2) for one in f]
                want = p + sum(w / sum(weights) * one for w, one in zip(weights, f, strict=True))
                torch.testing.assert_close(found[b, 3 * i + j], want, rtol=1e-4, atol=1e-4)


def test_members_may_be_permuted():
    """line 2"""
    net, x = attention(), torch.randn(1, 3, 3, 8)
    other = x.flatten(1, 2)[:, torch.randperm(9)].unflatten(1, (3, 3))
    torch.testing.assert_close(net(other, 3), net(x, 3))


def test_one_patch_is_doubled_whatever_was_learned():
    """line 1: bit for bit, and without a gradient"""
    net, x = attention(), torch.randn(1, 4, 4, 8)
    out = net(x, 1)
    assert torch.equal(out, 2 * x.flatten(1, 2))
    out.sum().backward()
    assert all(not p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("side", [1, 2, 4])
def test_a_query_of_zero_gives_twice_the_average(side):
    """line 1, and the start of training"""
    x = torch.randn(2, 4, 8, 8)
    want = 2 * torch.nn.functional.avg_pool2d(x.permute(0, 3, 1, 2), side).flatten(2).mT
    torch.testing.assert_close(RegionAttention(8, 4)(x, side), want)


def test_a_constant_has_the_same_scale_at_every_ratio():
    """line 3"""
    net, c = attention(), torch.randn(8)
    for side in (1, 2, 4):
        torch.testing.assert_close(net(c.expand(1, 4, 4, 8), side), (2 * c).expand(1, 16 // side**2, 8))


def test_ratios_are_exact():
    """line 6"""
    assert [regions(torch.zeros(1, 8, 12, 1), side).shape[1] for side in (1, 2, 4)] == [96, 24, 6]


def test_it_begins_as_the_projector_of_averages(vlm):
    net, x = Dynamic(vlm, 16), torch.randn(1, 4, 4, 192)
    want = vlm.model.multi_modal_projector(regions(x, 2).mean(2))
    torch.testing.assert_close(net(x, 2), want, rtol=1e-4, atol=1e-4)
