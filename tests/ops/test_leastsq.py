"""Least squares from normal equations, against scipy and closed forms."""

import math

import pytest
import torch
from scipy.optimize import lsq_linear, nnls

from laconic.ops.leastsq import boxed, largest_eigenvalue, ridge


def system(t=12, n=60, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(*batch, n, t, generator=generator, dtype=torch.float64)
    y = torch.rand(*batch, n, 3, generator=generator, dtype=torch.float64)
    return x, y, x.mT @ x, x.mT @ y


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_ridge_is_least_squares_where_the_data_are_enough(batch):
    x, y, gram, target = system(batch=batch)
    torch.testing.assert_close(ridge(gram, target, share=1e-13), torch.linalg.lstsq(x, y).solution)


def test_ridge_is_the_closed_form():
    x, y, gram, target = system()
    start = torch.randn(12, 3, dtype=torch.float64)
    weight = 0.3 * gram.diagonal().mean()
    augmented = torch.cat([x, weight.sqrt() * torch.eye(12, dtype=torch.float64)])
    want = torch.linalg.lstsq(augmented, torch.cat([y, weight.sqrt() * start])).solution
    torch.testing.assert_close(ridge(gram, target, start, share=0.3), want)


@pytest.mark.parametrize("n", [5, 60])
def test_it_is_never_worse_than_where_it_starts(n):
    x, y, gram, target = system(n=n)
    start = torch.linalg.lstsq(x, y).solution + 1e-3
    found = ridge(gram, target, start)
    assert (x @ found - y).norm() <= (x @ start - y).norm()


def test_what_nothing_is_known_about_stays():
    start = torch.randn(4, 2)
    torch.testing.assert_close(ridge(torch.zeros(4, 4), torch.zeros(4, 2), start), start.double())
    x = torch.rand(30, 4, dtype=torch.float64)
    x[:, 2] = 0
    found = ridge(x.T @ x, x.T @ torch.rand(30, 2, dtype=torch.float64), start)
    torch.testing.assert_close(found[2], start.double()[2])


def residual(x, w, y):
    return float((x @ w - y).norm())


@pytest.mark.parametrize("seed", range(5))
def test_boxed_reaches_scipy(seed):
    x, y, gram, target = system(seed=seed)
    y, target = y[:, 0], target[:, 0]
    best = nnls(x.numpy(), y.numpy())[1]
    assert residual(x, boxed(gram, target, 0.0, math.inf, 200), y) <= 1.01 * best
    both = lsq_linear(x.numpy(), y.numpy(), (0.02, 0.2)).x
    found = boxed(gram, target, 0.02, 0.2, 2000)
    assert residual(x, found, y) <= 1.001 * residual(x, torch.from_numpy(both), y)
    assert found.min() >= 0.02 and found.max() <= 0.2


@pytest.mark.parametrize("seed", range(5))
def test_no_step_makes_it_worse(seed):
    x, y, gram, target = system(seed=seed)
    errors = [residual(x, boxed(gram, target[:, 0], 0.02, 0.2, steps), y[:, 0]) for steps in (0, 1, 2, 5, 50)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < errors[0]


def test_boxed_in_a_batch_is_each_alone():
    _, _, gram, target = system(batch=(2, 3))
    found = boxed(gram, target[..., 0], 0.02, 0.2, 3)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(found[i, j], boxed(gram[i, j], target[i, j, :, 0], 0.02, 0.2, 3))


@pytest.mark.parametrize("sign", [False, True])
def test_the_bound_holds_and_is_tight(sign):
    for seed in range(5):
        x = torch.randn(40, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        gram = x.T @ x if sign else x.abs().T @ x.abs()
        largest = torch.linalg.eigvalsh(gram)[-1]
        assert largest <= largest_eigenvalue(gram) <= (4 if sign else 1.0001) * largest
    assert largest_eigenvalue(torch.zeros(3, 3, dtype=torch.float64)) == 0
