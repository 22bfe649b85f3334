"""The step from the definition: the inverse of what is left of the Gram matrix, computed anew for every column."""

import pytest
import torch

from laconic.ops.obs import compensate, inverse_factor


def correlated(n=24, rows=80, seed=0):
    """Gram matrix [n, n] of correlated inputs, float64."""
    drawn = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, n, generator=drawn, dtype=torch.float64) @ torch.randn(n, n, generator=drawn, dtype=torch.float64)
    return x.T @ x


def slow(weight, gram, column):
    """``w_F -= (w_j - q) / [H_F^-1]_jj * [H_F^-1]_j`` over the columns F that are left."""
    now = weight.clone()
    for j in range(weight.shape[1]):
        inverse = torch.linalg.inv(gram[j:, j:])
        q = column(now, j)
        error = (now[:, j] - q) / inverse[0, 0]
        now[:, j:] -= error[:, None] * inverse[0]
        now[:, j] = q
    return now


@pytest.mark.parametrize("block", [1, 7, 24, 100])
def test_columns_are_made_up_for_as_defined(block):
    torch.manual_seed(1)
    weight, gram = torch.randn(5, 24, dtype=torch.float64), correlated()

    def column(now, j):
        return now[:, j].round()

    damped = gram + 0.01 * gram.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    got = compensate(weight, inverse_factor(gram), column, block)
    torch.testing.assert_close(got, slow(weight, damped, column))


def test_nothing_changes_where_columns_stay():
    weight = torch.randn(3, 24, dtype=torch.float64)
    assert torch.equal(compensate(weight, inverse_factor(correlated()), lambda now, j: now[:, j]), weight)


def test_independent_inputs_make_up_for_nothing():
    weight = torch.randn(3, 6, dtype=torch.float64)
    gram = torch.diag(torch.arange(6, dtype=torch.float64))  # the first input is always zero
    assert torch.equal(compensate(weight, inverse_factor(gram), lambda now, j: now[:, j].round()), weight.round())


def test_the_factor_is_that_of_the_inverse():
    gram = correlated(6)
    factor = inverse_factor(gram, 0.5)
    assert torch.equal(factor, factor.triu())
    damped = gram + 0.5 * gram.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(factor.T @ factor, torch.linalg.inv(damped))
