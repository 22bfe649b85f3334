"""Density peaks."""

import pytest
import torch
from helpers.slow_peaks import slow_peaks

from laconic.ops.density import density_peaks, peak_scores


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize(("n", "groups", "k"), [(30, 4, 5), (12, 2, 3), (3, 1, 5), (1, 1, 5)])
def test_density_peaks(n, groups, k, ranked):
    torch.manual_seed(n)
    x = torch.randn(n, 7)
    centres, group = density_peaks(x, groups, k, ranked)
    assert (centres.tolist(), group.tolist()) == slow_peaks(x, groups, k, ranked)


def test_equal_points_have_one_densest():
    centres, group = density_peaks(torch.ones(8, 3), 2, 5)
    assert centres.tolist() == [0, 1] and group.tolist() == [0, 1, *[0] * 6]


def test_a_point_counts_itself_among_its_neighbours():
    """Three points at 0, 1 and 3: with two neighbours a density is exp(-d^2 / 2) of the nearest other point."""
    scores, distance = peak_scores(torch.tensor([[0.0], [1.0], [3.0]]), 2)
    density = torch.tensor([0.5, 0.5, 2.0]).neg().exp()
    torch.testing.assert_close(scores, density * torch.tensor([3.0, 1.0, 2.0]))  # the first is the densest
    assert distance[0].tolist() == [0, 1, 3]


def test_more_groups_than_points_are_an_error():
    with pytest.raises(ValueError, match="4 groups of 3 points"):
        density_peaks(torch.ones(3, 2), 4, 2)
