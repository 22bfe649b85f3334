"""Assignment to the most similar vector, and means: cosines, nearest centers, and centers with what was merged into them.

Leading dimensions [...] are batch rows or heads. Sums run in fp32.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

SAME = 1e-6


def unit(x: Tensor) -> Tensor:
    """x [..., D] scaled to length 1, fp32; zero stays zero."""
    return F.normalize(x.float(), dim=-1)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """x [..., t, D], y [..., m, D] -> cosines [..., t, m], fp32."""
    return unit(x) @ unit(y).mT


def first_best(similarity: Tensor) -> Tensor:
    """similarity [..., t, m] -> the best column of every row, [..., t]; ties (up to rounding) go to the earlier."""
    return (similarity >= similarity.amax(-1, keepdim=True) - SAME).int().argmax(-1)


def nearest(x: Tensor, centers: Tensor) -> Tensor:
    """x [..., t, D], centers [..., m, D] -> the center with the highest cosine for every x, [..., t] in 0 .. m - 1."""
    return first_best(cosine(x, centers))


def sums(x: Tensor, to: Tensor, count: int) -> Tensor:
    """Sums of x [..., t, D] by class `to` [..., t] in 0 .. count - 1 -> [..., count, D], fp32."""
    out = x.new_zeros(*x.shape[:-2], count, x.shape[-1], dtype=x.float().dtype)
    return out.scatter_add(-2, to[..., None].expand(x.shape), x.to(out.dtype))


def means(x: Tensor, to: Tensor, count: int, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weighted means of x [..., t, D] by class `to` [..., t] -> ([..., count, D], weights in each class [..., count]), fp32.

    Args:
        weight: of every x, [..., t], not negative; None: all 1. A class without weight has mean zero.
    """
    weight = (x.new_ones(x.shape[:-1]) if weight is None else weight).float()[..., None]
    total = sums(weight, to, count)
    return sums(weight * x.float(), to, count) / total.where(total > 0, 1.0), total[..., 0]


def folded(
    centers: Tensor, x: Tensor, to: Tensor, weight: Tensor | None = None, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Every center becomes the weighted mean of itself and of all x assigned to it, fp32 ([..., m, D], [..., m]).

    Args:
        centers, x, to: [..., m, D], [..., t, D], and [..., t] from `nearest`.
        weight, own: weights of x [..., t] and of the centers [..., m]; None: all 1, that is (c + sum x) / (1 + count).
    """
    m = centers.shape[-2]
    own = centers.new_ones(centers.shape[:-1]).float() if own is None else own.float()
    mean, mass = means(x, to, m, weight)
    total = (own + mass)[..., None]
    mixed = (own[..., None] * centers.float() + mass[..., None] * mean) / total.where(total > 0, 1.0)
    return mixed.where(total > 0, centers.float()), total[..., 0]
