"""The best few directions of a matrix by power iteration (arXiv 2403.05527, algorithm 2)."""

from __future__ import annotations

import torch


def power_iteration(x: torch.Tensor, rank: int, *, loops: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """x [..., n, d] -> P [..., d, rank], Q [..., n, rank], float32, with ``Q P^T`` close to the best approximation of x.

    Every matrix starts from the same random P, drawn from `seed`: results are reproducible, and no matrix depends on the
        others in the batch.

    Args:
        loops: rounds of ``Q <- x P; P <- x^T Q``; in the last one P, then Q, are made orthonormal before they are used.

    Raises:
        ValueError: more directions than the smaller side of the matrix, or fewer than one round.
    """
    n, d = x.shape[-2:]
    if not 0 <= rank <= min(n, d):
        raise ValueError(f"rank={rank}: a matrix of {n} x {d} has at most {min(n, d)} directions; choose 0 to {min(n, d)}.")
    if loops < 1:
        raise ValueError(f"loops={loops}: at least one round is needed.")
    x = x.float()
    start = torch.rand(d, rank, generator=torch.Generator().manual_seed(seed)).to(x.device)
    p = start.expand(*x.shape[:-2], d, rank)
    for i in range(loops):
        last = i == loops - 1
        q = x @ (_orthonormal(p) if last else p)
        q = _orthonormal(q) if last else q
        p = x.transpose(-1, -2) @ q
    return p, q


def _orthonormal(x: torch.Tensor) -> torch.Tensor:
    return torch.linalg.qr(x).Q
