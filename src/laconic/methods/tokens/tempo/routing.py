"""How many notes of each segment are read, by how likely it is to matter; and which of them (arXiv 2604.08120)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Kept = Literal["head", "tail", "random"]
KEPT: tuple[str, ...] = get_args(Kept)


def allocate(scores: Tensor, budget: int, least: int, most: int) -> list[int]:
    """Notes of every segment.

        n_i = (s_i - min) / (max - min);   k_i = least + floor(n_i (most - least))

    Where these are more than the budget, what it leaves above `least` is dealt out in proportion to n_i instead; what floors
    leave over goes to the highest, one each. Equal scores share evenly. The sum is a ceiling: it may stay far below it.

    Args:
        scores: [S], S at most `budget`. `least`: lowered where S times it is more than the budget.
    """
    scores, count = scores.double(), len(scores)
    if count * least > budget:
        least = max(1, budget // count)
    low, high = scores.min(), scores.max()
    if float(high - low) < 1e-8:
        return [min(most, budget // count)] * count
    share = (scores - low) / (high - low)
    counts = least + (share * (most - least)).floor().long()
    if int(counts.sum()) > budget:
        extra = budget - count * least
        dealt = (extra * share / share.sum()).floor().long()
        left = extra - int(dealt.sum())
        dealt[share.argsort(descending=True, stable=True)[:left]] += 1
        counts = least + dealt
    return [int(k) for k in counts.clamp(max=most)]


def ceilings(scores: Sequence[float], budget: int, most: int) -> list[int]:
    """The most notes that a segment can ever get, whatever segments are still to come.

    `allocate` never gives more to a lower score, so the r segments from the highest score down to this one share the budget:
    ``k <= budget / r``. Later segments can only raise r. So S segments need ``budget (1 + ln(S most / budget))`` notes at
    most, not ``S most``.
    """
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    ranks = {i: rank for rank, i in enumerate(order, 1)}
    return [min(most, max(1, budget // ranks[i])) for i in range(len(scores))]


def which(count: int, of: int, kept: Kept, seed: int = 0) -> Tensor:
    """Numbers of the `count` notes that are read, ascending: the first ones, or for comparison the last or random ones."""
    if kept == "random":
        return torch.randperm(of, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    return torch.arange(count) + (of - count if kept == "tail" else 0)
