"""The optimal-transport plan, beside a loop and at its limits."""

import math

import pytest
import torch

from laconic.methods.memory.comprexit.transport import sinkhorn


def drawn(seed=0, n=12, m=4):
    drawn = torch.Generator().manual_seed(seed)
    rows = torch.rand(2, n, generator=drawn) + 0.5
    tokens, slots = torch.randn(2, n, 64, generator=drawn), torch.randn(2, m, 64, generator=drawn)
    cost = 1 - torch.nn.functional.cosine_similarity(tokens[:, :, None], slots[:, None], dim=-1)
    return cost, rows / rows.sum(1, keepdim=True), torch.full((2, m), 1 / m)


def test_1_marginals():
    cost, rows, columns = drawn()
    plan = sinkhorn(cost, rows, columns)
    torch.testing.assert_close(plan.sum(1), columns, atol=1e-6, rtol=0)
    torch.testing.assert_close(plan.sum(2), rows, atol=0, rtol=1e-4)
    assert bool((plan > 0).all())


def test_2_a_loop_gives_the_same_plan():
    cost, rows, columns = drawn(1)
    plan = sinkhorn(cost, rows, columns)
    for b in range(2):
        kernel = [[math.exp(-float(c) / 0.1) for c in row] for row in cost[b].double()]
        left, right = [1.0] * 12, [1.0] * 4
        for _ in range(30):
            left = [float(rows[b, i]) / sum(k * r for k, r in zip(kernel[i], right, strict=True)) for i in range(12)]
            right = [float(columns[b, j]) / sum(kernel[i][j] * left[i] for i in range(12)) for j in range(4)]
        want = torch.tensor([[left[i] * kernel[i][j] * right[j] for j in range(4)] for i in range(12)])
        torch.testing.assert_close(plan[b], want, atol=1e-6, rtol=1e-4)


def test_3_without_differences_in_cost_masses_decide():
    _, rows, columns = drawn()
    plan = sinkhorn(torch.ones(2, 12, 4), rows, columns)
    torch.testing.assert_close(plan, rows[..., None] * columns[:, None])


def test_3_without_entropy_it_is_an_assignment():
    order = torch.tensor([2, 0, 3, 1])
    cost = 1 - torch.eye(4)[order][None]
    uniform = torch.full((1, 4), 0.25)
    torch.testing.assert_close(sinkhorn(cost, uniform, uniform, entropy=0.01), (1 - cost) / 4, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_gradients_are_finite(scale):
    cost, rows, columns = drawn()
    cost = (scale * cost).requires_grad_(True)
    sinkhorn(cost, rows, columns).square().sum().backward()
    assert bool(cost.grad.isfinite().all())
