"""Neighbours that are merged in pairs: which, how many, and into what."""

import itertools

import pytest
import torch

from laconic.ops.adjacent import best_pairs, groups, left_to_right, neighbours


def slow_left_to_right(candidates):
    taken, last = [], -2
    for i, wanted in enumerate(candidates):
        good = wanted and i > last + 1
        taken.append(good)
        last = i if good else last
    return taken


def test_left_to_right_is_the_greedy_loop():
    for candidates in itertools.product([False, True], repeat=9):
        assert left_to_right(torch.tensor(candidates)).tolist() == slow_left_to_right(candidates)


def test_neighbours_are_cosines():
    x = torch.randn(6, 4)
    slow = [torch.nn.functional.cosine_similarity(x[i], x[i + 1], dim=0) for i in range(5)]
    assert torch.allclose(neighbours(x), torch.stack(slow), atol=1e-6)


@pytest.mark.parametrize("tokens", [2, 3, 9, 10])
def test_exactly_so_many_of_the_fewest_best_candidates(tokens):
    generator = torch.Generator().manual_seed(tokens)
    for _ in range(20):
        similarity = torch.rand(tokens - 1, generator=generator)
        order = similarity.argsort(descending=True)
        for count in range(tokens // 2 + 1):
            taken = best_pairs(similarity, count)
            assert int(taken.sum()) == count
            for m in range(tokens):  # the first number of candidates that is enough
                mask = torch.zeros(tokens - 1, dtype=torch.bool)
                mask[order[:m]] = True
                slow = slow_left_to_right(mask.tolist())
                if sum(slow) == count:
                    break
            assert taken.tolist() == slow


def test_too_many_pairs():
    with pytest.raises(ValueError, match="count=3: 5 tokens have 0 to 2 pairs"):
        best_pairs(torch.rand(4), 3)


def test_groups_of_neighbours():
    assert groups(torch.tensor([False, True, False, False, True])).tolist() == [0, 1, 1, 2, 3, 3]
    assert groups(torch.tensor([], dtype=torch.bool)).tolist() == [0]
