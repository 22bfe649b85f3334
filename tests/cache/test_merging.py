"""Assignment with a zero class and weighted merging, against loops with explicit if and else."""

import math

import pytest
import torch

from laconic.cache.merging import assign, gathered, merge_keys, merge_values
from laconic.ops.similarity import unit


def made(heads=3, t=11, m=4, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    moving, centers = torch.randn(heads, t, d, generator=generator), torch.randn(heads, m, d, generator=generator)
    weights = torch.rand(heads, m, generator=generator), torch.rand(heads, t, generator=generator)
    return moving, centers, *weights


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(y) ** 2 for y in b))


@pytest.mark.parametrize("tau", [-2.0, 0.0, 0.4, 2.0])
@pytest.mark.parametrize("closing", [False, True])
def test_assignment_and_merge_equal_a_loop_per_head(tau, closing):
    moving, centers, weight, moving_weight = made()
    heads, t = moving.shape[:2]
    m = centers.shape[1]
    closed = torch.zeros(heads, m, dtype=torch.bool)
    if closing:
        closed[0, 1] = closed[2, 0] = closed[2, 3] = True
        closed[1] = True  # a head whose centers accept no entries
    to = assign(moving, centers, tau, closed)
    keys = merge_keys(centers, moving, to, weight, moving_weight)
    values = merge_values(centers, moving, to, weight, moving_weight)
    for h in range(heads):
        members = [[("center", c)] for c in range(m)]
        for i in range(t):
            best, where = tau, m
            for c in range(m):
                if closed[h, c]:
                    continue
                x = cosine(moving[h, i], centers[h, c])
                if x > best:
                    best, where = x, c
            assert int(to[h, i]) == where
            if where == m:
                continue
            members[where].append(("moving", i))
        for c in range(m):
            rows = [(centers[h, c], weight[h, c]) if kind == "center" else (moving[h, j], moving_weight[h, j])
                    for kind, j in members[c]]  # fmt: skip
            total = sum(float(w) for _, w in rows)
            value = sum(float(w) * x for x, w in rows) / total
            direction = sum(float(w) * x / x.norm() for x, w in rows)
            length = sum(float(w) * float(x.norm()) for x, w in rows) / total
            torch.testing.assert_close(values[h, c], value, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(keys[h, c], direction / direction.norm() * length, atol=1e-5, rtol=1e-5)
            assert float(keys[h, c].norm()) == pytest.approx(length, rel=1e-5)
            assert float(unit(keys[h, c]).norm()) == pytest.approx(1, rel=1e-5)


def test_every_member_is_counted_once():
    moving, centers, *_ = made()
    to = assign(moving, centers, -2.0)
    counts = 1 + gathered(torch.ones(*to.shape, 1), to, 4)[..., 0]
    assert counts.sum(-1).tolist() == [4 + 11] * 3
    forgotten = torch.full_like(to, 4)
    assert gathered(torch.ones(*to.shape, 1), forgotten, 4).sum() == 0


@pytest.mark.parametrize("scale", [1e-6, 1.0, 50.0])
def test_copies_of_a_center_change_nothing(scale):
    _, centers, weight, _ = made()
    copies = centers[:, [0, 2, 2, 3, 1]]
    to = assign(copies, centers, 0.6)
    assert to.tolist() == [[0, 2, 2, 3, 1]] * 3
    moving_weight = scale * torch.rand(3, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(merge_keys(centers, copies, to, weight, moving_weight), centers, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(merge_values(centers, copies, to, weight, moving_weight), centers, atol=1e-5, rtol=1e-5)


def test_ties_between_centers_go_to_the_earlier_one():
    centers = torch.tensor([[[0.0, 1.0], [3.0, 3.0], [1.0, 1.0]]])
    moving = torch.tensor([[[1.0, 1.0 + 1e-7], [0.3, 0.3]]])
    assert assign(moving, centers, 0.5).tolist() == [[1, 1]]


def test_weights_of_nothing_leave_the_center():
    moving, centers, *_ = made()
    to = assign(moving, centers, -2.0)
    nothing = torch.zeros(3, 4), torch.zeros(3, 11)
    torch.testing.assert_close(merge_values(centers, moving, to, *nothing), centers)
    torch.testing.assert_close(merge_keys(centers, moving, to, *nothing), centers)


def test_half_precision_is_merged_in_single():
    moving, centers, weight, moving_weight = made(t=600)
    to = assign(moving, centers, -2.0)
    exact = merge_values(centers, moving, to, weight, moving_weight)
    half = merge_values(centers.bfloat16(), moving.bfloat16(), to, weight, moving_weight)
    assert half.dtype == torch.float32 and (half - exact).abs().max() < 2e-3
