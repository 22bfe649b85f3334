"""Assignments and means against loops."""

import pytest
import torch

from laconic.ops.similarity import cosine, first_best, folded, means, nearest, sums


@pytest.fixture
def case():
    torch.manual_seed(0)
    return torch.randn(2, 9, 5), torch.randn(2, 4, 5), torch.rand(2, 9), torch.rand(2, 4)


def test_nearest_equals_a_loop_over_cosines(case):
    x, centers, *_ = case
    for b in range(2):
        for i in range(9):
            by_hand = [float(x[b, i] @ c / (x[b, i].norm() * c.norm())) for c in centers[b]]
            assert cosine(x, centers)[b, i].tolist() == pytest.approx(by_hand, abs=1e-6)
            assert int(nearest(x, centers)[b, i]) == max(range(4), key=by_hand.__getitem__)


def test_ties_between_centers_go_to_the_earlier_whatever_the_rounding(case):
    x, centers, *_ = case
    twice = torch.cat([centers, centers * 3.0, centers * 0.01], 1)
    assert torch.equal(nearest(x, twice), nearest(x, centers))
    assert first_best(torch.tensor([[0.5, 1.0 - 1e-8, 1.0], [1.0, 0.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize("weighted", [False, True])
def test_means_and_folded_centers_equal_loops(case, weighted):
    x, centers, weight, own = case
    to = torch.tensor([[0, 0, 3, 1, 3, 3, 0, 1, 0], [2] * 9])
    given = (weight, own) if weighted else (None, None)
    mean, mass = means(x, to, 4, given[0])
    mixed, total = folded(centers, x, to, *given)
    if not weighted:
        weight, own = torch.ones(2, 9), torch.ones(2, 4)
    for b in range(2):
        for j in range(4):
            members = [i for i in range(9) if to[b, i] == j]
            summed = sum((weight[b, i] * x[b, i] for i in members), torch.zeros(5))
            amount = float(sum(weight[b, i] for i in members))
            assert float(mass[b, j]) == pytest.approx(amount)
            assert float(total[b, j]) == pytest.approx(amount + float(own[b, j]))
            torch.testing.assert_close(mean[b, j], summed / amount if members else torch.zeros(5))
            torch.testing.assert_close(mixed[b, j], (own[b, j] * centers[b, j] + summed) / (amount + own[b, j]))


def test_half_precision_is_summed_in_fp32():
    x, to = torch.full((4096, 1), 1.0, dtype=torch.bfloat16), torch.zeros(4096, dtype=torch.long)
    assert sums(x, to, 1).item() == 4096.0
    assert means(x, to, 2)[0].tolist() == [[1.0], [0.0]]


def test_a_center_without_any_weight_stays():
    center = torch.tensor([[1.0, 2.0]])
    mixed, total = folded(center, torch.ones(1, 2), torch.tensor([0]), torch.zeros(1), torch.zeros(1))
    assert mixed.tolist() == [[1.0, 2.0]] and total.tolist() == [0.0]
