"""Means over runs of neighbouring tokens, beside a loop."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from laconic.memory.pooling import group_means, run_starts


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_runs_are_near_equal_and_the_first_are_the_longer_ones(sizes):
    tokens, groups = sizes
    starts = run_starts(tokens, groups)
    lengths = [b - a for a, b in zip(starts, [*starts[1:], tokens], strict=True)]
    assert starts[0] == 0 and sum(lengths) == tokens and len(lengths) == groups
    assert lengths == sorted(lengths, reverse=True) and max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("groups", [1, 3, 4, 10])
def test_means_equal_a_loop(groups):
    states = torch.randn(2, 10, 5)
    starts = [*run_starts(10, groups), 10]
    want = torch.stack([states[:, a:b].mean(1) for a, b in pairwise(starts)], 1)
    torch.testing.assert_close(group_means(states, groups), want)


def test_more_groups_than_tokens_are_refused():
    with pytest.raises(ValueError, match="groups=5: 4 tokens make 1 to 4"):
        run_starts(4, 5)
