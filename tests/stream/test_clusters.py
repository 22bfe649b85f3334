"""One token for every cluster of patches."""

import torch

from laconic.stream.clusters import first_of_each


def slow(clusters, must):
    """(tokens that stay, where each token goes), by loops."""
    to = [-1] * len(clusters)
    for cluster in set(clusters) - {-1}:
        members = [i for i, one in enumerate(clusters) if one == cluster]
        stays = next((i for i in members if must[i]), members[0])
        for i in members:
            to[i] = stays
    return sorted(set(to) - {-1}), to


def test_the_first_or_the_first_protected_member_stands_for_its_cluster():
    torch.manual_seed(0)
    for _ in range(20):
        clusters = torch.randint(-1, 4, (12,))
        clusters[3] = 2
        must = torch.rand(12) > 0.8
        kept, to = slow(clusters.tolist(), must.tolist())
        found = first_of_each(clusters, must)
        assert found.kept.tolist() == kept and found.to.tolist() == to
        assert found.values is None and found.scores is None
