"""Density peaks: centres that are dense and far from anything denser (DPC-KNN)."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.ops.select import best


def peak_scores(x: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """How much each point of x [n, D] is a peak, [n] fp32, and the distances of all points, [n, n].

    Distances are Euclidean over sqrt(D); density = exp(-mean of the squared distances to the nearest points); a point's
    score is its density times its distance to the nearest denser point (on ties the earlier is denser), or for the densest
    one the largest distance of all.

    Args:
        neighbours: how many points are the nearest ones, the point itself included.
    """
    n = len(x)
    distance = torch.cdist(x.float(), x.float(), compute_mode="donot_use_mm_for_euclid_dist") / x.shape[1] ** 0.5
    density = (-distance.topk(min(neighbours, n), largest=False).values.square().mean(1)).exp()
    place = torch.arange(n, device=x.device)
    denser = (density > density[:, None]) | ((density == density[:, None]) & (place < place[:, None]))
    return density * distance.where(denser, distance.max()).amin(1), distance


def density_peaks(x: Tensor, groups: int, neighbours: int, ranked: bool = False) -> tuple[Tensor, Tensor]:
    """Clustering of x [n, D] around its peaks: centres [groups], ascending or, if `ranked`, the best first, and the group of
    every point, [n]. The points of highest `peak_scores` are centres; every other point joins the nearest.

    Raises:
        ValueError: more groups than points.
    """
    if groups > len(x):
        raise ValueError(f"{groups} groups of {len(x)} points are too many.")
    scores, distance = peak_scores(x, neighbours)
    centres = best(scores, groups).nonzero()[:, 0]
    if ranked:
        centres = centres[scores[centres].argsort(descending=True, stable=True)]
    group = (distance[:, centres] == distance[:, centres].amin(1, keepdim=True)).int().argmax(1)
    group[centres] = torch.arange(groups, device=x.device)
    return centres, group
