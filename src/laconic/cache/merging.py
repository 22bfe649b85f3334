"""Merging entries into others: assignment with a class that means "forget", and weighted means with separate lengths.

Tensors in, tensors out; leading dimensions [...] are heads (and batch rows).
"""

from __future__ import annotations

import torch

from laconic.ops.similarity import cosine, sums, unit


def assign(
    moving: torch.Tensor, centers: torch.Tensor, threshold: float, closed: torch.Tensor | None = None
) -> torch.Tensor:
    """Where every moving entry goes: moving [..., t, D], centers [..., m, D] -> [..., t] with values 0 .. m.

    The center with the highest cosine, or m, the zero class, when none exceeds `threshold`. Centers that are True in
    `closed` [..., m] accept no entries.
    """
    similarity = cosine(moving, centers)
    if closed is not None:
        similarity = similarity.masked_fill(closed[..., None, :], float("-inf"))
    best = similarity.amax(-1, keepdim=True)
    # repeated tokens have equal keys: the earlier center wins, whatever the rounding
    first = (similarity >= best - 1e-5).int().argmax(-1)
    return torch.where(best[..., 0] > threshold, first, centers.shape[-2])


def gathered(x: torch.Tensor, to: torch.Tensor, count: int) -> torch.Tensor:
    """Sums of x [..., t, D] by class `to` [..., t] in 0 .. count -> [..., count, D], fp32; class `count` is forgotten."""
    return sums(x, to, count + 1)[..., :count, :]


def merge_values(
    centers: torch.Tensor, moving: torch.Tensor, to: torch.Tensor, weight: torch.Tensor, moving_weight: torch.Tensor
) -> torch.Tensor:
    """Weighted means of every center and the entries assigned to it, fp32.

    Args:
        centers, moving: [..., m, D] and [..., t, D].
        to: from `assign`, [..., t].
        weight, moving_weight: [..., m] and [..., t], not negative.
    """
    m = centers.shape[-2]
    weight, moving_weight = weight[..., None].float(), moving_weight[..., None].float()
    total = weight + gathered(moving_weight, to, m)
    mean = weight * centers.float() + gathered(moving_weight * moving.float(), to, m)
    return torch.where(total > 0, mean / total.clamp(min=torch.finfo(torch.float32).tiny), centers.float())


def merge_keys(
    centers: torch.Tensor, moving: torch.Tensor, to: torch.Tensor, weight: torch.Tensor, moving_weight: torch.Tensor
) -> torch.Tensor:
    """The same for keys, direction and length separately: the mean of unit vectors, normalised, times the mean length.

    A plain mean of vectors that point in different directions is too short, and a short key gets too little attention.
    """
    direction = merge_values(unit(centers), unit(moving), to, weight, moving_weight)
    length, moving_length = centers.float().norm(dim=-1, keepdim=True), moving.float().norm(dim=-1, keepdim=True)
    return unit(direction) * merge_values(length, moving_length, to, weight, moving_weight)
