"""Greedy maximisation of a determinant."""

import pytest
import torch

from laconic.ops.dpp import greedy_map


def slow(kernel, count):
    """The largest log determinant among all sets with one point more, again and again."""
    kernel, chosen = kernel.double(), []
    for _ in range(count):
        rest = [i for i in range(len(kernel)) if i not in chosen]

        def gain(i):
            at = torch.tensor([*chosen, i])
            return float(kernel[at][:, at].logdet())

        chosen.append(max(rest, key=lambda i: (round(gain(i), 9), -i)))
    return chosen


def kernel_of(n, width, seed):
    x = torch.nn.functional.normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=-1)
    r = torch.rand(n, generator=torch.Generator().manual_seed(seed + 1))
    return r[:, None] * (x @ x.mT) * r


@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force(seed):
    kernel = kernel_of(20, 32, seed)
    assert greedy_map(kernel, 12).tolist() == slow(kernel, 12)


def test_a_diagonal_kernel_gives_its_largest_entries():
    kernel = torch.diag(torch.tensor([0.2, 0.9, 0.5, 0.9, 0.1]))
    assert greedy_map(kernel, 4).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize("count", [8, 9, 16, 30])
def test_points_beyond_the_rank_are_different_and_the_largest_left(count):
    kernel = kernel_of(30, 8, 0)
    chosen = greedy_map(kernel, count).tolist()
    assert len(set(chosen)) == count and set(chosen[:8]) == set(slow(kernel, 8))
    rest = [i for i in range(30) if i not in chosen[:8]]
    assert chosen[8:] == sorted(rest, key=lambda i: -float(kernel[i, i]))[: count - 8]


def test_points_that_must_come_first_count_for_those_after_them():
    kernel, must = kernel_of(12, 16, 3), torch.zeros(12, dtype=torch.bool)
    must[[2, 7]] = True
    chosen = greedy_map(kernel, 5, must).tolist()
    expected = [2, 7]
    while len(expected) < 5:
        rest = [i for i in range(12) if i not in expected]
        expected.append(max(rest, key=lambda i: float(kernel[[*expected, i]][:, [*expected, i]].double().logdet())))
    assert chosen == expected


def test_zeros_and_nothing():
    assert greedy_map(torch.zeros(4, 4), 3).tolist() == [0, 1, 2]
    assert greedy_map(torch.zeros(0, 0), 0).tolist() == []
