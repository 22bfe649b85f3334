"""CoLaR's parts against loops over tokens."""

import math

import pytest
import torch

from laconic.methods.reasoning.colar.network import LatentHead, block_labels, drawn, log_density, merged


def by_loop(embeddings, real, size):
    """Every block by itself: sum of its real embeddings over the root of their number."""
    rows = []
    for x, kept in zip(embeddings, real, strict=True):
        blocks = []
        for start in range(0, len(x), size):
            inside = [x[i] for i in range(start, min(start + size, len(x))) if kept[i]]
            blocks.append(sum(inside) / math.sqrt(len(inside)) if inside else torch.zeros_like(x[0]))
        rows.append(torch.stack(blocks))
    return torch.stack(rows)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_block_is_its_sum_over_the_root_of_its_own_number(size):
    x, real = torch.randn(3, 11, 4), torch.ones(3, 11, dtype=torch.long)
    real[1, 7:], real[2, 2:] = 0, 0
    vectors, count = merged(x, real, size)
    torch.testing.assert_close(vectors, by_loop(x, real, size))
    assert count.sum(1).tolist() == [11, 7, 2]  # no token is dropped or counted twice


@pytest.mark.parametrize("size", [2, 4])
def test_1_compression_keeps_the_deviation_which_a_mean_would_shrink(size):
    torch.manual_seed(0)
    x = 0.07 * torch.randn(64, 400, 16)
    vectors, _ = merged(x, torch.ones(64, 400, dtype=torch.long), size)
    assert abs(float(vectors.std() / x.std()) - 1) < 0.02
    assert abs(float((vectors / size**0.5).std() * size**0.5 / x.std()) - 1) < 0.02


def test_blocks_of_one_are_the_embeddings():
    x, real = torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.long)
    assert torch.equal(merged(x, real, 1)[0], x)


def test_labels_are_real_tokens_of_their_own_block_and_each_has_its_chance():
    ids, real = torch.arange(1, 8).expand(2000, -1), torch.ones(2000, 7, dtype=torch.long)
    real[:, 5:] = 0
    labels = block_labels(ids, real, 3, torch.Generator().manual_seed(0))
    assert set(labels[:, 0].tolist()) == {1, 2, 3} and set(labels[:, 1].tolist()) == {4, 5}
    share = (labels[:, 0] == 2).float().mean()
    assert 0.28 < share < 0.39
    assert torch.equal(block_labels(ids, real, 1), ids)


def test_8_a_deterministic_head_repeats_itself_and_a_stochastic_one_does_not():
    torch.manual_seed(0)
    mean, log_std = LatentHead(6, 8)(torch.randn(3, 6))
    assert torch.equal(drawn(mean, log_std, 0), mean)
    assert not torch.equal(drawn(mean, log_std), drawn(mean, log_std))
    many = torch.stack([drawn(mean, log_std, 2.0) for _ in range(4000)])
    torch.testing.assert_close(many.std(0), 2 * log_std.exp(), rtol=0.1, atol=0)


def test_density_is_that_of_the_normal_averaged_over_dimensions():
    x, mean, log_std = torch.randn(2, 5), torch.randn(2, 5), torch.randn(2, 5) / 3
    var = (2 * log_std).exp()
    wanted = -((x - mean) ** 2 / (2 * var) + log_std + 0.5 * math.log(2 * math.pi)).sum(-1) / 5
    torch.testing.assert_close(log_density(x, mean, log_std), wanted)
