"""Determinantal point processes: the subset of largest determinant, built greedily (arXiv 1709.05135, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor

EMPTY = 1e-6
"""A gain below this share of the largest diagonal entry is rounding: the point lies in the span of the chosen ones."""
SAME = 1e-6
"""Gains that differ by less than this share are equal."""


def greedy_map(kernel: Tensor, count: int, must: Tensor | None = None) -> Tensor:
    """`count` different points of a DPP with kernel L [n, n], in the order in which they are chosen, [count].

    Always the point that multiplies det(L_A) by most, which is d_i^2 = L_ii - |c_i|^2 with c the rows of the Cholesky factor
    so far; one matrix-vector product per point. Where no gain is left, because the rank of L is used up, the points of
    largest L_ii follow. Equal gains go to the earlier point.

    Args:
        kernel: symmetric and positive semidefinite. `must`: points that come first in any case, bool [n].
    """
    kernel = kernel.float()
    diagonal = kernel.diagonal()
    least = EMPTY * float(diagonal.max()) if len(kernel) else 0.0
    gain, free = diagonal.clone(), torch.ones_like(diagonal, dtype=torch.bool)
    factor = kernel.new_zeros(count, len(kernel))
    first = [] if must is None else must.nonzero()[:, 0].tolist()
    chosen: list[int] = []
    for step in range(count):
        left = gain.masked_fill(~free, float("-inf"))
        if step < len(first):
            new = first[step]
        elif float(left.max()) > least:
            new = int((left >= (1 - SAME) * left.max()).int().argmax())
        else:
            new = int(diagonal.masked_fill(~free, float("-inf")).argmax())
        chosen.append(new)
        free[new] = False
        if float(gain[new]) > least:
            row = (kernel[new] - factor[:step, new] @ factor[:step]) / gain[new].sqrt()
            factor[step] = row
            gain = gain - row.square()
    return torch.tensor(chosen, dtype=torch.long, device=kernel.device)
