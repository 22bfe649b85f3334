"""Lengths by quality, and lengths that share one budget, against all possibilities."""

import itertools

import torch

from laconic.codec.lengths import shared, shortest


def test_the_shortest_that_is_good_enough():
    curve = [0.0, 1, 4, 4, 6, 9, 9, 12]
    for target in (-1, 0, 0.5, 4, 5, 9, 12):
        slow = next(k for k, q in enumerate(curve, 1) if q >= target)
        assert shortest(lambda k: curve[k - 1], target, len(curve)) == slow
    assert shortest(lambda k: curve[k - 1], 13, len(curve)) == 8


def test_it_asks_for_few_lengths():
    asked = []
    shortest(lambda k: asked.append(k) or float(k), 37, 64)
    assert len(asked) == 6


def slow_shared(quality, mean):
    """The best sum of all lengths that fit."""
    m, n = quality.shape
    fits = (c for c in itertools.product(range(1, n + 1), repeat=m) if sum(c) <= mean * m)
    return max(sum(float(quality[i, k - 1]) for i, k in enumerate(c)) for c in fits)


def total(quality, lengths):
    return float(quality.gather(1, lengths[:, None] - 1).sum())


def test_concave_curves_get_the_best_lengths_there_are():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        quality = torch.rand(3, 5, generator=generator).sort(1, descending=True).values.cumsum(1)
        for mean in (1, 2, 3.4, 5):
            lengths = shared(quality, mean)
            assert int(lengths.sum()) <= mean * 3
            assert abs(total(quality, lengths) - slow_shared(quality, mean)) < 1e-5


def test_any_curves_get_no_worse_than_equal_lengths_on_their_hull():
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        quality = torch.rand(6, 8, generator=generator).cumsum(1)
        lengths = shared(quality, 4)
        assert int(lengths.sum()) <= 24 and total(quality, lengths) > total(quality, torch.ones(6, dtype=torch.long))


def test_a_curve_that_falls_gets_one_token():
    quality = torch.tensor([[5.0, 4, 3], [1, 2, 3]])
    assert shared(quality, 2).tolist() == [1, 3]
