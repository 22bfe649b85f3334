"""SparseGPT against its definition: masks, errors, and the least squares that it approximates."""

import pytest
import torch

import laconic
from laconic.ops.obs import inverse_factor


def correlated(n, rows=400, seed=0):
    """Inputs [n, rows] that share a few directions."""
    drawn = torch.Generator().manual_seed(seed)
    common = torch.randn(n, n // 4, generator=drawn, dtype=torch.float64)
    shared = common @ torch.randn(n // 4, rows, generator=drawn, dtype=torch.float64)
    return shared + 0.5 * torch.randn(n, rows, generator=drawn, dtype=torch.float64)


def drawn(out, n, seed=1):
    return torch.randn(out, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow(weight, gram, sparsity, block=128):
    """Column by column with the inverse of what is left, scores taken where a block begins."""
    n = weight.shape[1]
    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(n, dtype=gram.dtype)
    factor, now = inverse_factor(gram), weight.clone()
    for j in range(n):
        if j % block == 0:
            scores = (now[:, j : j + block] / factor.diagonal()[j : j + block]) ** 2
            gone = torch.zeros(scores.numel(), dtype=torch.bool)
            gone[scores.flatten().argsort()[: round(sparsity * scores.numel())]] = True
            gone = gone.view_as(scores)
        inverse = torch.linalg.inv(damped[j:, j:])
        error = torch.where(gone[:, j % block], now[:, j], 0.0) / inverse[0, 0]
        now[:, j:] -= error[:, None] * inverse[0]
        now[gone[:, j % block], j] = 0
    return now


@pytest.mark.parametrize("n", [32, 160])
def test_it_is_the_definition(n):
    weight, x = drawn(6, n), correlated(n)
    got = laconic.SparseGPT(keep=0.6).pruned(weight, x @ x.T)
    torch.testing.assert_close(got, slow(weight, x @ x.T, 0.4))


def test_nothing_is_pruned_at_sparsity_zero():
    weight, x = drawn(6, 32), correlated(32)
    assert torch.equal(laconic.SparseGPT(keep=1.0).pruned(weight, x @ x.T), weight)


def test_exactly_half_of_each_block_and_two_of_every_four():
    weight, x = drawn(6, 160), correlated(160)
    half = laconic.SparseGPT().pruned(weight, x @ x.T)
    assert (half[:, :128] == 0).sum() == 6 * 64 and (half[:, 128:] == 0).sum() == 6 * 16
    pattern = laconic.SparseGPT(pattern="2:4").pruned(weight, x @ x.T)
    assert ((pattern.unflatten(1, (-1, 4)) == 0).sum(-1) == 2).all()


def test_outputs_change_less_than_with_magnitudes_alone():
    weight, x = drawn(16, 64), correlated(64)
    pruned = laconic.SparseGPT().pruned(weight, x @ x.T)
    small = weight.abs().flatten().argsort()[: weight.numel() // 2]
    by_size = weight.flatten().index_fill(0, small, 0).view_as(weight)
    assert ((pruned - weight) @ x).norm() < 0.8 * ((by_size - weight) @ x).norm()


def test_independent_inputs_of_one_size_give_the_masks_of_magnitudes():
    weight = drawn(16, 64)
    pruned = laconic.SparseGPT().pruned(weight, 7 * torch.eye(64, dtype=torch.float64))
    gone = weight.abs().flatten().argsort()[: weight.numel() // 2]
    assert torch.equal(pruned, weight.flatten().index_fill(0, gone, 0).view_as(weight))


def test_it_is_least_squares_over_the_columns_that_are_left():
    """For the same mask: when a column is fixed, all later ones are solved for anew."""
    weight, x = drawn(5, 24), correlated(24)
    gram = x @ x.T
    gram = gram + 0.01 * gram.diagonal().mean() * torch.eye(24, dtype=gram.dtype)
    pruned = laconic.SparseGPT().pruned(weight, x @ x.T)
    now = weight.clone()
    for j in range(24):
        now[pruned[:, j] == 0, j] = 0
        missing = (weight - now)[:, : j + 1] @ gram[: j + 1, j + 1 :]  # what later columns are to make up for
        now[:, j + 1 :] = weight[:, j + 1 :] + torch.linalg.solve(gram[j + 1 :, j + 1 :], missing.T).T
    torch.testing.assert_close(pruned, now)


def test_solving_for_all_weights_that_stay_is_better_still():
    """Earlier columns are never changed again, which is what the method saves and what it loses."""
    weight, x = drawn(16, 64), correlated(64)
    gram = x @ x.T
    pruned = laconic.SparseGPT(damping=1e-6).pruned(weight, gram)
    best = torch.zeros_like(weight)
    for row in range(16):
        stay = pruned[row] != 0
        best[row, stay] = torch.linalg.solve(gram[stay][:, stay], (gram @ weight[row])[stay])
    exact, found, masked = (((w - weight) @ x).norm() for w in (best, pruned, weight * (pruned != 0)))
    assert exact < found < masked


def test_inputs_that_are_always_zero_have_no_weights():
    weight, x = drawn(4, 32), correlated(32)
    x[5] = 0
    assert (laconic.SparseGPT(keep=0.9).pruned(weight, x @ x.T)[:, 5] == 0).all()
