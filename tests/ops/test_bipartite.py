"""Bipartite matching and merging against loops."""

import pytest
import torch
from helpers.matching import matched

from laconic.ops.bipartite import Merging, bipartite


@pytest.mark.parametrize("cls", [False, True])
@pytest.mark.parametrize("t", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("r", [0, 1, 3, 99])
def test_merging_equals_the_loop_and_sizes_sum_to_t(cls, t, r):
    """Must show 6, first part, and 2."""
    torch.manual_seed(t)
    metric, x = torch.randn(2, t, 4), torch.randn(2, t, 3)
    size = torch.randint(1, 5, (2, t)).float()
    merging = bipartite(metric, r, cls)
    for v in range(2):
        clusters = matched(metric[v], r, cls)
        assert merging.count == len(clusters)
        assert [sorted((merging.to[v] == k).nonzero()[:, 0].tolist()) for k in range(merging.count)] == [
            sorted(cluster) for cluster in clusters
        ]
        mean = torch.stack([sum(size[v, i] * x[v, i] for i in c) / sum(size[v, i] for i in c) for c in clusters])
        torch.testing.assert_close(merging.merge(x, size)[v], mean)
        assert merging.sizes(size)[v].tolist() == [float(sum(size[v, i] for i in c)) for c in clusters]
    assert torch.equal(merging.sizes(torch.ones(2, t)).sum(-1), torch.full((2,), float(t)))


def test_nothing_merged_is_the_identity():
    """Must show 6, r=0: merging and unmerging restores the tokens."""
    x, size = torch.randn(2, 7, 3), torch.ones(2, 7)
    merging = bipartite(torch.randn(2, 7, 4), 0, True)
    assert merging.count == 7 and torch.equal(merging.unmerge(merging.merge(x, size)), x)
    none = Merging.none(2, 7, x.device)
    assert torch.equal(none.merge(x, size), x) and torch.equal(none.unmerge(x), x)


def test_members_get_what_their_token_has_and_cls_can_be_left_out():
    x, size = torch.randn(1, 6, 3), torch.ones(1, 6)
    x[0, 4] = x[0, 3]
    merging = bipartite(x, 1, True)
    back = merging.unmerge(merging.merge(x, size))
    torch.testing.assert_close(back, x)
    patches = merging.without_first(1)
    assert patches.count == merging.count - 1 and torch.equal(patches.to, merging.to[:, 1:] - 1)
    torch.testing.assert_close(patches.unmerge(patches.merge(x[:, 1:], size[:, 1:])), x[:, 1:])


def test_equal_similarities_go_to_the_earlier_token():
    x = torch.ones(1, 8, 2)
    merging = bipartite(x, 2, True)  # A is 0 2 4 6, B is 1 3 5 7; 0 is CLS
    assert merging.to[0].tolist() == [0, 2, 2, 3, 2, 4, 1, 5]


def test_dropped_tokens_count_nowhere():
    x, size = torch.arange(10.0).view(1, 5, 2), torch.tensor([[1.0, 2, 3, 4, 5]])
    merging = Merging(torch.tensor([[0, -1, 1, 1, -1]]), 2)
    torch.testing.assert_close(merging.merge(x, size), torch.stack([x[0, 0], (3 * x[0, 2] + 4 * x[0, 3]) / 7])[None])
    assert merging.sizes(size).tolist() == [[1.0, 7.0]]
    assert merging.then(torch.tensor([[0, 1, 2, 3, 4, -1, 3]])).tolist() == [[0, -1, 1, 1, -1, -1, 1]]
    patches = merging.without_first(1)
    assert patches.to.tolist() == [[-1, 0, 0, -1]] and patches.count == 1
    assert patches.merge(x[:, 1:], size[:, 1:]).shape == (1, 1, 2)


def test_weights_and_passed_sizes_take_the_place_of_sizes():
    x, size = torch.arange(6.0).view(1, 3, 2), torch.tensor([[1.0, 9, 2]])
    merging = Merging(torch.tensor([[0, 1, 1]]), 2, weight=torch.ones(1, 3), passed=torch.tensor([[0.5, 1.0, 0.25]]))
    torch.testing.assert_close(merging.merge(x, size)[0, 1], (x[0, 1] + x[0, 2]) / 2)
    assert merging.sizes(size).tolist() == [[1.0, 9.5]], "a size is at least 1"
    rest = merging.without_first(1)
    assert rest.weight.tolist() == [[1.0, 1.0]] and rest.passed.tolist() == [[1.0, 0.25]]
