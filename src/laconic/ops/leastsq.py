"""Least squares from normal equations: with a pull towards a known solution, and inside a box."""

from __future__ import annotations

import torch

_ROUNDS = 12
"""Power iterations for the largest eigenvalue. Any number gives a valid bound; these bring it within a few per cent."""


def ridge(
    gram: torch.Tensor, target: torch.Tensor, towards: torch.Tensor | None = None, share: float = 1e-6
) -> torch.Tensor:
    """``argmin_C ||X C - Y||^2 + weight ||C - C_0||^2`` with ``weight = share * mean(diag(gram))``, fp64 [..., t, d].

    The residual of X C is at most that of X C_0: where the data say nothing, C stays at C_0.

    Args:
        gram: ``X^T X``, [..., t, t]. `target`: ``X^T Y``, [..., t, d].
        towards: C_0 [..., t, d]; None is zero.
    """
    gram, target = gram.double(), target.double()
    weight = share * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    weight = weight.clamp(min=torch.finfo(torch.float64).tiny)  # a Gram matrix of zeros has a solution, too: C_0
    start = torch.zeros_like(target) if towards is None else towards.double()
    eye = torch.eye(gram.shape[-1], dtype=torch.float64, device=gram.device)
    factor = torch.linalg.cholesky(gram + weight * eye)
    return start + torch.cholesky_solve(target - gram @ start, factor)


def boxed(gram: torch.Tensor, target: torch.Tensor, low: float, high: float, steps: int) -> torch.Tensor:
    """``argmin_w ||X w - y||^2`` with ``low <= w <= high``, fp64 [..., t]: the unconstrained solution, clamped, then `steps`
    steps of projected gradient, none of which makes it worse.

    Args:
        gram: ``X^T X``, [..., t, t]. `target`: ``X^T y``, [..., t].
    """
    gram, target = gram.double(), target.double()
    w = ridge(gram, target[..., None])[..., 0].clamp(low, high)
    if steps:
        size = largest_eigenvalue(gram)[..., None].clamp(min=torch.finfo(torch.float64).tiny)
    for _ in range(steps):
        slope = (gram @ w[..., None])[..., 0] - target
        w = (w - slope / size).clamp(low, high)
    return w


def largest_eigenvalue(gram: torch.Tensor) -> torch.Tensor:
    """An upper bound of the largest eigenvalue of a symmetric matrix, [..., t, t] -> [...].

    ``max_i (|G| x)_i / x_i`` bounds it for every positive x (Collatz and Wielandt), and power iteration makes it tight: a
    step of its inverse can never overshoot, which an estimate from below could.
    """
    size = gram.abs()
    x = torch.ones(gram.shape[:-1], dtype=gram.dtype, device=gram.device)
    bound = size.sum(-1).amax(-1)
    for _ in range(_ROUNDS):
        y = (size @ x[..., None])[..., 0]
        bound = torch.minimum(bound, (y / x).amax(-1))
        x = (y / y.amax(-1, keepdim=True).clamp(min=1e-300)).clamp(min=1e-12)
    return bound
