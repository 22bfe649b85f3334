"""Optimal brain surgery, column by column: what one column of a matrix loses, later columns make up for.

W [out, in] is changed column by column so that W X changes least for inputs X [in, n] with the Gram matrix H = X X^T: after
column j became q, ``W[:, j:] -= (W[:, j] - q) / U[j, j] * U[j, j:]``, where U is the upper Cholesky factor of H^-1
(arXiv 2210.17323, 2301.00774).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 128


def inverse_factor(gram: Tensor, damping: float = 0.01) -> Tensor:
    """U [in, in], upper triangular with ``U^T U = (H + damping * mean(diag H) * I)^-1``; inputs that are always zero count
    as independent of all others.

    Args:
        gram: H [in, in], of any scale.
    """
    gram = gram.clone()
    diagonal = gram.diagonal()
    diagonal[diagonal == 0] = 1
    diagonal += damping * diagonal.mean()
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True)


def compensate(weight: Tensor, factor: Tensor, column: Callable[[Tensor, int], Tensor], block: int = BLOCK) -> Tensor:
    """The matrix [out, in] whose columns are what `column` returns.

    Columns after the running block of `block` are made up for when it ends, all at once, which is the same in another order.

    Args:
        weight: W [out, in]; factor: U [in, in] of `inverse_factor`.
        column: gets the matrix as it now stands, whose columns up to the end of j's block are up to date, and j; returns
            what becomes of column j, [out].
    """
    now, done = weight.clone(), torch.empty_like(weight)
    for start in range(0, weight.shape[1], block):
        stop = min(start + block, weight.shape[1])
        errors = torch.empty_like(weight[:, start:stop])
        for j in range(start, stop):
            done[:, j] = column(now, j)
            errors[:, j - start] = (now[:, j] - done[:, j]) / factor[j, j]
            now[:, j:stop] -= errors[:, j - start, None] * factor[j, j:stop]
        now[:, stop:] -= errors @ factor[start:stop, stop:]
    return done
