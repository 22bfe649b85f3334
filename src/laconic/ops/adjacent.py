"""Neighbours in a sequence that are merged in pairs (arXiv 2306.16009)."""

from __future__ import annotations

import torch
from torch import Tensor

from laconic.ops.similarity import unit


def neighbours(x: Tensor) -> Tensor:
    """x [t, d] -> cosine of each row with the next, fp32 [t - 1]."""
    x = unit(x)
    return (x[:-1] * x[1:]).sum(-1)


def left_to_right(candidates: Tensor) -> Tensor:
    """Which of the pairs (i, i + 1) that are `candidates` [t - 1] are taken, bool: greedily from the left, without overlap.

    Of a run of candidates that is every second one, from its first: a largest set.
    """
    place = torch.arange(len(candidates), device=candidates.device)
    before = torch.where(candidates, -1, place).cummax(0).values  # the last pair so far that is no candidate
    return candidates & ((place - before) % 2 == 1)


def best_pairs(similarity: Tensor, count: int) -> Tensor:
    """Exactly `count` of the pairs that `similarity` [t - 1] is of, bool: the fewest most similar candidates from which
    `left_to_right` takes that many. One more candidate adds at most one pair, so that number is always met.

    Raises:
        ValueError: more pairs than half of the tokens.
    """
    most = (len(similarity) + 1) // 2
    if not 0 <= count <= most:
        raise ValueError(f"count={count}: {len(similarity) + 1} tokens have 0 to {most} pairs of neighbours.")
    order = similarity.argsort(descending=True, stable=True)
    low, high = 0, len(similarity)
    taken = torch.zeros_like(similarity, dtype=torch.bool)
    while low < high:
        middle = (low + high) // 2
        if int(_taken(order[:middle], len(similarity)).sum()) < count:
            low = middle + 1
        else:
            high = middle
    return taken if count == 0 else _taken(order[:low], len(similarity))


def _taken(candidates: Tensor, pairs: int) -> Tensor:
    mask = torch.zeros(pairs, dtype=torch.bool, device=candidates.device)
    mask[candidates] = True
    return left_to_right(mask)


def groups(pairs: Tensor) -> Tensor:
    """The merged token that each of t tokens becomes part of, [t] in 0 .. t - 1 - merges, from the pairs taken [t - 1]."""
    first = torch.ones(len(pairs) + 1, dtype=torch.bool, device=pairs.device)
    first[1:] = ~pairs
    return first.long().cumsum(0) - 1
